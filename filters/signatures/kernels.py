"""The compiled part of the signature: UTF-8 bytes to words to shingles to minima, and bands to hashes; and of n-grams.

These functions are plain until `filters.signatures.compiled` compiles them, from a copy of this file named by its
content; so it imports nothing of ours, and whatever it needs (tables, constants of the permutations) comes in as
arrays. Integers are unsigned 64-bit throughout (numba turns uint64 with int64 into floats), wrap-around is wanted, and
the loops over ASCII and over permutations have no branch that data could mispredict.
`filters.signatures.minhash.shingle_hashes` says the same in plain Python.

long: it imports nothing of ours, so that all that is compiled for signatures stands here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

U0, U1, U2, U3 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
U6, U8, U29, U32 = np.uint64(6), np.uint64(8), np.uint64(29), np.uint64(32)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
# Odd constants with well spread bits: the golden ratio's, and those of SplitMix64.
GOLDEN, SPLIT_A, SPLIT_B = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

BREAK, LETTER, DIGIT, ALONE, NOTHING, SEVERAL = (np.uint64(kind) for kind in range(6))
KIND_SHIFT, COUNT_SHIFT, POINT = np.uint64(21), np.uint64(24), np.uint64(0x1FFFFF)
KIND = np.uint64(7)
ZERO, POINTS = np.uint64(ord("0")), np.uint64(0x110000)

CHUNK = np.uint64(4096)  # bytes turned to words at a time, so that words and shingles stay in the nearest cache


@register_jitable
def mixed(x: Any) -> Any:
    """A bijection of uint64 that lets every bit reach every other: SplitMix64's, Steele et al. 2014."""
    x = (x ^ (x >> np.uint64(30))) * SPLIT_A
    x = (x ^ (x >> np.uint64(27))) * SPLIT_B
    return x ^ (x >> np.uint64(31))


@register_jitable
def letter_code(point: Any) -> Any:
    """What a folded code point adds to its word's hash: never 0."""
    x = (point + U1) * GOLDEN
    return (x ^ (x >> U32)) * SPLIT_A


@register_jitable
def decoded(data: Any, at: Any, end: Any) -> Any:
    """The character whose lead byte (not ASCII) is at `at`, and its length. Bytes that are no UTF-8: (all ones, 1)."""
    lead = np.uint64(data[at])
    size, point = U1, ALL
    if np.uint64(0xC2) <= lead < np.uint64(0xE0):
        size, point = U2, lead & np.uint64(0x1F)
    elif np.uint64(0xE0) <= lead < np.uint64(0xF0):
        size, point = U3, lead & np.uint64(0x0F)
    elif np.uint64(0xF0) <= lead < np.uint64(0xF5):
        size, point = np.uint64(4), lead & np.uint64(0x07)
    if size > end - at:
        return ALL, U1
    for i in range(U1, size):
        byte = np.uint64(data[at + np.uint64(i)])
        if byte & np.uint64(0xC0) != np.uint64(0x80):
            return ALL, U1
        point = (point << U6) | (byte & np.uint64(0x3F))
    too_long = (size == U3 and point < np.uint64(0x800)) or (size > U3 and point < np.uint64(0x10000))
    return (ALL, U1) if too_long else (point, size)


@register_jitable
def read_words(
    data: Any, at: Any, stop: Any, end: Any, ascii_table: Any, alphabet: Any, folds: Any, state: Any, words: Any
) -> Any:
    """Hashes of words to `words`, from `data[at:stop]` and what is left of a character there. Returns (at, state).

    folds: 1 if of a run of digits the first counts alone, 0 if every one does. state: (words complete, hash of the word
    at hand, all ones if there is one, 1 after a digit that counted alone). Its hash stands behind the complete ones,
    where every byte writes it: so that the end of a word, which nobody can predict, is no branch.

    long: the loop over bytes, whose state lives in registers as long as it is one function.
    """
    codes, keeps = ascii_table
    entries, several = alphabet
    n, h, inside, after_digit = state
    while at < stop:
        byte = np.uint64(data[at])
        if byte < np.uint64(128):
            at += U1
            if byte - ZERO < np.uint64(10):
                if after_digit:
                    continue
                after_digit = folds
            else:
                after_digit = U0
            keep = keeps[byte]  # all ones, or 0 where a word ends
            n -= inside & ~keep
            h &= keep
            h = h + (h << U8) + codes[byte]
            inside = keep
            words[n] = h
            continue
        point, size = decoded(data, at, end)
        at += size
        entry = np.uint64(entries[point]) if point < POINTS else U0
        kind, point = (entry >> KIND_SHIFT) & KIND, entry & POINT
        if kind == LETTER or (kind == DIGIT and not after_digit):
            h = h + (h << U8) + letter_code(point)
            inside = ALL
        elif kind == SEVERAL:
            for i in range(point, point + (entry >> COUNT_SHIFT)):
                h = h + (h << U8) + letter_code(np.uint64(several[np.uint64(i)]))
            inside = ALL
        elif kind == BREAK:
            n -= inside
            h = inside = U0
        elif kind == ALONE:
            n -= inside
            words[n] = letter_code(point)
            n += U1
            h = inside = U0
        else:  # a mark, or a digit after a digit
            continue
        after_digit = folds if kind == DIGIT else U0
        words[n] = h
    return at, (n, h, inside, after_digit)


@register_jitable
def shingles(words: Any, first: Any, n: Any, ngram: Any, out: Any) -> Any:
    """Hashes of the `n - ngram + 1` shingles of `words[:n]`, to `out`; words from `first` on are not mixed yet.

    Leaves the last `ngram - 1` words (all, if there are fewer) at the front. Returns (shingles, words left).
    """
    for i in range(first, n):
        words[np.uint64(i)] = mixed(words[np.uint64(i)])
    if n < ngram:
        return U0, n
    total, leaving = U0, U1
    for i in range(ngram - U1):
        total = total * GOLDEN + words[np.uint64(i)]
        leaving *= GOLDEN
    count = n - ngram + U1
    for i in range(count):
        at = np.uint64(i)
        total = total * GOLDEN + words[at + ngram - U1]
        x = (total ^ (total >> U29)) * SPLIT_B
        out[at] = np.uint32(x >> U32)
        total -= words[at] * leaving
    for i in range(ngram - U1):
        words[np.uint64(i)] = words[count + np.uint64(i)]
    return count, ngram - U1


@register_jitable
def premixed(values: Any, n: Any) -> None:
    """MurmurHash3's finalizer, with which datasketch's affine32 prepares every value."""
    for i in range(n):
        x = values[np.uint64(i)]
        x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        x = np.uint32((x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        values[np.uint64(i)] = x ^ (x >> np.uint32(16))


@register_jitable
def minima(values: Any, n: Any, a: Any, b: Any, least: Any) -> None:
    """`least[k]` = the least of itself and of `a[k] * value + b[k]` mod 2^32. Four permutations a pass over values."""
    for k in range(U0, np.uint64(len(a)), np.uint64(4)):
        k0 = np.uint64(k)
        k1, k2, k3 = k0 + U1, k0 + U2, k0 + U3
        a0, a1, a2, a3 = a[k0], a[k1], a[k2], a[k3]
        b0, b1, b2, b3 = b[k0], b[k1], b[k2], b[k3]
        m0, m1, m2, m3 = least[k0], least[k1], least[k2], least[k3]
        for i in range(n):
            x = values[np.uint64(i)]
            m0 = min(m0, np.uint32(a0 * x + b0))
            m1 = min(m1, np.uint32(a1 * x + b1))
            m2 = min(m2, np.uint32(a2 * x + b2))
            m3 = min(m3, np.uint32(a3 * x + b3))
        least[k0], least[k1], least[k2], least[k3] = m0, m1, m2, m3


def sign(
    offsets: Any,
    data: Any,
    ascii_table: Any,
    alphabet: Any,
    permutations: Any,
    ngram: Any,
    signatures: Any,
    n_words: Any,
) -> None:
    """Signs the texts `data[offsets[i]:offsets[i + 1]]`.

    ascii_table: (codes, keeps), uint64 [128] each. alphabet: see `filters.signatures.alphabet.Alphabet`. permutations:
    (a, b), uint32 [padded to a multiple of 4]. Fills signatures [documents, padded] and n_words [documents].
    """
    a, b = permutations
    words = np.empty(CHUNK + ngram + np.uint64(8), dtype=np.uint64)
    hashes = np.empty(CHUNK + ngram + np.uint64(8), dtype=np.uint32)
    for row in range(len(n_words)):
        least = signatures[row]
        least[:] = np.uint32(0xFFFFFFFF)
        at, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        kept, seen = U0, U0
        state = (U0, U0, U0, U0)
        while at < end:
            stop = min(end, at + CHUNK)
            at, state = read_words(data, at, stop, end, ascii_table, alphabet, U1, state, words)
            n, h, inside, after_digit = state
            if at >= end:
                n -= inside
            seen += n - kept
            count, kept = shingles(words, kept, n, ngram, hashes)
            premixed(hashes, count)
            minima(hashes, count, a, b, least)
            words[kept] = h
            state = (kept, h, inside, after_digit)
        n_words[row] = seen


def ngrams(
    offsets: Any,
    data: Any,
    ascii_table: Any,
    alphabet: Any,
    ngram: Any,
    hashes: Any,
    ends: Any,
    wholes: Any,
    n_words: Any,
) -> None:
    """Hashes of every `ngram` words in a row of the texts `data[offsets[i]:offsets[i + 1]]`, end to end to `hashes`.

    Tables as those of `sign`; every digit counts. `ends`: uint64 [documents], where each one's hashes end; `wholes`:
    uint64 [documents], a hash of all its words in order.
    """
    words = np.empty(CHUNK + ngram + np.uint64(8), dtype=np.uint64)
    place = U0
    for row in range(len(n_words)):
        at, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        kept, seen, whole = U0, U0, U0
        state = (U0, U0, U0, U0)
        while at < end:
            stop = min(end, at + CHUNK)
            at, state = read_words(data, at, stop, end, ascii_table, alphabet, U0, state, words)
            n, h, inside, after_digit = state
            if at >= end:
                n -= inside
            seen += n - kept
            for i in range(kept, n):
                words[np.uint64(i)] = mixed(words[np.uint64(i)])
                whole = mixed(whole ^ words[np.uint64(i)]) + GOLDEN
            count = n - min(n, ngram - U1)
            for i in range(count):
                total = U0
                for j in range(ngram):
                    total = total * GOLDEN + words[np.uint64(i) + np.uint64(j)]
                hashes[place + np.uint64(i)] = mixed(total)
            place += count
            kept = n - count  # the last ones, with which the next n-gram begins
            words[:kept] = words[count:n].copy()
            words[kept] = h
            state = (kept, h, inside, after_digit)
        n_words[row], wholes[row], ends[row] = seen, whole, place


def word_spans(offsets: Any, data: Any, ascii_table: Any, alphabet: Any, starts: Any, ends: Any) -> None:
    """Where the words of `ngrams` stand in the texts `data[offsets[i]:offsets[i + 1]]`: of each, end to end, its first
    byte in `data` to `starts` and the one behind its last to `ends`, int64 [words of all texts]."""
    words = np.empty(4, dtype=np.uint64)  # a character completes two words at most: the one before it, and its own
    place = U0
    for row in range(len(offsets) - 1):
        at, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        state = (U0, U0, U0, U0)
        while at < end:
            begin, was_inside = at, state[2]
            at, state = read_words(data, at, at + U1, end, ascii_table, alphabet, U0, state, words)
            n, h, inside, after_digit = state
            if was_inside and n:
                ends[place] = begin
                place += U1
                n -= U1
            if n:
                starts[place] = begin
                ends[place] = at
                place += U1
            elif inside and not was_inside:
                starts[place] = begin
            state = (U0, h, inside, after_digit)
        if state[2]:
            ends[place] = end
            place += U1


def band_hashes(values: Any, bands: Any, rows: Any, out: Any) -> None:
    """out[document, band]: a hash of the band's number and of its values in order."""
    for row in range(len(values)):
        for band in range(bands):
            h = (np.uint64(band) + U1) * GOLDEN
            for i in range(rows):
                h = mixed(h ^ np.uint64(values[np.uint64(row), np.uint64(band) * rows + np.uint64(i)])) + GOLDEN
            out[np.uint64(row), np.uint64(band)] = h


def _array(dtype: types.Type, dimensions: int, readonly: bool = True) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


_TABLE_64 = _array(types.uint64, 1)
_TABLE_32 = _array(types.uint32, 1)
# One signature each: numba's cache is free of races only as long as a function has one compiled form.
SIGNATURES = {
    "sign": types.void(
        _array(types.int64, 1),
        _array(types.uint8, 1),
        types.UniTuple(_TABLE_64, 2),
        types.UniTuple(_TABLE_32, 2),
        types.UniTuple(_TABLE_32, 2),
        types.uint64,
        _array(types.uint32, 2, readonly=False),
        _array(types.int32, 1, readonly=False),
    ),
    "ngrams": types.void(
        _array(types.int64, 1),
        _array(types.uint8, 1),
        types.UniTuple(_TABLE_64, 2),
        types.UniTuple(_TABLE_32, 2),
        types.uint64,
        _array(types.uint64, 1, readonly=False),
        _array(types.uint64, 1, readonly=False),
        _array(types.uint64, 1, readonly=False),
        _array(types.int32, 1, readonly=False),
    ),
    "word_spans": types.void(
        _array(types.int64, 1),
        _array(types.uint8, 1),
        types.UniTuple(_TABLE_64, 2),
        types.UniTuple(_TABLE_32, 2),
        _array(types.int64, 1, readonly=False),
        _array(types.int64, 1, readonly=False),
    ),
    "band_hashes": types.void(
        _array(types.uint32, 2), types.uint64, types.uint64, _array(types.uint64, 2, readonly=False)
    ),
}
