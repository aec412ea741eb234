"""What is hidden of clips: how much, of which value, and on what it depends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import NANO

from gristmill.model.augment.masking import Masking
from gristmill.model.augment.spec_augment import SpecAugment
from gristmill.model.phi4.multimodal import Multimodal

MEAN = torch.arange(80) / 10


def window(*frames: int) -> dict[str, np.ndarray]:
    """With clips of so many frames, no value of which is a mean."""
    mel = np.random.default_rng(0).uniform(9, 20, (sum(frames), 80)).astype(np.float32)
    return {"input_ids": np.arange(3), "mel": mel, "cu_frames": np.cumsum([0, *frames])}


def hidden(how: SpecAugment, frames: int = 300, key: str = "w1", epoch: int = 0, seed: int = 0) -> np.ndarray:
    """Which values of a clip are hidden, bool [frames, 80]."""
    given = window(frames)
    shown = Masking(how, MEAN, seed).masked(given, key, epoch)["mel"]
    where = shown != given["mel"]
    assert np.array_equal(shown[where], np.broadcast_to(MEAN.numpy(), shown.shape)[where])
    return where


def test_stretches_of_time_and_of_bands_are_hidden_within_their_bounds() -> None:
    how = SpecAugment(time_masks=2, time_width=40, time_share=0.1, band_masks=1, band_width=12)
    times, bands = [], []
    for number in range(200):
        where = hidden(how, key=f"w{number}")
        rows, columns = where.all(1), where.all(0)
        assert np.array_equal(where, rows[:, None] | columns[None])
        times.append(rows.sum())
        bands.append(columns.sum())
        assert len(np.flatnonzero(np.diff(rows.astype(int)) == 1)) <= 2
    assert 50 < max(times) <= 2 * 30 and 9 < max(bands) <= 12, "30 frames are a tenth of a clip"
    assert min(times) < 15 and min(bands) == 0


def test_it_follows_from_seed_window_clip_and_epoch_and_from_nothing_else() -> None:
    how = SpecAugment()
    first = hidden(how)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    assert np.array_equal(first, hidden(how)), "whatever was drawn before"
    assert torch.equal(state, torch.random.get_rng_state())
    for other in (hidden(how, key="w2"), hidden(how, epoch=1), hidden(how, seed=1)):
        assert not np.array_equal(first, other)
    several = window(300, 50, 300)
    shown = Masking(how, MEAN, 0).masked(several, "w1", 0)["mel"] != several["mel"]
    assert np.array_equal(shown[:300], first), "its neighbours decide nothing"
    assert not np.array_equal(shown[350:], first)


def test_a_window_without_clips_and_a_stage_that_hides_nothing_change_nothing() -> None:
    given = window(40)
    text = {"input_ids": np.arange(3)}
    assert Masking(SpecAugment(), MEAN, 0).masked(text, "w1", 0) is text
    assert Masking.of(None, torch.nn.Linear(1, 1), 0).masked(given, "w1", 0) is given
    nothing = SpecAugment(time_masks=0, band_masks=0)
    assert np.array_equal(Masking(nothing, MEAN, 0).masked(given, "w1", 0)["mel"], given["mel"])


def test_what_is_hidden_is_zero_to_the_encoder() -> None:
    model = Multimodal.seeded(NANO, 0)
    scale = model.audio_encoder.encoder_embedding
    scale.scale_to(MEAN.tolist(), [0.25] * 80)
    masking = Masking.of(SpecAugment(band_masks=2, band_width=40), model, 0)
    shown = torch.from_numpy(masking.masked(window(60), "w1", 0)["mel"])
    seen = scale(shown[None])[0]
    assert torch.equal(seen == 0, shown == MEAN) and bool((seen == 0).any())


@pytest.mark.parametrize("name", ["time_masks", "time_width", "band_masks", "band_width"])
def test_what_cannot_be_hidden_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"spec_augment.{name}=-1: allowed is 0 or more"):
        SpecAugment(**{name: -1})
