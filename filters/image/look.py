"""How a picture looks, in 64 bits: the signs of its slowest waves, by which copies of it find each other.

The picture is shrunk to 32 x 32 gray, and of its discrete cosine transform the 64 slowest coefficients but the mean are
compared with their median: enlarging, recompressing and a little cropping move few of them across it. All numbers are
whole, so that every machine finds the same bits. What it tells apart, and what it does not: docs/decisions/17.
Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", 3.1.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from PIL import Image

BITS = 64
_SIDE, _WAVES = 32, 8
_SCALE = 1 << 12


def look(pixels: np.ndarray) -> int:
    """The 64 bits of a picture, uint8 [height, width, 3] of at least one pixel."""
    picture = Image.fromarray(pixels)
    gray = picture.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    waves = _cosines()
    slow = waves @ np.asarray(gray, np.int64) @ waves.T
    values = np.delete(slow.ravel(), 0)  # without the mean: brighter pictures look the same
    if not values.any():  # one shade of gray all over: it is known by its colours alone
        colours = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX).tobytes()
        return int.from_bytes(hashlib.blake2b(colours, digest_size=BITS // 8).digest(), "big")
    above = values > np.median(values)  # of 63 values one of them, so this is a comparison of whole numbers
    return int.from_bytes(np.packbits(np.append(above, False)).tobytes(), "big")


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """Waves of 0 to 7 half turns over 32 pixels, whole numbers, int64 [8, 32]."""
    wave, pixel = np.arange(_WAVES)[:, None], np.arange(_SIDE)[None, :]
    return np.rint(_SCALE * np.cos(np.pi * wave * (2 * pixel + 1) / (2 * _SIDE))).astype(np.int64)
