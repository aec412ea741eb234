"""How a clip sounds, in 64 bits: the signs of the slowest waves in its spectrogram, by which copies find each other.

Of the clip a window is shared out over 32 stretches of time and 16 bands of 250 to 3,400 Hz, in decibels; less the
mean of each band, which is the voice, the room and the loudness. What is left of one utterance says when it gets louder
and where: of its cosine transform 16 waves in time and 4 in frequency have a sign each. The window is as long as the
greatest power of two of frames that the clip has, and lies where the clip is loud, not where it begins: so a copy that
lacks something at both ends has the same one. Another codec, rate, loudness or a little more silence moves few of the
signs; the same words of another speaker move many.
After Zauner 2010 (filters/image/look.py), over the bands of Haitsma and Kalker 2002, "A Highly Robust Audio
Fingerprinting System".
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

BITS = 64
_TIMES, _BANDS = 32, 16
_TIME_WAVES, _BAND_WAVES = 16, 4
_LOW, _HIGH = 250.0, 3400.0
"""Hz; what a telephone carries."""
_WINDOW, _HOP = 0.064, 0.016
"""Seconds."""
_BELOW_DB = 25.0
_NEAR = 0.1
"""Of the window, how far the centre looks for what is loud around it."""
_STEPS, _STILL = 50, 0.01
"""Of the centre, at most; and frames of a step after which it stands."""
_STEADY_DB = 0.5
_BLOCK = 1 << 20
"""Samples of frames at a time: memory grows with neither length nor rate."""


def sound(waveform: np.ndarray, rate: int) -> int:
    """The 64 bits of a clip, float32 [samples], all finite, at least one; `rate` in Hz."""
    bands_db = _without_silent_ends(_spectrogram(waveform, rate))
    window = 1 << len(bands_db).bit_length() - 1
    begin = _centre(bands_db, _NEAR * window) - window / 2
    mean = bands_db.mean(axis=0)
    bands_db -= mean
    stretches = _stretches(bands_db, begin, window)
    changes = stretches - stretches.mean(axis=0)
    if np.abs(changes).max() < _STEADY_DB:  # a tone, a hum, silence: it is known by its spectrum alone
        steady = np.rint(mean - mean.max()).astype("<i4").tobytes()
        return int.from_bytes(hashlib.blake2b(steady, digest_size=BITS // 8).digest(), "big")
    slow = _cosines(_TIME_WAVES + 1, _TIMES)[1:] @ changes @ _cosines(_BAND_WAVES, _BANDS).T
    return int.from_bytes(np.packbits((slow > 0).ravel()).tobytes(), "big")


def _spectrogram(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Decibels of each band in each frame, float64 [frames, bands], none lower than 40 dB below the loudest."""
    window, hop = max(2, round(rate * _WINDOW)), max(1, round(rate * _HOP))
    if len(waveform) < window:
        waveform = np.pad(waveform, (0, window - len(waveform)))
    taper, edges = np.hanning(window), np.geomspace(_LOW, _HIGH, _BANDS + 1)
    band_of_bin = np.searchsorted(edges, np.fft.rfftfreq(window, 1 / rate), side="right") - 1
    sums = (band_of_bin[:, None] == np.arange(_BANDS)).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window)[::hop]
    powers = np.empty((len(frames), _BANDS))
    at_once = max(1, _BLOCK // window)
    for first in range(0, len(frames), at_once):
        spectrum = np.fft.rfft(frames[first : first + at_once] * taper)
        powers[first : first + at_once] = (spectrum.real**2 + spectrum.imag**2) @ sums
    # In place: of two hours this is 58 MB.
    np.maximum(powers, max(1e-12, 1e-4 * powers.max()), out=powers)
    np.log10(powers, out=powers)
    powers *= 10
    return powers


def _without_silent_ends(bands_db: np.ndarray) -> np.ndarray:
    loudest = bands_db.max(axis=1)
    loud = np.flatnonzero(loudest > loudest.max() - _BELOW_DB)
    return bands_db[loud[0] : loud[-1] + 1]


def _centre(bands_db: np.ndarray, near: float) -> float:
    """A place in time, in frames, around which the clip is loud: from the centre of the power of all of it on, again
    and again the centre of what is `near` (a mean shift, with the weights of a normal distribution). So what stands far
    from it, as a clip's ends do, has no part in it."""
    loudest = bands_db.max(axis=1)
    power, time = 10 ** ((loudest - loudest.max()) / 10), np.arange(len(loudest)) + 0.5
    centre = float(power @ time / power.sum())
    for _ in range(_STEPS):
        weights = power * np.exp(-0.5 * np.square((time - centre) / near))
        before, centre = centre, float(weights @ time / weights.sum())
        if abs(centre - before) < _STILL:
            break
    return centre


def _stretches(changes: np.ndarray, begin: float, frames: float) -> np.ndarray:
    """Means over 32 stretches of equal length, of so many frames together from `begin` on, which cut frames where they
    must, float64 [32, bands]; outside of the clip there are zeros."""
    upto = np.empty((len(changes) + 1, changes.shape[1]))
    upto[0] = 0
    np.cumsum(changes, axis=0, out=upto[1:])
    cuts = (begin + np.linspace(0, frames, _TIMES + 1)).clip(0, len(changes))
    before = cuts.astype(int).clip(max=len(changes) - 1)
    sums = upto[before] + (cuts - before)[:, None] * changes[before]
    return np.diff(sums, axis=0) * (_TIMES / frames)


@lru_cache(maxsize=4)
def _cosines(waves: int, points: int) -> np.ndarray:
    """Waves of 0 and more half turns, float64 [waves, points]."""
    wave, point = np.arange(waves)[:, None], np.arange(points)[None, :]
    return np.cos(np.pi * wave * (2 * point + 1) / (2 * points))
