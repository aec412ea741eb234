"""Plans of crops against those of transformers' image processor, which come of its own code without a pixel.

The reference knows crops of 448 pixels in patches of 14 only; others are judged by what a plan promises, and by the
number of tokens that the projector makes.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from released_images import CAPS, TABLE, plan_or_none
from transformers.models.phi4_multimodal import image_processing_phi4_multimodal as reference

from gristmill.model.phi4.config import VisionConfig
from gristmill.model.phi4.vision import VisionProjector
from gristmill.model.processing.image import CropPlan, ExtremeRatio, grid_of, patch_masks, plan_crops

SIDES = (1, 5, 9, 10, 11, 60, 223, 336, 447, 448, 449, 600, 897, 1080, 1344, 1920, 2689, 4032, 6000, 20_000)


def planned(height: int, width: int, cap: int, monkeypatch: pytest.MonkeyPatch) -> CropPlan | None:
    """The reference's plan, by its own code but without a pixel; None: it refuses the image."""
    size: list[int] = []
    blank = SimpleNamespace(shape=(3, height, width), device=torch.device("cpu"))
    monkeypatch.setattr(reference.tvF, "resize", lambda image, sides: size.extend(sides))
    monkeypatch.setattr(reference.tvF, "pad", lambda image, padding, fill: padding)
    processor = reference.Phi4MultimodalImageProcessor()
    try:
        _, mask = processor.dynamic_preprocess(blank, 448, 14, 32, max_num=cap)
    except ValueError:
        return None
    finally:
        monkeypatch.undo()
    real = mask[::2, ::2]
    tokens = 256 + 16 + 1 + int(real.sum()) + int(real[:, 0].sum())
    return CropPlan(mask.shape[0] // 32, mask.shape[1] // 32, *size, tokens=tokens)


@pytest.mark.parametrize(("height", "width", "cap", "grid", "resized", "real", "tokens"), TABLE)
def test_released_plans(
    height: int,
    width: int,
    cap: int,
    grid: tuple[int, int],
    resized: tuple[int, int],
    real: tuple[int, int],
    tokens: int,
) -> None:
    assert plan_crops(height, width, cap) == CropPlan(*grid, *resized, tokens=tokens)
    mask = patch_masks([resized], 448, 14)
    assert mask.shape == (1 + grid[0] * grid[1], 32, 32) and mask[0].all()
    whole = mask[1:].view(*grid, 32, 32).transpose(1, 2).reshape(32 * grid[0], 32 * grid[1])[::2, ::2]
    assert (int(whole[:, 0].sum()), int(whole[0].sum()), int(whole.sum())) == (*real, real[0] * real[1])


@pytest.mark.parametrize("cap", CAPS)
def test_plans_and_refusals_are_the_references(cap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = {(h, w): (plan_or_none(h, w, cap), planned(h, w, cap, monkeypatch)) for h in SIDES for w in SIDES}
    assert {size: pair for size, pair in plans.items() if pair[0] != pair[1]} == {}
    refused = sum(plan is None for plan, _ in plans.values())
    assert 40 < refused < 200


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from(CAPS))
def test_plans_of_any_size_are_the_references(height: int, width: int, cap: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert plan_or_none(height, width, cap) == planned(height, width, cap, monkeypatch)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 64), st.sampled_from([(32, 8), (64, 8), (224, 14)]))
def test_a_plan_keeps_its_promises_for_other_crops(height: int, width: int, cap: int, sizes: tuple[int, int]) -> None:
    crop, patch = sizes
    try:
        plan = plan_crops(height, width, cap, crop, patch)
    except ExtremeRatio:
        longer, shorter = max(height, width), min(height, width)
        assert longer / shorter > crop / 10 / 2  # else it fits one crop with ten pixels, though not the closest grid
        return
    resized = (plan.resized_height, plan.resized_width)
    assert plan.rows * plan.cols <= cap
    assert grid_of(resized, crop) == (plan.rows, plan.cols)  # so tiles and sizes are enough
    assert resized[0] == crop * plan.rows or resized[1] == crop * plan.cols
    assert max(resized[0] - crop * plan.rows, resized[1] - crop * plan.cols) == 0
    assert abs(resized[0] / height - resized[1] / width) <= max(1 / height, 1 / width) + 1e-9  # no stretching
    if cap >= -(-height // crop) * -(-width // crop):
        assert resized[0] >= height - 1 and resized[1] >= width - 1  # nothing is shrunk that need not be


@pytest.mark.parametrize(("crop", "patch"), [(32, 8), (64, 8), (224, 14), (448, 14)])
@pytest.mark.parametrize("size", [(40, 300), (640, 480), (100, 100), (500, 90)])
def test_as_many_tokens_are_planned_as_the_projector_makes(size: tuple[int, int], crop: int, patch: int) -> None:
    config = VisionConfig(hidden_size=8, num_attention_heads=2, crop_size=crop, patch_size=patch)
    plan = plan_crops(*size, 12, crop, patch)
    mask = patch_masks([(plan.resized_height, plan.resized_width)], crop, patch)
    features = torch.zeros(len(mask), (config.grid // 2) ** 2, 8)
    padded = torch.tensor([[plan.rows * crop, plan.cols * crop]])
    assert [len(image) for image in VisionProjector(config, 4)([features], padded, [mask])] == [plan.tokens]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 16), "an image of 0x10 pixels: allowed are 1 and more a side"),
        ((10, 10, 0), "max_crops=0, crop=448, patch=14: allowed are 1 and more crops"),
        ((10, 10, 4, 60, 8), "crop=60, patch=8: allowed are .* of a multiple of twice the patch"),
        ((10, 10, 4, 8, 4), "crop=8, patch=4: allowed are .* 10 pixels or more"),
        (
            (5, 500, 36),
            r"ratio of 5x500 pixels is very extreme: in 1x2 crops of 448 it would have 8x896, and 10 a side",
        ),
    ],
)
def test_sizes_and_settings_that_make_no_sense_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_crops(*arguments)
