"""Segments of a text: where they stand, and which of them stood before. Equal hashes are never enough: bytes are
compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.text.kernels.utf8 import GOLDEN, length, mixed


@register_jitable
def table_size(n: Any) -> Any:
    """Slots for `n` entries."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@register_jitable
def most_lines(offsets: Any, data: Any) -> Any:
    """The most newlines of a text, and one."""
    most = np.int64(0)
    for row in range(len(offsets) - 1):
        count = np.int64(0)
        for i in range(offsets[row], offsets[row + 1]):
            count += data[i] == 10
        most = max(most, count)
    return most + 1


@register_jitable
def split_at(data: Any, at: Any, end: Any, newlines: Any, segments: Any) -> Any:
    """Segments between `newlines` or more newlines in a row, as `re.split` has them, empty ones too; how many."""
    n, start, i = np.int64(0), at, at
    while i < end:
        if data[i] != 10:
            i += 1
            continue
        stop = i
        while i < end and data[i] == 10:
            i += 1
        if i - stop >= newlines:
            segments[n, 0], segments[n, 1] = start, stop
            n += 1
            start = i
    segments[n, 0], segments[n, 1] = start, end
    return n + 1


@register_jitable
def duplicates(data: Any, segments: Any, n: Any, slots: Any) -> Any:
    """(how many of the first `n` segments of bytes, int64 [n, 2], stood before, characters of those). `slots`: int32,
    at least twice as many, a power of two; all are set anew."""
    size = 16
    while size < 2 * n:
        size *= 2
    slots[:size] = -1
    mask = np.uint64(size - 1)
    again, characters = np.int64(0), np.int64(0)
    for i in range(n):
        at, end = segments[i, 0], segments[i, 1]
        h = np.uint64(end - at)
        for place in range(at, end):
            h = h * GOLDEN + np.uint64(data[place]) + np.uint64(1)
        slot = np.int64(mixed(h) & mask)
        while True:
            other = np.int64(slots[slot])
            if other < 0:
                slots[slot] = i
                break
            first = segments[other, 0]
            same = segments[other, 1] - first == end - at
            k = np.int64(0)
            while same and k < end - at:
                same = data[first + k] == data[at + k]
                k += 1
            if same:
                again += 1
                characters += length(data, at, end)
                break
            slot = (slot + 1) & np.int64(mask)
    return again, characters
