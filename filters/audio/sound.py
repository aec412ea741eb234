"""How a clip sounds, in 64 bits: the signs of the slowest waves in its spectrogram, by which copies find each other.

The clip without its silent ends is shared out over 32 stretches of time and 16 bands of 250 to 3,400 Hz, in decibels;
less the mean of each band, which is the voice, the room and the loudness. What is left of one utterance says when it
gets louder and where: of its cosine transform 16 waves in time and 4 in frequency have a sign each. Another
codec, rate, loudness or a little more silence moves few of them; the same words of another speaker move many.
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
_STEADY_DB = 0.5
_BLOCK = 1 << 20
"""Samples of frames at a time: memory grows with neither length nor rate."""


def sound(waveform: np.ndarray, rate: int) -> int:
    """The 64 bits of a clip, float32 [samples], all finite, at least one; `rate` in Hz."""
    bands_db = _spectrogram(waveform, rate)
    stretches = _stretches(_without_silent_ends(bands_db))
    mean = stretches.mean(axis=0)
    changes = stretches - mean
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
    return 10 * np.log10(np.maximum(powers, max(1e-12, 1e-4 * powers.max())))


def _without_silent_ends(bands_db: np.ndarray) -> np.ndarray:
    loudest = bands_db.max(axis=1)
    loud = np.flatnonzero(loudest > loudest.max() - _BELOW_DB)
    return bands_db[loud[0] : loud[-1] + 1]


def _stretches(bands_db: np.ndarray) -> np.ndarray:
    """Means over 32 stretches of equal length, which cut frames where they must, float64 [32, bands]."""
    upto = np.vstack([np.zeros(bands_db.shape[1]), np.cumsum(bands_db, axis=0)])
    cuts = np.linspace(0, len(bands_db), _TIMES + 1)
    before = cuts.astype(int).clip(max=len(bands_db) - 1)
    sums = upto[before] + (cuts - before)[:, None] * bands_db[before]
    return np.diff(sums, axis=0) * (_TIMES / len(bands_db))


@lru_cache(maxsize=4)
def _cosines(waves: int, points: int) -> np.ndarray:
    """Waves of 0 and more half turns, float64 [waves, points]."""
    wave, point = np.arange(waves)[:, None], np.arange(points)[None, :]
    return np.cos(np.pi * wave * (2 * point + 1) / (2 * points))
