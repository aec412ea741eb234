"""The text between a page's tags: all that is shown, and of it what reads as prose.

One pass over the bytes, without a tree: it only moves forward, so that its steps are in proportion to the page,
whatever that holds. It is no extraction: entities stay as they are written, and what a style sheet hides is shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

LESS, GREATER, SLASH, EQUALS, DASH, SPACE = (ord(mark) for mark in "<>/=- ")
QUOTES = (ord('"'), ord("'"))
BANG, QUESTION = ord("!"), ord("?")
NAME_BYTES = 8
"""Of a tag's name, which make up its key: no two names below have the same."""


def key_of(name: str) -> int:
    """A tag's name as a number, by its first bytes."""
    return int.from_bytes(name.encode()[:NAME_BYTES], "big")


# fmt: off
INLINE = (
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
)
"""Within a line of text; any other tag ends it."""
SKIPPED = (
    "iframe", "math", "noembed", "noframes", "noscript", "script", "select", "style", "svg", "template", "textarea",
    "title", "xmp",
)
# fmt: on
"""Whose content is no text of the page, up to where they end."""
LINK = key_of("a")
BREAKS, WITHIN, SKIPS = range(3)
SLOTS = 128


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Keys (0: none) and what each of these tags does, in the slots in which `kind_of` looks."""
    keys, kinds = np.zeros(SLOTS, np.int64), np.zeros(SLOTS, np.int64)
    for names, kind in ((INLINE, WITHIN), (SKIPPED, SKIPS)):
        for key in map(key_of, names):
            slot = key % 127
            while keys[slot]:
                slot = (slot + 1) % SLOTS
            keys[slot], kinds[slot] = key, kind
    return keys, kinds


KEYS, KINDS = _table()


@register_jitable
def kind_of(key: Any) -> Any:
    """What a tag does to the text around it."""
    slot = key % 127
    while KEYS[slot] != 0:
        if KEYS[slot] == key:
            return KINDS[slot]
        slot = (slot + 1) % SLOTS
    return np.int64(BREAKS)


@register_jitable
def is_letter(byte: Any) -> Any:
    """[A-Za-z]"""
    return 97 <= (byte | 32) <= 122


@register_jitable
def name_at(page: Any, at: Any) -> Any:
    """(key of the name that begins there, where it ends)."""
    key = np.int64(0)
    end = at
    while end < len(page):
        byte = np.int64(page[end])
        if byte <= SPACE or byte in (GREATER, SLASH):
            break
        if end - at < NAME_BYTES:
            key = (key << 8) | (byte | 32 if is_letter(byte) else byte)
        end += 1
    return key, end


@register_jitable
def behind_tag(page: Any, at: Any) -> Any:
    """Where the tag ends, from behind its name on: behind the next `>` that stands in no quoted value."""
    while at < len(page):
        byte = page[at]
        at += 1
        if byte == GREATER:
            break
        if byte == EQUALS:
            while at < len(page) and page[at] <= SPACE:
                at += 1
            if at < len(page) and page[at] in QUOTES:
                quote = page[at]
                at += 1
                while at < len(page) and page[at] != quote:
                    at += 1
                at += 1
    return min(at, len(page))


@register_jitable
def behind_element(page: Any, at: Any, key: Any) -> Any:
    """Where the closing tag of this name begins; the end of the page, if there is none."""
    while at + 2 < len(page):
        if page[at] == LESS and page[at + 1] == SLASH and name_at(page, at + 2)[0] == key:
            return at
        at += 1
    return len(page)


@register_jitable
def behind_remark(page: Any, at: Any) -> Any:
    """Where a comment, a declaration or an instruction ends, whose `<` stands at `at`."""
    is_comment = at + 3 < len(page) and page[at + 1] == BANG and page[at + 2] == DASH and page[at + 3] == DASH
    at += 4 if is_comment else 1
    while at < len(page):
        if page[at] == GREATER and (not is_comment or (page[at - 1] == DASH and page[at - 2] == DASH)):
            return at + 1
        at += 1
    return len(page)


@register_jitable
def end_run(shown: Any, start: Any, end: Any, linked: Any, rule: Any, prose: Any, size: Any) -> Any:
    """Ends the text at hand. Returns (where the next begins, the size of the prose)."""
    if end == start:
        return start, size
    if end - start >= rule[0] and linked * 100 <= rule[1] * (end - start):
        for at in range(start, end):
            prose[size] = shown[at]
            size += 1
        prose[size] = SPACE
        size += 1
    shown[end] = SPACE
    return end + 1, size


def shown_text(page: Any, rule: Any, shown: Any, prose: Any, sizes: Any) -> None:
    """The text of a page, UTF-8, uint8 [bytes]: runs of it without a line's end, white space as one space.

    rule: int64 [2]: fewest bytes of a run that is prose, and of its bytes how many of 100 may stand in links. To
    `shown` and `prose`, uint8 [bytes of the page + 1], all runs and those that are prose, a space behind each; to
    `sizes`, int64 [2], how long they are.
    """
    at = start = end = size = linked = np.int64(0)
    in_link = is_due = False  # whether a space is due before the next character
    while at < len(page):
        byte = page[at]
        follows = page[at + 1] if at + 1 < len(page) else np.uint8(0)
        if byte == LESS and follows in (BANG, QUESTION):
            at = behind_remark(page, at)
        elif byte == LESS and (is_letter(follows) or follows == SLASH):
            is_end = follows == SLASH
            key, at = name_at(page, at + 2 if is_end else at + 1)
            kind = kind_of(key)
            at = behind_tag(page, at)
            if kind != WITHIN:
                start, size = end_run(shown, start, end, linked, rule, prose, size)
                end, linked, is_due = start, np.int64(0), False
                in_link = False
            elif key == LINK:
                in_link = not is_end
            if kind == SKIPS and not is_end:
                at = behind_element(page, at, key)
        else:
            at += 1
            if byte <= SPACE:
                is_due = True
                continue
            if is_due and end > start:
                shown[end] = SPACE
                end += 1
            is_due = False
            shown[end] = byte
            end += 1
            linked += in_link
    start, size = end_run(shown, start, end, linked, rule, prose, size)
    sizes[0], sizes[1] = start, size


SIGNATURES = {
    "shown_text": types.void(
        types.Array(types.uint8, 1, "C", readonly=True),
        types.Array(types.int64, 1, "C", readonly=True),
        types.uint8[::1],
        types.uint8[::1],
        types.int64[::1],
    )
}
