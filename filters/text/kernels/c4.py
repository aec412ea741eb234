"""C4's rules for lines (Raffel et al. 2020, section 2.2), as datatrove applies them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.text.kernels.utf8 import BREAK, DATA, DECIMAL, FLAGS, OFFSETS, SPACE, WANTED, array, character

# What becomes of a line.
KEPT, LONG_WORD, NO_TERMINAL, FEW_WORDS, SCRIPT, POLICY = range(6)


@register_jitable
def citation(data: Any, at: Any, end: Any, flags: Any) -> Any:
    """Bytes of a citation mark that begins at `at`, or 0: `[12]`, `[]`, `[edit]`, `[citation needed]`."""
    i = at + 1
    while i < end:
        point, size = character(data, i, end)
        if np.int64(flags[point]) & DECIMAL == 0:
            break
        i += size
    if i < end and data[i] == 93:
        return i + 1 - at
    return np.int64(0)


@register_jitable
def stands(data: Any, at: Any, end: Any, phrases: Any, first: Any, last: Any) -> Any:
    """Whether the bytes `phrases[first:last]` stand at `at`."""
    if end - at < last - first:
        return False
    for k in range(last - first):  # noqa: SIM110, numba has no generators
        if data[at + k] != phrases[first + k]:
            return False
    return True


def c4_lines(
    offsets: Any,
    data: Any,
    wanted: Any,
    flags: Any,
    rules: Any,
    phrases: Any,
    bounds: Any,
    table: Any,
    edited: Any,
    ends: Any,
    totals: Any,
) -> None:
    """C4's rules for each line of texts.

    rules: int64 [6]: longest word or -1, remove citations, ask for terminal punctuation, fewest words or -1, drop lines
    with javascript, with policy phrases. phrases, bounds: what citations and phrases are, in small letters, end to end:
    "[edit]", "[citation needed]", "lorem ipsum", "javascript", then those of policies.
    To `table`, int64 [lines, 6]: row, first byte, one behind the last (with what ends the line), what becomes of it,
    whether lorem ipsum stands in it, a curly bracket (of those that get as far). To `edited` lines that are kept,
    without citations; to `ends` where each ends. totals: int64 [3], lines, lines kept, bytes edited.

    long: the loop over bytes, with one buffer a line.
    """
    longest_word, cite, terminal, fewest, script, policy = rules
    longest = np.int64(0)
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    small = np.zeros(longest + 1, np.uint8)
    n, kept, used = np.int64(0), np.int64(0), np.int64(0)
    for row in range(len(offsets) - 1):
        if not wanted[row]:
            continue
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            start = at
            first = last = np.int64(-1)  # the first byte that is no whitespace, one behind the last
            words = size = widest = np.int64(0)
            while at < end:
                point, width = character(data, at, end)
                kind = np.int64(flags[point])
                if kind & BREAK:
                    at += width
                    if point == 13 and at < end and data[at] == 10:
                        at += 1
                    break
                if kind & SPACE:
                    size = np.int64(0)
                else:
                    if first < 0:
                        first = at
                    words += size == 0
                    size += 1
                    widest = max(widest, size)
                    last = at + width
                at += width
            if first < 0:
                first = last = start
            table[n, 0], table[n, 1], table[n, 2], table[n, 4], table[n, 5] = row, start, at, 0, 0
            state, begin = KEPT, used
            if longest_word >= 0 and widest > longest_word:
                state = LONG_WORD
            if state == KEPT:
                i = first
                while i < last:
                    if cite and data[i] == 91:
                        width = citation(data, i, last, flags)
                        for k in range(2):
                            if width == 0 and stands(data, i, last, phrases, bounds[k], bounds[k + 1]):
                                width = np.int64(bounds[k + 1] - bounds[k])
                        if width:
                            i += width
                            continue
                    edited[used] = data[i]
                    used += 1
                    i += 1
                tail = edited[used - 1] if used > begin else 0
                ends_well = tail == 46 or tail == 63 or tail == 33 or tail == 34 or tail == 39
                if tail == 46 and used - begin > 2 and edited[used - 2] == 46 and edited[used - 3] == 46:
                    ends_well = False
                if terminal and not ends_well:
                    state = NO_TERMINAL
                elif words < fewest:
                    state = FEW_WORDS
            if state == KEPT:
                width = np.int64(0)
                bracket = False
                i = begin
                while i < used:
                    byte = edited[i]
                    bracket |= byte == 123
                    if 65 <= byte < 91:
                        byte += 32
                    elif byte == 0xE2 and i + 2 < used and edited[i + 1] == 0x84 and edited[i + 2] == 0xAA:
                        byte = 107  # the Kelvin sign, which is k in small letters
                        i += 2
                    small[width] = byte
                    width += 1
                    i += 1
                lorem = scripted = politic = False
                for place in range(width):
                    byte = small[place]
                    if byte == 108:
                        lorem |= stands(small, place, width, phrases, bounds[2], bounds[3])
                    elif byte == 106:
                        scripted |= stands(small, place, width, phrases, bounds[3], bounds[4])
                    elif byte == 116 or byte == 112 or byte == 99 or byte == 117:  # t, p, c, u
                        for k in range(4, len(bounds) - 1):
                            politic |= stands(small, place, width, phrases, bounds[k], bounds[k + 1])
                table[n, 4] = lorem
                if script and scripted:
                    state = SCRIPT
                else:
                    table[n, 5] = bracket
                    if policy and politic:
                        state = POLICY
            if state == KEPT:
                ends[kept] = used
                kept += 1
            else:
                used = begin
            table[n, 3] = state
            n += 1
    totals[0], totals[1], totals[2] = n, kept, used


SIGNATURES = {
    "c4_lines": types.void(
        OFFSETS,
        DATA,
        WANTED,
        FLAGS,
        OFFSETS,
        DATA,
        OFFSETS,
        array(types.int64, 2),
        array(types.uint8),
        array(types.int64),
        array(types.int64),
    ),
}
