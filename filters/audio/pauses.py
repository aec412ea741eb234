"""Where a long recording is cut: in its pauses, so that no word is.

The level of each hundredth of a second is compared with the recording's own noise and its own loud frames: what lies
between them is told apart at a third of the way, in decibels, as silence is in filters/audio/levels.py. Stretches of
speech with a pause between them are put together up to a target; one without a pause is cut where it is quietest. No
model is asked, so that the same recording is cut alike on any machine: levels are rounded to a tenth of a decibel.
After the energy detectors of Rabiner and Sambur 1975, "An algorithm for determining the endpoints of isolated
utterances"; lengths as in Chen et al. 2021, arXiv 2106.06909, 3 (GigaSpeech).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gristmill.filters.audio.levels import BELOW_LOUD_DB, FLOOR_DB, LOUD, decibels

HOP = 0.01
"""Seconds of a frame, about: it is a whole number of samples."""
NOISE = 5
"""Percentile of the frames that counts as noise."""
ABOVE_NOISE = 0.35
"""Of the way from noise to loud."""
PAUSED_DB = 10.0
"""Between noise and loud frames; with less there are no pauses, and what is softest is sound as well."""
CLICK = 0.05
"""Seconds up to which a sound with silence around it is none of a speaker."""
QUIET_SPAN = 0.1
"""Seconds over which the quietest place is looked for."""


@dataclass(frozen=True)
class Cut:
    """How long files are cut. `target_seconds`: up to which stretches of speech are put together; `longest_seconds`: of
    a segment, and of a file that stays whole; `least_pause`: seconds of silence that are a pause; `margin`: seconds of
    it that are left on both sides, where it has so many."""

    target_seconds: float = 20.0
    longest_seconds: float = 30.0
    least_pause: float = 0.3
    margin: float = 0.15

    def __post_init__(self) -> None:
        if not 1 <= self.target_seconds <= self.longest_seconds <= 3600:
            raise ValueError(
                f"cut: target_seconds={self.target_seconds:g}, longest_seconds={self.longest_seconds:g}; allowed: 1 to"
                " 3600, and no target beyond the longest"
            )
        if not CLICK <= self.least_pause <= 10:
            raise ValueError(f"cut: least_pause={self.least_pause:g}; allowed: {CLICK:g} to 10")
        if not 0 <= self.margin <= self.target_seconds / 4:
            raise ValueError(f"cut: margin={self.margin:g}; allowed: 0 to a quarter of target_seconds")


def frame_levels(blocks: Iterable[np.ndarray], rate: int) -> tuple[np.ndarray, float]:
    """(decibels below full scale of each whole frame without its offset, float64 [frames]; seconds of a frame) of a
    waveform that comes in blocks, float32 [samples, channels] in -1 to 1: what is held grows by a number a frame."""
    size = max(1, round(rate * HOP))
    rest, levels = np.empty(0, np.float32), [np.empty(0)]
    for block in blocks:
        samples = np.concatenate([rest, block.mean(axis=1)])
        whole = len(samples) // size * size
        rest = samples[whole:]
        if whole:
            frames = samples[:whole].reshape(-1, size).astype(np.float64)
            levels.append(np.round(decibels(frames.var(axis=1)), 1))
    return np.concatenate(levels), size / rate


def segments(levels_db: np.ndarray, hop: float, cut: Cut) -> list[tuple[float, float]]:
    """(start, end) in seconds of each segment, in order, none over another; none at all of a recording in which nobody
    is heard. `levels_db`: of each frame of `hop` seconds."""
    margin = round(cut.margin / hop)
    longest, target = (int(seconds / hop) - 2 * margin for seconds in (cut.longest_seconds, cut.target_seconds))
    joined: list[tuple[int, int]] = []
    for first, end in _short(levels_db, _speech(levels_db, hop, cut.least_pause), longest, round(QUIET_SPAN / hop)):
        if joined and end - joined[-1][0] <= target:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    cuts = []
    ends = [0, *(end for _, end in joined)]
    starts = [*(first for first, _ in joined), len(levels_db)]
    for n, (first, end) in enumerate(joined):
        # Of a short pause each side has half.
        before, after = (ends[n] + first + 1) // 2 if n else 0, (end + starts[n + 1]) // 2
        after = after if n + 1 < len(joined) else len(levels_db)
        cuts.append((max(first - margin, before) * hop, min(end + margin, after) * hop))
    return cuts


def _speech(levels_db: np.ndarray, hop: float, least_pause: float) -> list[tuple[int, int]]:
    """[first, end) of each stretch of frames that is louder than silence, without the clicks; what is between two of
    them is a pause."""
    if not len(levels_db):
        return []
    noise, loud = np.percentile(levels_db, [NOISE, LOUD])
    silence = max(FLOOR_DB, loud - BELOW_LOUD_DB)
    if loud - noise >= PAUSED_DB:
        silence = max(silence, noise + ABOVE_NOISE * (loud - noise))
    heard = levels_db > silence
    edges = np.flatnonzero(np.diff(np.concatenate([[False], heard, [False]]).astype(np.int8)))
    stretches: list[tuple[int, int]] = []
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stretches and (first - stretches[-1][1]) * hop < least_pause:
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((first, end))
    return [(first, end) for first, end in stretches if (end - first) * hop > CLICK]


def _short(
    levels_db: np.ndarray, stretches: Iterable[tuple[int, int]], longest: int, span: int
) -> Iterable[tuple[int, int]]:
    """The stretches, those of more than `longest` frames cut where their second half is quietest."""
    sums = np.concatenate([[0.0], np.cumsum(levels_db)])
    for first, end in stretches:
        while end - first > longest:
            low, high = first + longest // 2, first + longest - span
            quiet = np.argmin(sums[low + span : high + span] - sums[low:high])
            middle = low + int(quiet) + span // 2
            yield first, middle
            first = middle
        yield first, end
