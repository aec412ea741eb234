"""Crops against the image processor of transformers: plans, tokens, pixels, what is refused, and a model's logits.

Where torch resizes uint8 by itself in the reference too, pixels are the same bits, in the global view too; elsewhere
they may be a level apart. The reference knows crops of 448 pixels in patches of 14 only; others are judged by the
formula and by the number of tokens that the projector makes.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor
from transformers.models.phi4_multimodal import image_processing_phi4_multimodal as reference

from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.phi4.config import VisionConfig
from gristmill.model.phi4.vision import VisionProjector
from gristmill.model.processing.image import (
    CropPlan,
    ExtremeRatio,
    crops,
    grid_of,
    image_inputs,
    patch_masks,
    pixels_of,
    plan_crops,
)
from gristmill.model.processing.image_file import ImageError, decode_image

pytestmark = pytest.mark.usefixtures("one_thread")

CAPS = (16, 36)
NATIVE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
"""Whether the reference leaves the resizing of uint8 to torch on this machine."""
LEVEL = 0.0 if NATIVE else 2 / 255 + 1e-6

SIDES = (1, 5, 9, 10, 11, 60, 223, 336, 447, 448, 449, 600, 897, 1080, 1344, 1920, 2689, 4032, 6000, 20_000)

TABLE = [
    (28, 28, 36, (1, 1), (448, 448), (16, 16), 545),
    (100, 60, 36, (1, 1), (448, 268), (16, 10), 449),
    (448, 448, 36, (1, 1), (448, 448), (16, 16), 545),
    (336, 500, 36, (1, 2), (448, 666), (16, 24), 673),
    (449, 448, 36, (2, 1), (449, 448), (17, 16), 562),
    (600, 800, 36, (2, 2), (672, 896), (24, 32), 1065),
    (1344, 1344, 36, (3, 3), (1344, 1344), (48, 48), 2625),
    (1080, 1920, 16, (3, 5), (1260, 2240), (45, 80), 3918),
    (1080, 1920, 36, (3, 5), (1260, 2240), (45, 80), 3918),
    (2000, 3000, 36, (5, 7), (2090, 3136), (75, 112), 8748),
    (2000, 3000, 16, (2, 3), (896, 1344), (32, 48), 1841),
    (4000, 3000, 16, (4, 3), (1792, 1344), (64, 48), 3409),
    (4032, 3024, 36, (4, 3), (1792, 1344), (64, 48), 3409),
    (2160, 3840, 36, (4, 7), (1764, 3136), (63, 112), 7392),
    (2688, 2689, 36, (6, 6), (2687, 2688), (96, 96), 9585),
    (13, 500, 36, (1, 2), (23, 896), (1, 32), 306),
    (6000, 60, 36, (14, 1), (6272, 62), (224, 3), 1169),
]
"""Height, width, cap; rows and columns, resized size, pooled patches that are real, tokens."""


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with noise upon them, so that neither a shift nor a filter goes unseen."""
    pick = np.random.default_rng(height * 31 + width)
    down, right = np.linspace(0, 200, height)[:, None, None], np.linspace(0, 55, width)[None, :, None]
    return (down * [1.0, 0.5, 0.2] + right * [0.2, 1.0, 0.7] + pick.integers(0, 30, (height, width, 3))).astype(
        np.uint8
    )


def processed(images: Sequence[np.ndarray | Image.Image], cap: int) -> dict[str, Any]:
    """By the reference, which has to guess of an array which axis is colour."""
    pictures = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
    return dict(reference.Phi4MultimodalImageProcessor(dynamic_hd=cap)(pictures, return_tensors="pt"))


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


def plan_or_none(height: int, width: int, cap: int) -> CropPlan | None:
    try:
        return plan_crops(height, width, cap)
    except ExtremeRatio:
        return None


# Plans.


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


# Pixels.


def assert_the_same(images: Sequence[np.ndarray], given: Sequence[np.ndarray | Image.Image], cap: int) -> None:
    """Tiles, pixels, masks and tokens of images are what the reference makes of `given`; end to end, where it pads."""
    expected = processed(given, cap)
    cut = [crops(image, cap) for image in images]
    assert [each.tokens for each in cut] == list(expected["num_img_tokens"])
    tiles = torch.from_numpy(np.concatenate([each.tiles for each in cut]))
    inputs = image_inputs(tiles, [each.image_size for each in cut])
    assert torch.equal(inputs["image_sizes"], expected["image_sizes"])
    counts = [1 + len(each.tiles) for each in cut]
    ends = zip(expected["image_pixel_values"], expected["image_attention_mask"], counts, cut, strict=True)
    split = zip(*(inputs[f"image_{name}"].split(counts) for name in ("pixel_values", "attention_mask")), strict=True)
    for (values, mask, count, each), (pixels, real) in zip(ends, split, strict=True):
        assert torch.equal(real.float(), mask[:count]) and torch.equal(each.mask, real)
        assert torch.equal(each.pixels(), pixels)
        if NATIVE:
            assert torch.equal(pixels, values[:count])  # of the global view 2.4e-7 were allowed
        else:
            assert (pixels[1:] - values[1:count]).abs().max() <= LEVEL
            assert (pixels[0] - values[0]).abs().max() <= 2.5 * LEVEL  # the sum of its taps' sizes, squared


@pytest.mark.parametrize(
    ("size", "cap"),
    [
        *[((height, width), cap) for height, width, cap, *_ in TABLE if height * width < 2_100_000],
        ((2000, 3000), 16),
        ((3, 100), 16),  # one crop, as flat as may be
        ((450, 450), 2),
        ((1800, 1800), 16),
        ((500, 3000), 16),
    ],
)
def test_pixels_are_the_references(size: tuple[int, int], cap: int) -> None:
    image = picture(*size)
    assert_the_same([image], [image], cap)


def test_several_images_end_to_end_are_the_references_padded_ones() -> None:
    images = [picture(*size) for size in ((28, 28), (600, 800), (449, 448), (300, 1300))]
    assert_the_same(images, images, 16)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 1400), st.integers(1, 1400), st.sampled_from(CAPS))
def test_pixels_of_any_size_are_the_references(height: int, width: int, cap: int) -> None:
    image = picture(height, width)
    if plan_or_none(height, width, cap) is None:
        with pytest.raises(ValueError, match="very extreme"):
            processed([image], cap)
    else:
        assert_the_same([image], [image], cap)


def test_real_images_are_the_references(shared_data: Path) -> None:
    count = 0
    for path in sorted((shared_data / "4_images").iterdir()):
        data = path.read_bytes()
        try:
            image = decode_image(data)
        except ImageError:
            continue
        given = image if path.suffix == ".tif" else ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert_the_same([image], [given], 16)
        count += 1
    assert count > 60


@pytest.mark.parametrize("rows", range(1, 9))
@pytest.mark.parametrize("cols", [1, 2, 3, 4, 5, 6, 12])
def test_the_global_view_is_the_whole_pictures_interpolation_bit_for_bit(rows: int, cols: int) -> None:
    side = 24
    tiles = torch.randint(0, 256, (rows * cols, side, side, 3), dtype=torch.uint8)
    floats = (tiles.float() - 127.5) / 127.5
    whole = floats.view(rows, cols, side, side, 3).permute(4, 0, 2, 1, 3).reshape(1, 3, rows * side, cols * side)
    expected = F.interpolate(whole, size=(side, side), mode="bicubic", align_corners=False)[0]
    pixels = pixels_of(tiles, [(rows * side, cols * side)])
    assert torch.equal(pixels[0], expected)
    assert torch.equal(pixels[1:], floats.permute(0, 3, 1, 2))


def test_an_image_that_fits_is_cut_and_not_resized() -> None:
    image = picture(100, 128)
    cut = crops(image, 8, 64, 8)
    assert cut.image_size == (100, 128) and cut.tiles.shape == (4, 64, 64, 3)
    whole = cut.tiles.reshape(2, 2, 64, 64, 3).swapaxes(1, 2).reshape(128, 128, 3)
    assert np.array_equal(whole[:100], image) and (whole[100:] == 255).all()
    assert cut.tokens == 7 * 9 + 1 + 4 * 5


def test_views_of_an_array_and_read_only_ones_are_cut_like_copies(recwarn: pytest.WarningsRecorder) -> None:
    image = picture(90, 120)
    frozen = image.copy()
    frozen.setflags(write=False)
    turned = np.ascontiguousarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    tiles = crops(image, 8, 64, 8).tiles
    assert all(np.array_equal(crops(other, 8, 64, 8).tiles, tiles) for other in (frozen, turned))
    assert not recwarn.list
    assert np.array_equal(image, frozen)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), r"an image of float32 \[9, 9, 3\]: needed is uint8 \[height, width, 3\]"),
        (np.zeros((9, 9), np.uint8), r"an image of uint8 \[9, 9\]"),
        (np.zeros((3, 9, 9), np.uint8), r"an image of uint8 \[3, 9, 9\]"),
        (np.zeros((0, 9, 3), np.uint8), "an image of 0x9 pixels"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crops(image, 4)


def test_tiles_that_are_not_of_the_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_sizes \[\(64, 65\)\] are of 2 crops of 64 pixels, not 3"):
        pixels_of(torch.zeros(3, 64, 64, 3, dtype=torch.uint8), [(64, 65)])


# Logits.


def row_of(counts: Sequence[int]) -> Tensor:
    """Words and, between them, images of so many tokens each."""
    parts = [torch.arange(7)]
    for count in counts:
        parts += [torch.full((count,), hf.IMAGE), torch.arange(10, 15)]
    return torch.cat(parts)[None]


def test_logits_are_the_same_with_both_processors(written_multimodal: Path) -> None:
    images = [picture(*size) for size in ((200, 120), (500, 420), (450, 700))]
    expected = processed(images, 16)
    row = row_of(expected.pop("num_img_tokens"))
    cut = [crops(image, 16) for image in images]
    inputs = image_inputs(
        torch.from_numpy(np.concatenate([each.tiles for each in cut])), [each.image_size for each in cut]
    )
    model, other = load_hf(written_multimodal), hf.tiny_multimodal()
    with torch.no_grad():
        logits = model(row, **inputs, adapter=None).logits
        wanted = other(input_ids=row, **expected).logits
    assert wanted.std() > 0.5
    atol = 1e-4 if NATIVE else 0.1
    torch.testing.assert_close(logits, wanted, atol=atol, rtol=0)
