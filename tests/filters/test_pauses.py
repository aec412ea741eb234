"""Where a recording is cut: in pauses, between words, within its lengths, alike however it comes in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from speech import RATE, waveform

from gristmill.filters.audio.pauses import Cut, frame_levels, segments

QUIET = 1e-4


def spoken(lengths: list[float], pauses: list[float], rate: int = RATE) -> np.ndarray:
    """Stretches of tones of so many seconds, with pauses before, between and behind them: one more than stretches."""
    random = np.random.RandomState(5)
    parts = [QUIET * random.randn(round(pauses[0] * rate))]
    for length, pause in zip(lengths, pauses[1:], strict=True):
        time = np.arange(round(length * rate)) / rate
        parts += [0.2 * np.sin(2 * np.pi * 300 * time), QUIET * random.randn(round(pause * rate))]
    return np.concatenate(parts).astype(np.float32)


def cut_of(samples: np.ndarray, cut: Cut, rate: int = RATE) -> list[tuple[float, float]]:
    levels, hop = frame_levels([samples[:, None]], rate)
    return segments(levels, hop, cut)


def test_stretches_are_put_together_up_to_the_target_and_cut_in_pauses() -> None:
    samples = spoken([4, 4, 4, 9, 1], [1, 0.5, 0.5, 2, 0.4, 3])
    cut = cut_of(samples, Cut(target_seconds=10, longest_seconds=12))
    assert cut == [
        pytest.approx(place, abs=0.03) for place in [(0.85, 9.65), (9.85, 14.15), (15.85, 25.15), (25.25, 26.55)]
    ]
    # the last two have a pause of 0.4 s, of which each has its margin; no sample of a stretch is outside
    assert sum(end - start for start, end in cut) > 22


def test_a_stretch_without_a_pause_is_cut_where_it_is_quietest() -> None:
    samples = spoken([20], [0, 0])
    dip = slice(round(7.9 * RATE), round(8.1 * RATE))
    samples[dip] *= 0.3
    first, *others = cut_of(samples, Cut(target_seconds=10, longest_seconds=10, margin=0))
    assert first[1] == pytest.approx(8.0, abs=0.1)
    assert [first[0], *(end for _, end in (first, *others))][-1] == pytest.approx(20, abs=0.02)
    assert all(end - start <= 10 for start, end in (first, *others))


@pytest.mark.parametrize("seed", range(4))
def test_segments_hold_all_that_is_heard_within_their_length(seed: int) -> None:
    samples = np.concatenate([waveform(10 * seed + n, 5.0) for n in range(12)])
    cut = Cut(target_seconds=6, longest_seconds=8, least_pause=0.08, margin=0.03)
    places = cut_of(samples, cut)
    assert all(0 < end - start <= 8 for start, end in places)
    assert all(end <= start for (_, end), (start, _) in pairwise(places))
    outside = samples.copy()
    for start, end in places:
        outside[round(start * RATE) : round(end * RATE)] = 0
    assert np.square(outside).sum() < 1e-3 * np.square(samples).sum()


def test_nobody_is_heard_in_silence_clicks_and_an_offset() -> None:
    click = spoken([0.03, 0.03], [5, 5, 5])
    for silent in (np.zeros(10 * RATE, np.float32), np.full(10 * RATE, 0.5, np.float32), click, click[:50]):
        assert cut_of(silent, Cut()) == []


def test_noise_does_not_hide_pauses() -> None:
    noise = np.random.RandomState(1).randn(20 * RATE).astype(np.float32)
    samples = spoken([6, 6, 6], [0.5, 0.5, 0.5, 0.5])
    noisy = samples + 0.02 * noise[: len(samples)]
    cut = Cut(target_seconds=7, longest_seconds=10)
    assert cut_of(noisy, cut) == [pytest.approx(place, abs=0.05) for place in cut_of(samples, cut)]
    assert len(cut_of(noisy, cut)) == 3


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100])
def test_how_a_stream_comes_changes_nothing(rate: int) -> None:
    samples = waveform(1, 3.0, rate)[:, None]
    whole, hop = frame_levels([samples], rate)
    pieces, _ = frame_levels((samples[first : first + 777] for first in range(0, len(samples), 777)), rate)
    assert np.array_equal(whole, pieces) and len(whole) == len(samples) // round(hop * rate)


@pytest.mark.parametrize(
    "wrong",
    [{"target_seconds": 40}, {"target_seconds": 0.5}, {"longest_seconds": 4000}, {"least_pause": 0.01}, {"margin": 6}],
)
def test_what_cannot_be_asked_for(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"cut: .*{next(iter(wrong))}.*allowed"):
        Cut(**wrong)
