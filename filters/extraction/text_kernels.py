"""Text between two tags: characters to the output, and counts of them to the row of the block.

As all kernels here it is compiled by whoever imports it (`segment_kernels.py`). Integers are signed, since numba turns
uint64 with int64 into floats; hashes wrap around.

long: what happens to a character, in one place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c

FNV_START, FNV_PRIME = np.int64(-3750763034362895579), np.int64(0x100000001B3)
LESS, AMPERSAND, HASH, SEMICOLON, SPACE, NEWLINE = (ord(mark) for mark in "<&#; \n")
OTHER, LETTER, DIGIT, BEYOND_ASCII, SENTENCE_END, COMMA, WHITE, CONTROL = range(8)


def _kinds() -> np.ndarray:
    kinds = np.zeros(256, np.uint8)
    for byte in range(256):
        mark = chr(byte)
        if byte >= 128:
            kinds[byte] = BEYOND_ASCII
        elif mark in " \t\n\r\f":
            kinds[byte] = WHITE
        elif byte < 32 or byte == 127:
            kinds[byte] = CONTROL
        elif mark.isalpha():
            kinds[byte] = LETTER
        elif mark.isdigit():
            kinds[byte] = DIGIT
        elif mark in ".!?":
            kinds[byte] = SENTENCE_END
        elif mark in ",;:":
            kinds[byte] = COMMA
    return kinds


KINDS = _kinds()
LOWER = np.arange(256, dtype=np.uint8)
LOWER[ord("A") : ord("Z") + 1] += 32
CP1252 = np.array([ord(bytes([byte]).decode("cp1252", "ignore") or chr(byte)) for byte in range(128, 160)], np.int64)
"""What &#128; to &#159; are taken for, as browsers do."""


@register_jitable
def value_of(words: Any, key: Any) -> Any:
    """The value of a hash, -1 where the table has none."""
    keys, values = words
    mask = len(keys) - 1
    place = (key ^ (key >> 32)) & mask
    while keys[place] != 0:
        if keys[place] == key:
            return values[place]
        place = (place + 1) & mask
    return np.int64(-1)


@register_jitable
def put_character(out: Any, end: Any, point: Any) -> Any:
    """Writes a code point as UTF-8; returns where it ends."""
    if point < 0x80:
        out[end] = point
        return end + 1
    if point < 0x800:
        out[end] = 0xC0 | (point >> 6)
    else:
        if point < 0x10000:
            out[end] = 0xE0 | (point >> 12)
        else:
            out[end] = 0xF0 | (point >> 18)
            end += 1
            out[end] = 0x80 | ((point >> 12) & 63)
        end += 1
        out[end] = 0x80 | ((point >> 6) & 63)
    out[end + 1] = 0x80 | (point & 63)
    return end + 2


@register_jitable
def number_of(data: Any, at: Any) -> Any:
    """The character of `&#...`, from behind the `#`, and where it ends. (&, `at - 1`) if it is none."""
    start, value, digits = at, np.int64(0), 0
    is_hex = at < len(data) and LOWER[data[at]] == 120
    if is_hex:
        at += 1
    while at < len(data) and digits < 8:
        byte = np.int64(LOWER[data[at]])
        if 48 <= byte < 58:
            digit = byte - 48
        elif is_hex and 97 <= byte < 103:
            digit = byte - 87
        else:
            break
        value = value * (16 if is_hex else 10) + digit
        digits += 1
        at += 1
    if digits == 0:
        return np.int64(AMPERSAND), start - 1
    if at < len(data) and data[at] == SEMICOLON:
        at += 1
    if 128 <= value < 160:
        value = CP1252[value - 128]
    if value == 0 or value > 0x10FFFF or 0xD800 <= value < 0xE000:
        value = np.int64(0xFFFD)
    return value, at


@register_jitable
def entity(data: Any, at: Any, entities: Any) -> Any:
    """The character that an `&`, right before `at`, begins, and where it ends: the `&` itself if it begins none."""
    if at < len(data) and data[at] == HASH:
        return number_of(data, at + 1)
    end, key = at, FNV_START
    while end < len(data) and end - at < 32 and (KINDS[data[end]] == LETTER or KINDS[data[end]] == DIGIT):
        key = (key ^ np.int64(data[end])) * FNV_PRIME
        end += 1
    value = value_of(entities, key) if end > at else np.int64(-1)
    has_semicolon = end < len(data) and data[end] == SEMICOLON
    if value < 0 or not (has_semicolon or value >> 32):
        return np.int64(AMPERSAND), at
    return value & 0xFFFFFFFF, end + 1 if has_semicolon else end


@register_jitable
def end_word(row: Any, run: Any, stop_words: Any) -> None:
    """Counts the word at hand, if there is one."""
    if run[c.IN_WORD]:
        row[c.WORDS] += 1
        if value_of(stop_words, run[c.WORD_HASH]) >= 0:
            row[c.STOPS] += 1
    run[c.IN_WORD] = 0
    run[c.WORD_HASH] = FNV_START


@register_jitable
def put_white(
    byte: Any, row: Any, run: Any, out: Any, end: Any, after: Any, groups: Any, stop_words: Any, space: Any, is_pre: Any
) -> Any:
    """White space: written as it is in <pre>, else due before what comes next. Returns where the output ends."""
    end_word(row, run, stop_words)
    state = after[run[c.PHRASE], space]
    run[c.PHRASE] = state
    row[c.LEXICON] |= groups[state]
    if not is_pre:
        run[c.PENDING] = end > row[c.START]
    elif byte != 13 and (byte != NEWLINE or end > row[c.START]):
        out[end] = byte
        end += 1
    return end


@register_jitable
def put_text(
    row: Any,
    run: Any,
    out: Any,
    start: Any,
    end: Any,
    after: Any,
    groups: Any,
    classes: Any,
    stop_words: Any,
    is_link: Any,
) -> None:
    """Counts the character out[start:end], which is no white space. Tables come one by one: taking a tuple apart for
    each character would be most of the work.

    long: one character's counts, in the innermost loop.
    """
    state, text_hash = run[c.PHRASE], row[c.HASH]
    for at in range(start, end):
        byte = out[at]
        kind = KINDS[byte]
        state = after[state, classes[byte]]
        row[c.LEXICON] |= groups[state]
        text_hash = (text_hash ^ np.int64(LOWER[byte])) * FNV_PRIME
        if kind == LETTER or kind == BEYOND_ASCII or kind == DIGIT:
            run[c.WORD_HASH] = (run[c.WORD_HASH] ^ np.int64(LOWER[byte])) * FNV_PRIME
            run[c.IN_WORD] = 1
            if kind == LETTER:
                row[c.LETTERS] += 1
                row[c.CAPITALS] += byte < 97
            elif kind == DIGIT:
                row[c.DIGITS] += 1
            elif 0xE3 <= byte <= 0xE9:
                row[c.IDEOGRAPHS] += 1
            row[c.LAST] = 0
            continue
        end_word(row, run, stop_words)
        if kind == SENTENCE_END:
            row[c.ENDS] += 1
            row[c.LAST] = 4
        elif kind == COMMA:
            row[c.COMMAS] += 1
            row[c.LAST] = 5
        elif byte != 34 and byte != 39 and byte != 41:
            row[c.LAST] = 0
    run[c.PHRASE] = state
    row[c.HASH] = text_hash
    if out[start] < 128 or out[start] >= 0xC0:
        row[c.CHARS] += 1
        row[c.LINK_CHARS] += is_link


@register_jitable
def put_letters(
    data: Any, at: Any, row: Any, run: Any, out: Any, end: Any, after: Any, groups: Any, classes: Any, is_link: Any
) -> Any:
    """The ASCII letters from `at` on, as `put_text` would, but with the state in registers: most of a page's text.
    Returns where they end, in the page and in the output."""
    start, capitals, lexicon = end, 0, np.int64(0)
    state, text_hash, word_hash = np.int64(run[c.PHRASE]), row[c.HASH], run[c.WORD_HASH]
    while at < len(data) and KINDS[data[at]] == LETTER:
        byte = data[at]
        out[end] = byte
        state = np.int64(after[state, classes[byte]])
        lexicon |= groups[state]
        lower = np.int64(LOWER[byte])
        text_hash = (text_hash ^ lower) * FNV_PRIME
        word_hash = (word_hash ^ lower) * FNV_PRIME
        capitals += byte < 97
        at += 1
        end += 1
    run[c.PHRASE], run[c.WORD_HASH], run[c.IN_WORD] = state, word_hash, 1
    row[c.HASH] = text_hash
    row[c.LEXICON] |= lexicon
    row[c.CAPITALS] += capitals
    row[c.LETTERS] += end - start
    row[c.CHARS] += end - start
    row[c.LINK_CHARS] += (end - start) * is_link
    row[c.LAST] = 0
    return at, end


@register_jitable
def put_space(run: Any, out: Any, end: Any) -> Any:
    """The space that is due, if there is. Returns where the output ends."""
    if run[c.PENDING]:
        out[end] = SPACE
        run[c.PENDING] = 0
        return end + 1
    return end


@register_jitable
def read_text(
    data: Any, at: Any, row: Any, run: Any, out: Any, end: Any, tables: Any, is_link: Any, is_pre: Any, is_plain: Any
) -> Any:
    """Text from `at` to the next tag. Returns where it ends, in the page and in the output."""
    phrases, stop_words, entities = tables
    after, groups, classes = phrases
    space = classes[SPACE]
    while at < len(data) and (data[at] != LESS or is_plain):
        byte = data[at]
        kind = KINDS[byte]
        if kind == LETTER:
            end = put_space(run, out, end)
            at, end = put_letters(data, at, row, run, out, end, after, groups, classes, is_link)
            continue
        at += 1
        if kind == WHITE:
            end = put_white(byte, row, run, out, end, after, groups, stop_words, space, is_pre)
            continue
        if kind == CONTROL:
            continue
        point = np.int64(-1)
        if byte == AMPERSAND:
            point, at = entity(data, at, entities)
        elif byte == 0xC2 and at < len(data) and (data[at] == 0xA0 or data[at] == 0xAD):
            point = np.int64(data[at])
            at += 1
        if point >= 0:
            if point == 0xA0 or (point < 128 and KINDS[point] == WHITE):
                end = put_white(np.uint8(SPACE), row, run, out, end, after, groups, stop_words, space, is_pre)
                continue
            if point == 0xAD or point == 0x200B or point == 0xFEFF or point < 32 or point == 127:
                continue
        end = put_space(run, out, end)
        start = end
        if point >= 0:
            end = put_character(out, end, point)
        else:
            out[end] = byte
            end += 1
        put_text(row, run, out, start, end, after, groups, classes, stop_words, is_link)
    return at, end


@register_jitable
def put_formula(
    data: Any, start: Any, stop: Any, row: Any, run: Any, out: Any, end: Any, tables: Any, is_display: Any
) -> Any:
    """TeX from the page, between dollar signs, as one word; entities are resolved, so that `&lt;` is `<`."""
    while start < stop and KINDS[data[start]] == WHITE:
        start += 1
    while stop > start and KINDS[data[stop - 1]] == WHITE:
        stop -= 1
    if start == stop:
        return end
    _, stop_words, entities = tables
    end_word(row, run, stop_words)
    end = put_space(run, out, end)
    for _ in range(1 + is_display):
        out[end] = ord("$")
        end += 1
    while start < stop:
        point = np.int64(-1)
        byte = data[start]
        start += 1
        if byte == AMPERSAND:
            point, start = entity(data, start, entities)
        if KINDS[byte] == CONTROL:
            continue
        if point >= 0:
            end = put_character(out, end, point)
        else:
            out[end] = SPACE if KINDS[byte] == WHITE else byte
            end += 1
        row[c.CHARS] += byte < 128 or byte >= 0xC0
    for _ in range(1 + is_display):
        out[end] = ord("$")
        end += 1
    row[c.WORDS] += 1
    row[c.LAST] = 0
    return end
