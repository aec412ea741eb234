"""Lines and paragraphs of texts, and the symbols in them.

What counts as a line, a character, a duplicate is Python's and datatrove's notion.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from gristmill.filters.text.kernels.segments import duplicates, most_lines, split_at, table_size
from gristmill.filters.text.kernels.utf8 import (
    ALNUM,
    BREAK,
    DATA,
    FLAGS,
    OFFSETS,
    SPACE,
    TERMINAL,
    WANTED,
    array,
    character,
    length,
)

SHORT_RUN = 16


def symbols(offsets: Any, data: Any, wanted: Any, flags: Any, out: Any) -> None:
    """To `out`, int64 [rows, 6]: hashes, ellipses, lines that begin with a bullet, that end with an ellipsis, lines,
    the longest run of symbols (0 for those of less than SHORT_RUN). Zero where not wanted.

    long: one pass over bytes, whose state is local.
    """
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        if not wanted[row]:
            continue
        hashes = ellipses = bullets = trailing = lines = longest = run = np.int64(0)
        dots = np.int64(0)  # in a row, up to the character before
        first, last = np.int64(0), np.int64(0)  # of the line, whitespace aside; 46 for three dots
        open_line = False
        while at < end:
            point, size = character(data, at, end)
            at += size
            kind = np.int64(flags[point])
            open_line = True
            if kind & SPACE:
                longest = max(longest, run)
                run = dots = np.int64(0)
                if kind & BREAK:
                    if point == 13 and at < end and data[at] == 10:
                        at += 1
                    lines += 1
                    bullets += first == 0x2022 or first == 45
                    trailing += last == 46 or last == 0x2026
                    first = last = np.int64(0)
                    open_line = False
                continue
            if kind & ALNUM:
                longest = max(longest, run)
                run = np.int64(0)
            else:
                run += 1
            if first == 0:
                first = max(point, np.int64(1))
            last = point
            if point == 46:
                dots += 1
                ellipses += dots % 3 == 0
                last = np.int64(46 if dots >= 3 else 1)
            else:
                dots = np.int64(0)
                hashes += point == 35
                ellipses += point == 0x2026
        if open_line:
            lines += 1
            bullets += first == 0x2022 or first == 45
            trailing += last == 46 or last == 0x2026
        longest = max(longest, run)
        out[row, 0], out[row, 1], out[row, 2], out[row, 3], out[row, 4] = hashes, ellipses, bullets, trailing, lines
        out[row, 5] = longest if longest >= SHORT_RUN else 0


def line_repeats(offsets: Any, data: Any, wanted: Any, flags: Any, out: Any) -> None:
    """To `out`, int64 [rows, 7]: characters; paragraphs of the stripped text, those that stood before, characters of
    those; and of lines (runs of newlines end one). Zero where not wanted."""
    most = most_lines(offsets, data)
    segments = np.zeros((most + 1, 2), np.int64)
    slots = np.zeros(table_size(most + 1), np.int32)
    for row in range(len(offsets) - 1):
        if not wanted[row]:
            continue
        at, end = offsets[row], offsets[row + 1]
        out[row, 0] = length(data, at, end)
        n = split_at(data, at, end, 1, segments)
        out[row, 4] = n
        out[row, 5], out[row, 6] = duplicates(data, segments, n, slots)
        while at < end:
            point, size = character(data, at, end)
            if np.int64(flags[point]) & SPACE == 0:
                break
            at += size
        while end > at:
            start = end - 1
            while start > at and data[start] & 0xC0 == 0x80:
                start -= 1
            point, size = character(data, start, end)
            if np.int64(flags[point]) & SPACE == 0:
                break
            end = start
        n = split_at(data, at, end, 2, segments)
        out[row, 1] = n
        out[row, 2], out[row, 3] = duplicates(data, segments, n, slots)


def lines(offsets: Any, data: Any, wanted: Any, flags: Any, short: Any, out: Any) -> None:
    """To `out`, int64 [rows, 6]: characters but newlines; newlines; and of lines between newlines that are not blank:
    how many, those that end a sentence, those of at most `short` characters, characters of those that stood before."""
    most = most_lines(offsets, data)
    segments = np.zeros((most + 1, 2), np.int64)
    slots = np.zeros(table_size(most + 1), np.int32)
    for row in range(len(offsets) - 1):
        if not wanted[row]:
            continue
        at, end = offsets[row], offsets[row + 1]
        n = newlines = characters = ending = brief = np.int64(0)
        start, size, blank, last = at, np.int64(0), True, np.int64(0)
        while at <= end:
            if at < end and data[at] != 10:
                point, width = character(data, at, end)
                last = np.int64(flags[point])
                blank = blank and last & SPACE != 0
                size += 1
                at += width
                continue
            if not blank:
                segments[n, 0], segments[n, 1] = start, at
                n += 1
                ending += last & TERMINAL != 0
                brief += size <= short
            newlines += at < end
            characters += size
            at += 1
            start, size, blank = at, np.int64(0), True
        _, again = duplicates(data, segments, n, slots)
        out[row, 0], out[row, 1], out[row, 2], out[row, 3], out[row, 4] = characters, newlines, n, ending, brief
        out[row, 5] = again


_OUT = array(types.int64, 2)
SIGNATURES = {
    "symbols": types.void(OFFSETS, DATA, WANTED, FLAGS, _OUT),
    "line_repeats": types.void(OFFSETS, DATA, WANTED, FLAGS, _OUT),
    "lines": types.void(OFFSETS, DATA, WANTED, FLAGS, types.int64, _OUT),
}
