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
from gristmill.filters.extraction.columns import Place

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
    while keys[Place(place)] != 0:
        if keys[Place(place)] == key:
            return values[Place(place)]
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
def put_space(run: Any, out: Any, end: Any) -> Any:
    """The space that is due, if there is. Returns where the output ends."""
    if run[c.PENDING]:
        out[end] = SPACE
        run[c.PENDING] = 0
        return end + 1
    return end


@register_jitable
def ended(phrases: Any, state: Any) -> Any:
    """The bits of the phrases that end in a state."""
    _, _, groups, marked = phrases
    return groups[Place((state - marked) >> c.PHRASE_WIDTH)] if state >= marked else np.int64(0)


@register_jitable
def put_less(row: Any, run: Any, out: Any, end: Any, tables: Any) -> Any:
    """A `<` that begins no tag. Returns where the output ends."""
    phrases, stop_words, _ = tables
    end_word(row, run, stop_words)
    end = put_space(run, out, end)
    out[end] = LESS
    run[c.PHRASE] = phrases[0][run[c.PHRASE] + phrases[1][LESS]]
    row[c.LEXICON] |= ended(phrases, run[c.PHRASE])
    row[c.HASH] = (row[c.HASH] ^ np.int64(LESS)) * FNV_PRIME
    row[c.CHARS] += 1
    row[c.LAST] = 0
    return end + 1


@register_jitable
def read_text(
    data: Any, at: Any, row: Any, run: Any, out: Any, end: Any, tables: Any, is_link: Any, is_pre: Any, is_plain: Any
) -> Any:
    """Text from `at` to the next tag: written, and counted in `row`. Returns where it ends, in the page and in the
    output.

    long: the innermost loop, all of whose state is in registers; numba passes arrays on one number at a time.
    """
    phrases, stop_words, entities = tables
    after, classes = phrases[0], phrases[1]
    size, start, space = len(data), row[c.START], np.int64(classes[SPACE])
    state, text_hash, last, pending = np.int64(run[c.PHRASE]), row[c.HASH], row[c.LAST], run[c.PENDING]
    word_hash, in_word, lexicon = run[c.WORD_HASH], run[c.IN_WORD], row[c.LEXICON]
    chars = words = stops = letters = capitals = digits = ends = commas = ideographs = np.int64(0)
    while at < size:
        byte = data[Place(at)]
        kind = KINDS[byte]
        if kind == LETTER:
            if pending:
                out[Place(end)] = SPACE
                end += 1
                pending = np.int64(0)
            before = end
            while kind == LETTER:
                out[Place(end)] = byte
                state = np.int64(after[Place(state + classes[byte])])
                lexicon |= ended(phrases, state)
                lower = np.int64(LOWER[byte])
                text_hash = (text_hash ^ lower) * FNV_PRIME
                word_hash = (word_hash ^ lower) * FNV_PRIME
                capitals += byte < 97
                end += 1
                at += 1
                if at == size:
                    break
                byte = data[Place(at)]
                kind = KINDS[byte]
            letters += end - before
            chars += end - before
            in_word, last = np.int64(1), np.int64(0)
            continue
        if byte == LESS and not is_plain:
            break
        at += 1
        if kind == CONTROL:
            continue
        point = np.int64(-1)
        if byte == AMPERSAND:
            point, at = entity(data, at, entities)
        elif byte == 0xC2 and at < size and (data[at] == 0xA0 or data[at] == 0xAD):
            point = np.int64(data[at])
            at += 1
        if kind == WHITE or point == 0xA0 or (0 <= point < 128 and KINDS[point] == WHITE):
            if in_word:
                words += 1
                stops += value_of(stop_words, word_hash) >= 0
                in_word, word_hash = np.int64(0), FNV_START
            state = np.int64(after[Place(state + space)])
            lexicon |= ended(phrases, state)
            if not is_pre:
                pending = np.int64(end > start)
                while state == 0 and at < size and KINDS[data[Place(at)]] == WHITE:
                    at += 1  # no phrase begins with a space, so that nothing changes any more
            elif kind != WHITE:
                out[end] = SPACE
                end += 1
            elif byte != 13 and (byte != NEWLINE or end > start):
                out[end] = byte
                end += 1
            continue
        if point == 0xAD or point == 0x200B or point == 0xFEFF or 0 <= point < 32 or point == 127:
            continue
        if pending:
            out[Place(end)] = SPACE
            end += 1
            pending = np.int64(0)
        before = end
        if point >= 0:
            end = put_character(out, end, point)
        else:
            out[Place(end)] = byte
            end += 1
        for place in range(before, end):
            byte = out[Place(place)]
            kind = KINDS[byte]
            state = np.int64(after[Place(state + classes[byte])])
            lexicon |= ended(phrases, state)
            lower = np.int64(LOWER[byte])
            text_hash = (text_hash ^ lower) * FNV_PRIME
            if kind == LETTER or kind == BEYOND_ASCII or kind == DIGIT:
                word_hash = (word_hash ^ lower) * FNV_PRIME
                in_word, last = np.int64(1), np.int64(0)
                letters += kind == LETTER
                capitals += kind == LETTER and byte < 97
                digits += kind == DIGIT
                ideographs += 0xE3 <= byte <= 0xE9
                continue
            if in_word:
                words += 1
                stops += value_of(stop_words, word_hash) >= 0
                in_word, word_hash = np.int64(0), FNV_START
            ends += kind == SENTENCE_END
            commas += kind == COMMA
            if kind == SENTENCE_END:
                last = np.int64(4)
            elif kind == COMMA:
                last = np.int64(5)
            elif byte != 34 and byte != 39 and byte != 41:
                last = np.int64(0)
        chars += out[Place(before)] < 128 or out[Place(before)] >= 0xC0
    run[c.PHRASE], run[c.WORD_HASH], run[c.IN_WORD], run[c.PENDING] = state, word_hash, in_word, pending
    row[c.HASH], row[c.LAST], row[c.LEXICON] = text_hash, last, lexicon
    row[c.CHARS] += chars
    row[c.LINK_CHARS] += chars * is_link
    row[c.WORDS] += words
    row[c.STOPS] += stops
    row[c.LETTERS] += letters
    row[c.CAPITALS] += capitals
    row[c.DIGITS] += digits
    row[c.ENDS] += ends
    row[c.COMMAS] += commas
    row[c.IDEOGRAPHS] += ideographs
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
