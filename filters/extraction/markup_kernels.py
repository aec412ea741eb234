"""Markup: comments, tags with their attributes, and elements that are passed over whole.

A `page` is its bytes twice: one by one, and eight by eight as integers, by which `position` passes over what does not
matter, most of a page.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction.columns import Place
from gristmill.filters.extraction.text_kernels import (
    FNV_PRIME,
    FNV_START,
    KINDS,
    LESS,
    LETTER,
    LOWER,
    WHITE,
    value_of,
)

GREATER, SLASH, EQUALS, QUOTE, APOSTROPHE, DASH, EXCLAMATION, QUESTION, BACKSLASH = (
    ord(mark) for mark in ">/=\"'-!?\\"
)


def _key(name: str) -> np.int64:
    return np.int64(int.from_bytes(name.encode()[:8], "little"))


ENDS_NAME = (KINDS == WHITE) | np.isin(np.arange(256), (SLASH, GREATER))
"""Bytes that end the name of a tag; that of an attribute ends at an equals sign too, and has no slash within."""
ENDS_ATTRIBUTE = ENDS_NAME | (np.arange(256) == EQUALS)
EACH, HIGHEST = np.int64(0x0101010101010101), np.int64(-0x7F7F7F7F7F7F7F80)
"""The lowest and the highest bit of each of eight bytes."""

# Names of attributes by their first eight bytes, as `name_key` has them.
CLASS, ID, ROLE, ITEMPROP, STYLE = (_key(name) for name in ("class", "id", "role", "itemprop", "style"))
HIDDEN, ARIA_HIDDEN, ALT, ALTTEXT = (_key(name) for name in ("hidden", "aria-hidden", "alt", "alttext"))
TYPE, ENCODING, DISPLAY = (_key(name) for name in ("type", "encoding", "display"))


@register_jitable
def position(page: Any, at: Any, byte: Any) -> Any:
    """Where a byte stands next, or the length of the page."""
    data, eights = page
    size = len(data)
    while at & 7 and at < size:
        if data[Place(at)] == byte:
            return at
        at += 1
    place, last, wanted = at >> 3, len(eights), np.int64(byte) * EACH
    while place < last:
        differs = eights[Place(place)] ^ wanted
        if (differs - EACH) & ~differs & HIGHEST:  # a byte of it is 0 (Mycroft's test)
            break
        place += 1
    at = max(at, place << 3)
    while at < size and data[Place(at)] != byte:
        at += 1
    return at


@register_jitable
def after_comment(page: Any, at: Any) -> Any:
    """Where a comment ends whose `!`, `?` or `/` stands at `at`; one that is not closed takes all the rest."""
    data = page[0]
    if data[at] != EXCLAMATION or at + 2 >= len(data) or data[at + 1] != DASH or data[at + 2] != DASH:
        return position(page, at, GREATER) + 1
    at += 3
    if at < len(data) and data[at] == GREATER:
        return at + 1
    start = at
    at = position(page, at, GREATER)
    while at < len(data):
        dashes = at - 1 if at > start and data[at - 1] == EXCLAMATION else at  # -->, or --!>
        if dashes - 2 >= start and data[dashes - 1] == DASH and data[dashes - 2] == DASH:
            return at + 1
        at = position(page, at + 1, GREATER)
    return len(data)


@register_jitable
def tag_name(data: Any, at: Any, tags: Any) -> Any:
    """Where the name of a tag ends that begins at `at`, and the tag's number, 0 if it is none that matters."""
    key = FNV_START
    while at < len(data):
        byte = data[Place(at)]
        if ENDS_NAME[byte]:
            break
        key = (key ^ np.int64(LOWER[byte])) * FNV_PRIME
        at += 1
    return at, max(value_of(tags, key), np.int64(0))


@register_jitable
def is_name(data: Any, at: Any, name: Any, end: Any) -> Any:
    """Whether the name data[name:end] of a tag stands at `at`, in any case, and ends there."""
    behind = at + end - name
    if behind > len(data):
        return False
    for same in range(end - name):
        if LOWER[data[at + same]] != LOWER[data[name + same]]:
            return False
    return behind == len(data) or KINDS[data[behind]] != LETTER


@register_jitable
def closing_tag(page: Any, at: Any, name: Any, end: Any, ends_at_start: Any) -> Any:
    """(Where `</` and the name data[name:end] stand next from `at`, the length of the page if nowhere; where the search
    ended). `ends_at_start`: it ends at a start tag of the name too, of an element that holds no other of its kind: so
    no byte is searched for two of them, and one that nobody closed takes no text up to the end of another."""
    data = page[0]
    at = position(page, at, LESS)
    while at + 1 < len(data):
        if data[at + 1] == SLASH:
            if is_name(data, at + 2, name, end):
                return at, at
        elif ends_at_start and is_name(data, at + 1, name, end):
            return np.int64(len(data)), at
        at = position(page, at + 1, LESS)
    return np.int64(len(data)), np.int64(len(data))


@register_jitable
def words_in(data: Any, start: Any, stop: Any, attributes: Any) -> Any:
    """Which groups of words stand in the value of an attribute: bits. All that is no letter is one separator."""
    after, classes, groups, marked = attributes
    separator = np.int64(26)
    state, last, bits = np.int64(after[separator]), separator, np.int64(0)
    for at in range(start, stop + 1):
        kind = np.int64(classes[data[Place(at)]]) if at < stop else separator
        if kind == separator and last == separator:
            continue
        state = np.int64(after[Place(state + kind)])
        if state >= marked:
            bits |= groups[Place((state - marked) >> c.WORD_WIDTH)]
        last = kind
    return bits


@register_jitable
def has_tex(data: Any, start: Any, stop: Any) -> Any:
    """Whether a type says TeX: `math/tex`, `math/tex; mode=display`, `application/x-tex`, `LaTeX`."""
    for at in range(start, stop - 2):
        if LOWER[data[at]] == 116 and LOWER[data[at + 1]] == 101 and LOWER[data[at + 2]] == 120:
            if at + 3 == stop or KINDS[data[at + 3]] != LETTER:
                return True
    return False


@register_jitable
def has_command(data: Any, start: Any, stop: Any) -> Any:
    """Whether a text has a TeX command: a backslash with a letter behind it."""
    for at in range(start, stop - 1):
        if data[at] == BACKSLASH and KINDS[data[at + 1]] == LETTER:
            return True
    return False


@register_jitable
def attribute(page: Any, at: Any) -> Any:
    """An attribute that begins at `at`: (its name's first bytes, start and stop of its value, where it ends)."""
    data, first, key, shift = page[0], at, np.int64(0), 0
    while at < len(data):
        byte = data[Place(at)]
        if ENDS_ATTRIBUTE[byte] and not (byte == SLASH and at == first):
            break
        if shift < 64:
            key |= np.int64(LOWER[byte]) << shift
            shift += 8
        at += 1
    while at < len(data) and KINDS[data[Place(at)]] == WHITE:
        at += 1
    if at >= len(data) or data[Place(at)] != EQUALS:
        return key, at, at, at
    at += 1
    while at < len(data) and KINDS[data[Place(at)]] == WHITE:
        at += 1
    if at < len(data) and (data[Place(at)] == QUOTE or data[Place(at)] == APOSTROPHE):
        stop = position(page, at + 1, data[Place(at)])
        return key, at + 1, stop, stop + 1
    start = at
    while at < len(data) and KINDS[data[Place(at)]] != WHITE and data[Place(at)] != GREATER:
        at += 1
    return key, start, at, at


@register_jitable
def read_attributes(page: Any, at: Any, automaton: Any) -> Any:
    """Attributes up to the end of the tag: (where it ends, bits of words, its TeX: start, stop, is_tex, is_display,
    is_hidden, closes_itself). The end is behind the page where the tag has none."""
    data = page[0]
    bits, tex_start, tex_stop = np.int64(0), np.int64(0), np.int64(0)
    is_tex = is_display = is_hidden = closes_itself = False
    while at < len(data) and data[at] != GREATER:
        byte = data[Place(at)]
        if KINDS[byte] == WHITE or byte == SLASH:
            closes_itself = byte == SLASH
            at += 1
            continue
        closes_itself = False
        key, start, stop, at = attribute(page, at)
        stop = min(stop, len(data))
        if key == CLASS or key == ID or key == ROLE or key == ITEMPROP or key == STYLE:
            bits |= words_in(data, start, stop, automaton)
        elif key == HIDDEN:
            is_hidden = True
        elif key == ARIA_HIDDEN:
            is_hidden = is_hidden or (start < stop and LOWER[data[start]] == 116)
        elif key == ALT or key == ALTTEXT:
            tex_start, tex_stop = np.int64(start), np.int64(stop)
        elif key == TYPE or key == ENCODING:
            if has_tex(data, start, stop):
                is_tex = True
                is_display = LOWER[data[stop - 1]] == 121  # mode=display
        elif key == DISPLAY:
            is_display = start < stop and LOWER[data[start]] == 98  # block
    if is_hidden:
        bits |= 1 << c.HIDDEN_BIT
    return at + 1, bits, tex_start, tex_stop, is_tex, is_display, is_hidden, closes_itself


@register_jitable
def skip_attributes(page: Any, at: Any) -> Any:
    """Where a tag ends whose attributes do not matter: that of an end tag."""
    data = page[0]
    while at < len(data) and data[at] != GREATER:
        if KINDS[data[at]] == WHITE or data[at] == SLASH:
            at += 1
        else:
            at = attribute(page, at)[3]
    return at + 1


@register_jitable
def annotation_of(page: Any, at: Any, stop: Any, automaton: Any) -> Any:
    """Start and stop of the TeX that MathML in data[at:stop] has beside it; (0, 0) where it has none."""
    data, name = page[0], b"annotation"
    while at + len(name) + 1 < stop:
        if data[at] == LESS and LOWER[data[at + 1]] == 97:
            same = 0
            while same < len(name) and LOWER[data[at + 1 + same]] == name[same]:
                same += 1
            if same == len(name):
                start, _, _, _, is_tex, _, _, _ = read_attributes(page, at + 1 + same, automaton)
                end = position(page, start, LESS)
                if is_tex and start < end < stop:
                    return np.int64(start), np.int64(end)
                at = end - 1
        at += 1
    return np.int64(0), np.int64(0)
