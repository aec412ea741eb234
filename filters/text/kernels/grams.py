"""Repeated n-grams of the tokens of texts. Equal hashes are never enough: what they point at is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.text.kernels.segments import table_size
from gristmill.filters.text.kernels.utf8 import CHARS, GOLDEN, MERSENNE, OFFSETS, array, mixed, product


@register_jitable
def same_characters(a: Any, b: Any, n: Any, flat: Any, starts: Any, stored: Any) -> Any:
    """Whether the `n` tokens from `a` and from `b` on are, one behind the other, the same bytes."""
    same = True
    for k in range(n):
        same &= flat[a + k] == flat[b + k]
    if same:
        return True
    i, j = a, b
    at, at_end = starts[flat[i]], starts[flat[i] + 1]
    to, to_end = starts[flat[j]], starts[flat[j] + 1]
    while True:
        if at == at_end:
            i += 1
            if i == a + n:
                break
            at, at_end = starts[flat[i]], starts[flat[i] + 1]
            continue
        if to == to_end:
            j += 1
            if j == b + n:
                return False
            to, to_end = starts[flat[j]], starts[flat[j] + 1]
            continue
        if stored[at] != stored[to]:
            return False
        at += 1
        to += 1
    return j == b + n - 1 and to == to_end


def gram_repeats(
    token_ends: Any,
    flat: Any,
    starts: Any,
    stored: Any,
    facts: Any,
    polynomials: Any,
    top: Any,
    duplicated: Any,
    out: Any,
) -> None:
    """To `out`, int64 [rows, len(top) + len(duplicated)], for each `n` of `top`: characters of the most frequent n-gram
    of tokens, with spaces, times how often it stands there (of several the one that comes first); for each `n` of
    `duplicated` (ascending): characters, without spaces, of n-grams that stood before and overlap none such.

    long: the loops share buffers that are made once.
    """
    most = np.int64(0)
    for row in range(len(token_ends) - 1):
        most = max(most, token_ends[row + 1] - token_ends[row])
    slots = np.zeros(table_size(most + 1), np.int32)
    counts = np.zeros(most + 1, np.int32)
    values = np.zeros(most + 1, np.uint64)
    sizes = np.zeros(most + 2, np.int64)
    for row in range(len(token_ends) - 1):
        first, count = token_ends[row], token_ends[row + 1] - token_ends[row]
        for i in range(count):
            sizes[i + 1] = sizes[i] + facts[flat[first + i], CHARS]
        for column in range(len(top)):
            n = top[column]
            grams = count - n + 1
            if grams < 1:
                continue
            size = table_size(grams)
            slots[:size] = -1
            mask = np.int64(size - 1)
            for i in range(grams):
                h = np.uint64(0)
                for k in range(n):
                    h = h * GOLDEN + np.uint64(flat[first + i + k]) + np.uint64(1)
                slot = np.int64(mixed(h) & np.uint64(mask))
                counts[i] = 0
                while True:
                    other = np.int64(slots[slot])
                    if other < 0:
                        slots[slot] = i
                        counts[i] = 1
                        break
                    same = True
                    for k in range(n):
                        same &= flat[first + i + k] == flat[first + other + k]
                    if same:
                        counts[other] += 1
                        break
                    slot = (slot + 1) & mask
            best = np.int64(0)
            for i in range(grams):
                if counts[i] > counts[best]:
                    best = np.int64(i)
            out[row, column] = (sizes[best + n] - sizes[best] + n - 1) * counts[best]
        for i in range(count):
            values[i] = polynomials[flat[first + i], 0]
        reached = np.int64(1)
        for column in range(len(duplicated)):
            n = duplicated[column]
            while reached < n:
                for i in range(count - reached):
                    number = flat[first + i + reached]
                    value = product(values[i], polynomials[number, 1]) + polynomials[number, 0]
                    values[i] = value - MERSENNE if value >= MERSENNE else value
                reached += 1
            grams = count - n + 1
            if grams < 1:
                continue
            size = table_size(grams)
            slots[:size] = -1
            mask = np.int64(size - 1)
            repeated, here = np.int64(0), np.int64(0)
            while here < grams:
                value = values[here]
                slot = np.int64(mixed(value) & np.uint64(mask))
                again = False
                while True:
                    other = np.int64(slots[slot])
                    if other < 0:
                        slots[slot] = here
                        break
                    if values[other] == value and same_characters(first + other, first + here, n, flat, starts, stored):
                        again = True
                        break
                    slot = (slot + 1) & mask
                if again:
                    repeated += sizes[here + n] - sizes[here]
                    here += n
                else:
                    here += 1
            out[row, len(top) + column] = repeated


SIGNATURES = {
    "gram_repeats": types.void(
        array(types.int64),
        array(types.int32),
        array(types.int64),
        array(types.uint8),
        array(types.int32, 2),
        array(types.uint64, 2),
        OFFSETS,
        OFFSETS,
        array(types.int64, 2),
    ),
}
