"""The warm-up of an encoder: pairs are those of a window and by the formula, whatever passes and ranks; it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_windows import CROP, Sample, packed, sample, tokens_of_picture
from models import IMAGE, NANO
from ranks import in_ranks
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid, normalize
from train_windows import stage, write_arrays

from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.plan.estimate import Window, estimate
from gristmill.model.train.loop import Trainer
from gristmill.model.train.objective import collate
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Settings, Source
from gristmill.model.warmup.siglip import MOST_TOKENS, SiglipObjective, image_tokens, texts_of
from gristmill.model.windows.cost import Cost

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = [(220, 30, 30), (30, 180, 60), (30, 60, 220), (10, 10, 10), (240, 220, 40), (250, 250, 250)]
NAMES = [[40, 41], [41, 40], [42, 40], [43], [42, 44, 45], [46, 40]]
"""The words for each colour."""


def captioned(colour: int, seed: int, pictures: int = 1, names: list[int] | None = None) -> Sample:
    """Pictures of a colour, then the words for it, which are learned."""
    rng = np.random.default_rng(seed)
    ids = NAMES[colour] if names is None else names
    drawn = Sample([30], [False])
    for _ in range(pictures):
        tile = np.clip(rng.integers(-20, 21, (1, CROP, CROP, 3)) + np.array(COLOURS[colour]), 0, 255)
        drawn.pictures.append(((CROP, CROP), tile.astype(np.uint8)))
        count = tokens_of_picture(CROP, CROP)
        drawn.ids.extend([IMAGE] * count)
        drawn.learn.extend([False] * count)
    drawn.ids.extend([31, *ids])
    drawn.learn.extend([False] + [True] * len(ids))
    return drawn


@pytest.fixture(scope="module")
def model() -> Multimodal:
    return Multimodal.seeded(NANO, 1)


def by_the_formula(objective: SiglipObjective, given: list[tuple[Sample, int]]) -> float:
    """Of a window of images with the numbers of their texts, of which each is told apart by its own number."""
    encoder: Any = objective.model.vision_encoder
    total = 0.0
    images, texts = [], []
    for each, _ in given:
        pixels = (torch.from_numpy(each.pictures[0][1]).permute(0, 3, 1, 2).float() - 127.5) / 127.5
        images.append(objective.pooling(encoder(pixels, torch.ones(1, 8, 8)))[0])
        ids = torch.tensor([token for token, learned in zip(each.ids, each.learn, strict=True) if learned])
        embedded = objective.model.language.embed_tokens(ids)
        texts.append(objective.text(embedded[None], torch.ones(1, len(ids), dtype=torch.bool))[0])
    for image, (_, own) in zip(images, given, strict=True):
        for text, (_, other) in zip(texts, given, strict=True):
            cosine = normalize(image, dim=0) @ normalize(text, dim=0)
            z = cosine * objective.loss.log_temperature.exp() + objective.loss.bias
            total -= float(logsigmoid(z if own == other else -z))
    return total


def test_the_loss_is_the_formula_of_each_window_where_equal_texts_match(model: Multimodal) -> None:
    objective = SiglipObjective(model, seed=3)
    windows = [[(captioned(c, n), c) for n, c in enumerate(colours)] for colours in ([0, 1, 0, 4], [1, 1, 5])]
    arrays = [packed([each for each, _ in window]) for window in windows]
    with torch.no_grad():
        expected = [by_the_formula(objective, window) for window in windows]
        apart = [objective(collate([window], NANO)) for window in arrays]
        together = objective(collate(arrays, NANO))
    assert [int(count) for _, count in apart] == [4, 3] and int(together[1]) == 7
    for (loss, _), wanted in zip(apart, expected, strict=True):
        assert float(loss) == pytest.approx(wanted, rel=1e-4)
    assert float(together[0]) == pytest.approx(sum(expected), rel=1e-4)


def test_all_images_of_a_segment_have_its_text_and_one_without_text_is_no_pair(model: Multimodal) -> None:
    objective = SiglipObjective(model)
    two, without = captioned(0, 1, pictures=2), captioned(1, 2, names=[])
    mixed = packed([sample(1), without, two, sample(2)])
    with torch.no_grad():
        loss, count = objective(collate([mixed], NANO))
        alone, _ = objective(collate([packed([two])], NANO))
        texts_only = objective(collate([packed([sample(1)])], NANO))
        none = objective(collate([packed([without])], NANO))
    assert int(count) == 2 and float(loss) == pytest.approx(float(alone), rel=1e-5)
    assert [(float(loss), int(count)) for loss, count in (texts_only, none)] == [(0, 0)] * 2


def test_what_an_image_becomes_is_counted_by_its_size(model: Multimodal) -> None:
    sizes = [(64, 64), (100, 64), (33, 120), (130, 190)]
    each = sample(5, pictures=sizes)
    batch = collate([packed([each])], NANO)
    inputs = batch.inputs["image_sizes"], batch.inputs["image_attention_mask"]
    assert NANO.vision is not None
    assert image_tokens(NANO.vision, *inputs) == [tokens_of_picture(*size) for size in sizes]
    with pytest.raises(ValueError, match=r"input_ids have \d+ tokens of images, the images make"):
        SiglipObjective(model)(replace(batch, input_ids=batch.input_ids.clamp(max=IMAGE - 1)))


def test_a_text_is_read_up_to_its_most_tokens() -> None:
    long = Sample([5] * 3 + list(range(100, 100 + MOST_TOKENS + 9)), [False] * 3 + [True] * (MOST_TOKENS + 9))
    ids, real = texts_of(collate([packed([long, captioned(3, 0, pictures=0)])]))
    assert ids.shape == real.shape == (2, MOST_TOKENS)
    assert ids[0].tolist() == list(range(100, 100 + MOST_TOKENS)) and bool(real[0].all())
    assert ids[1, real[1]].tolist() == NAMES[3] and not ids[1, ~real[1]].any()


# Training.


def windows(count: int) -> list[dict[str, np.ndarray]]:
    """Of eight pictures and their words each; every fourth has no picture at all."""
    rng = np.random.default_rng(7)
    return [
        packed(
            [sample(number)] if number % 4 == 3 else [captioned(int(c), 8 * number + k) for k, c in enumerate(drawn)]
        )
        for number, drawn in enumerate(rng.integers(0, len(COLOURS), (count, 8)))
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_arrays(tmp_path_factory.mktemp("windows"), windows(12))


def warmed(source: Source, folder: Path | None = None, ranks: Ranks | None = None, **changes: Any) -> SiglipObjective:
    """An encoder after 6 steps of 4 windows. -> The objective, whose model it is of."""
    objective = SiglipObjective(Multimodal.seeded(NANO, 1), seed=2)
    fields: dict[str, Any] = {"trainable": {Part.VISION_ENCODER}, "loss": "siglip", "batch": 4, "steps": 6, **changes}
    on_step = fields.pop("on_step", None)
    per_pass = fields.pop("windows_per_pass", 2)
    Trainer(
        # Biases of keys have no gradient but what rounding leaves: `eps` keeps AdamW from making steps of that.
        stage(optim=Optim(lr=3e-3, eps=1e-5), **fields),
        objective.model,
        objective,
        source,
        config=NANO,
        base="seed 1",
        folder=folder,
        settings=Settings(windows_per_pass=per_pass, checkpoint_every=2),
        ranks=ranks,
        on_step=on_step,
    ).train()
    return objective


def test_it_learns_which_words_are_of_which_picture(source: Source) -> None:
    objective = warmed(source, steps=30)
    encoder: Any = objective.model.vision_encoder
    fresh = packed([captioned(c, 1000 + c) for c in range(len(COLOURS))])
    batch = collate([fresh], NANO)
    with torch.no_grad():
        text = objective.text(objective.model.language.embed_tokens(texts_of(batch)[0]), texts_of(batch)[1])
        image = objective.pooling(encoder(batch.inputs["image_pixel_values"][::2], torch.ones(6, 8, 8)))
    assert (normalize(image, dim=1) @ normalize(text, dim=1).T).argmax(1).tolist() == list(range(6))


def test_a_run_that_was_cut_off_ends_with_the_same_bits_its_own_parameters_too(source: Source, tmp_path: Path) -> None:
    whole = warmed(source).state_dict()

    def cut(progress: Any) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warmed(source, tmp_path, on_step=cut)
    (saved,) = tmp_path.glob("step-000000004/weights.safetensors")
    kinds = {name.split(".")[0] for name in load_file(saved)}
    assert kinds == {"objective", "vision_encoder"}
    again = warmed(source, tmp_path).state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_ranks_and_passes_change_nothing(source: Source, tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        save_file(warmed(source, ranks=ranks).state_dict(), tmp_path / f"{ranks.rank}")

    assert in_ranks(tmp_path, 2, work) == [0, 0]
    alone, by_one = warmed(source).state_dict(), warmed(source, windows_per_pass=1).state_dict()
    for other in (by_one, *(load_file(tmp_path / str(rank)) for rank in range(2))):
        for name, value in alone.items():
            torch.testing.assert_close(other[name], value, atol=2e-4, rtol=2e-3, msg=name)


def test_what_it_needs_is_reckoned_by_its_own_code() -> None:
    warmup = stage(trainable={Part.VISION_ENCODER}, loss="siglip", batch=2)
    window = Window(length=1024, tokens=1000, segments=9, targets=30, crops=16)
    needs = estimate(warmup, NANO, window, objective=lambda model: SiglipObjective(model, seed=1))
    assert set(needs.trained) == {Part.VISION_ENCODER}
    assert needs.memory.gradients > 4 * needs.trained[Part.VISION_ENCODER], "those of the towers too"
    decoder = Cost.of(NANO, {Part.VISION_ENCODER}).token
    assert decoder > 0 and Cost.of(NANO, {Part.VISION_ENCODER}, decodes=False).token == 0


def test_other_parts_are_not_trained_by_it() -> None:
    with pytest.raises(
        ValueError, match=r"trainable=\['vision_projector'\]: a stage with loss=siglip trains vision_enc"
    ):
        stage(loss="siglip", trainable={Part.VISION_PROJECTOR})
    with pytest.raises(ValueError, match="the model has no vision"):
        SiglipObjective(Multimodal.seeded(replace(NANO, vision=None, audio=None, adapters=()), 0))
