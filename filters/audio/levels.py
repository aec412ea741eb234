"""What a waveform measures: how loud, how much of it is silence, how much is cut off at the top.

Silence is what no speaker could be heard in: frames of 25 ms below 60 dB under full scale, or 40 dB under the loud
frames of the clip, so that a quiet recording is no silence and a noisy one can be. Cut off are samples at full scale,
and tops that are flat, which a clipped recording keeps when it is made softer. What is loud is what moves: the mean
and the slope of a frame are an offset of the recorder, which nobody hears. Measured in blocks: memory does not grow
with length.
Source: EBU Tech 3341 for levels below full scale; flat tops as in sox's `stats` ("Flat factor").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FRAME = 0.025
"""Seconds."""
FLOOR_DB, BELOW_LOUD_DB = -60.0, 40.0
LOUD = 95
"""Percentile of the frames that counts as loud."""
_FULL, _TOP, _FLAT = 0.999, 0.99, 1e-5
_BLOCK = 1 << 20
"""Samples at a time."""


class Levels(NamedTuple):
    """`peak`: the greatest sample beside the offset of its frame, 1.0 is full scale; `loud_db`: of the loud frames,
    below full scale; `silent` and `clipped`: shares, 0 to 1."""

    peak: float
    loud_db: float
    silent: float
    clipped: float


def levels(waveform: np.ndarray, rate: int) -> Levels:
    """Of a clip, float32 [samples] in -1 to 1, all finite, at least one; `rate` in Hz."""
    beside_offset, frames_db = _frames(waveform, max(1, round(rate * FRAME)))
    # A line through a frame of a low sound is a part of it: so the sample as it is, where that is the smaller one.
    greatest = max(float(waveform.max()), -float(waveform.min()))
    peak = min(beside_offset, greatest)
    loud_db = float(np.percentile(frames_db, LOUD))
    silent = frames_db < max(FLOOR_DB, loud_db - BELOW_LOUD_DB)
    return Levels(peak, round(loud_db, 3), float(silent.mean()), _clipped(waveform, greatest))


def _frames(waveform: np.ndarray, size: int) -> tuple[float, np.ndarray]:
    """The greatest sample, and the level of each frame of `size` samples, float64, both without offsets; a last frame
    that is not whole has a level where it is alone."""
    whole = len(waveform) // size
    if whole == 0:
        size, whole = len(waveform), 1
    powers, peak = np.empty(whole), 0.0
    at_once = max(1, _BLOCK // size)
    for first in range(0, whole, at_once):
        sounds = _without_offset(waveform[first * size : min(first + at_once, whole) * size].reshape(-1, size))
        powers[first : first + at_once] = np.square(sounds).mean(axis=1)
        peak = max(peak, float(np.abs(sounds).max()))
    if len(waveform) > whole * size:
        peak = max(peak, float(np.abs(_without_offset(waveform[None, -size:])).max()))
    return peak, decibels(powers)


def decibels(powers: np.ndarray) -> np.ndarray:
    """Of mean squares, below full scale; no lower than -120."""
    return 10 * np.log10(np.maximum(powers, 1e-12))


def _without_offset(frames: np.ndarray) -> np.ndarray:
    """Frames less the straight line through each, float64 [frames, samples]."""
    line = np.linspace(-1.0, 1.0, frames.shape[1]) if frames.shape[1] > 1 else np.zeros(1)
    level = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    slope = (level @ line) / max(float(line @ line), 1e-12)
    return level - slope[:, None] * line


def _clipped(waveform: np.ndarray, peak: float) -> float:
    """The share of samples at full scale, or in a row of three and more that are level at the top."""
    if peak <= 10 ** (FLOOR_DB / 20):
        return 0.0
    cut = 0
    for first in range(0, len(waveform), _BLOCK):
        before = min(first, 2)  # a row may begin in the block before, and end in the next
        block = waveform[first - before : first + _BLOCK + 2]
        high = np.abs(block) >= _TOP * peak
        level = (np.abs(np.diff(block)) < _FLAT * peak) & high[1:] & high[:-1]
        middle = level[1:] & level[:-1]  # two alike may be the sides of a crest
        counted = np.abs(block) >= _FULL
        for shift in range(3):
            counted[shift : shift + len(middle)] |= middle
        cut += int(counted[before : before + _BLOCK].sum())
    return cut / len(waveform)
