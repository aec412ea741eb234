"""What kernels that read fastText's models share: the hash of a word, and the word's number.

Source: fastText 0.9.2, dictionary.cc (hash, find).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

FNV_BASIS, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
NGRAM_FACTOR = np.uint64(116049371)
"""Of the running hash of words that follow each other."""
SIGN = np.uint32(0xFFFFFF00)


@register_jitable
def hashed(h: Any, byte: Any) -> Any:
    """FNV-1a of 32 bits with one byte more, which is a signed number, as fastText reads it."""
    signed = np.uint32(byte)
    if signed & np.uint32(0x80):
        signed |= SIGN
    return np.uint32(np.uint32(h ^ signed) * FNV_PRIME)


@register_jitable
def token_hash(data: Any, start: Any, end: Any) -> Any:
    """The hash of these bytes."""
    h = FNV_BASIS
    for at in range(start, end):
        h = hashed(h, data[np.uint64(at)])
    return h


@register_jitable
def word_number(slots: Any, hashes: Any, blob: Any, ends: Any, h: Any, data: Any, start: Any, end: Any) -> Any:
    """The number of the word with this hash and these bytes in a table (`words.py`), -1 for none."""
    mask = np.int64(len(slots) - 1)
    place = np.int64(h) & mask
    while slots[place] >= 0:
        number = np.int64(slots[place])
        first = ends[number - 1] if number else np.int64(0)
        if hashes[number] == h and ends[number] - first == end - start:
            same = True
            for k in range(end - start):
                if blob[np.uint64(first + k)] != data[np.uint64(start + k)]:
                    same = False
                    break
            if same:
                return number
        place = (place + 1) & mask
    return np.int64(-1)
