"""What all kernels of texts share: characters of UTF-8, their classes, hashes, and the arrays that come in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

GOLDEN, SPLIT_A, SPLIT_B = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
MERSENNE = np.uint64((1 << 61) - 1)
LOW30, LOW31 = np.uint64((1 << 30) - 1), np.uint64((1 << 31) - 1)

# Bits of a character's class; the same in filters/text/characters.py.
SPACE, BREAK, ALNUM, ALPHA, PUNCT, MARK, ENDS, TERMINAL = (1 << bit for bit in range(8))
LETTER, LOWER, UPPER, PREFIX, SUFFIX, QUOTE, BEFORE_DOT, ICON = (1 << bit for bit in range(8, 16))
DECIMAL, ALONE, JOINS = (1 << bit for bit in range(16, 19))

# Columns of what is known of a token.
WORD, CHARS, HAS_ALPHA, SENTENCE, ROLE = range(5)


def array(dtype: types.Type, dimensions: int = 1, readonly: bool = False) -> types.Array:
    """The type of a contiguous array."""
    return types.Array(dtype, dimensions, "C", readonly=readonly)


# Of a batch: offsets int64 [rows + 1], bytes, bool [rows], the classes of all characters.
OFFSETS, DATA = array(types.int64, readonly=True), array(types.uint8, readonly=True)
WANTED, FLAGS = array(types.boolean, readonly=True), array(types.uint32, readonly=True)


@register_jitable
def mixed(x: Any) -> Any:
    """A bijection of uint64 that lets every bit reach every other: SplitMix64's, Steele et al. 2014."""
    x = (x ^ (x >> np.uint64(30))) * SPLIT_A
    x = (x ^ (x >> np.uint64(27))) * SPLIT_B
    return x ^ (x >> np.uint64(31))


@register_jitable
def product(a: Any, b: Any) -> Any:
    """a * b modulo 2^61 - 1, for factors below it, in 64 bits."""
    a_high, a_low, b_high, b_low = a >> np.uint64(31), a & LOW31, b >> np.uint64(31), b & LOW31
    middle = a_low * b_high + a_high * b_low
    total = a_high * b_high * np.uint64(2) + (middle >> np.uint64(30)) + ((middle & LOW30) << np.uint64(31))
    total += a_low * b_low
    total = (total >> np.uint64(61)) + (total & MERSENNE)
    return total - MERSENNE if total >= MERSENNE else total


@register_jitable
def character(data: Any, at: Any, end: Any) -> Any:
    """(code point, bytes) of the character at `at` of UTF-8 text."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, np.int64(1)
    if lead < 0xE0 and at + 1 < end:
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, np.int64(2)
    if lead < 0xF0 and at + 2 < end:
        return (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, np.int64(3)
    if at + 3 < end:
        high = (lead & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
        point = high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F
        return min(point, np.int64(0x10FFFF)), np.int64(4)  # beyond it no table has a place, and no UTF-8 a character
    return np.int64(0xFFFD), np.int64(1)  # cut short: no UTF-8 is, but Arrow takes bytes from Parquet unseen


@register_jitable
def length(data: Any, at: Any, end: Any) -> Any:
    """Characters of some bytes."""
    total = np.int64(0)
    for i in range(at, end):
        total += data[i] & 0xC0 != 0x80
    return total
