"""The compiled part of measuring texts: lines, paragraphs, symbols, repeated n-grams, C4's rules for lines.

Plain functions until `filters.signatures.compiled` compiles them, from a copy of this file named by its content; so it
imports nothing of ours. What counts as a line, a character, a duplicate is Python's and datatrove's notion, and equal
hashes are never enough: what they point at is compared.

long: it imports nothing of ours, so that all that is compiled for measures stands here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

GOLDEN, SPLIT_A, SPLIT_B = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
MERSENNE = np.uint64((1 << 61) - 1)
LOW30, LOW31 = np.uint64((1 << 30) - 1), np.uint64((1 << 31) - 1)
# Bits of a character's class; the same in filters/text/characters.py.
SPACE, BREAK, ALNUM, TERMINAL, DECIMAL = 1, 2, 4, 128, 1 << 16
SHORT_RUN = 16
CHARS = 1  # column of `facts`
# What becomes of a line under C4's rules.
KEPT, LONG_WORD, NO_TERMINAL, FEW_WORDS, SCRIPT, POLICY = range(6)


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
def table_size(n: Any) -> Any:
    """Slots for `n` entries."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


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


def _array(dtype: types.Type, dimensions: int, readonly: bool = False) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


_OFFSETS, _DATA = _array(types.int64, 1, True), _array(types.uint8, 1, True)
_WANTED, _FLAGS = _array(types.boolean, 1, True), _array(types.uint32, 1, True)
_OUT, _LIST = _array(types.int64, 2), _array(types.int64, 1)
SIGNATURES = {
    "symbols": types.void(_OFFSETS, _DATA, _WANTED, _FLAGS, _OUT),
    "line_repeats": types.void(_OFFSETS, _DATA, _WANTED, _FLAGS, _OUT),
    "gram_repeats": types.void(
        _LIST,
        _array(types.int32, 1),
        _LIST,
        _array(types.uint8, 1),
        _array(types.int32, 2),
        _array(types.uint64, 2),
        _OFFSETS,
        _OFFSETS,
        _OUT,
    ),
    "lines": types.void(_OFFSETS, _DATA, _WANTED, _FLAGS, types.int64, _OUT),
    "c4_lines": types.void(
        _OFFSETS,
        _DATA,
        _WANTED,
        _FLAGS,
        _OFFSETS,
        _DATA,
        _OFFSETS,
        _OUT,
        _array(types.uint8, 1),
        _LIST,
        _LIST,
    ),
}
