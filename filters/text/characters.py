"""What each character is to the filters: whitespace, a line's end, a letter, punctuation; a bit each, by code point.

Python's, datatrove's and spaCy's own notions, asked of them for every character once a process, so that compiled
kernels decide as they do. Source: datatrove.utils.text, 0.10.1; spacy/lang/char_classes.py, 3.8.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache

import numpy as np

from gristmill.filters.signatures.alphabet import HANGUL_LETTERS, IDEOGRAPHS, UNSPACED
from gristmill.filters.text.english import without_torch

# Bits; the same in the kernels. SPACE to ALPHA are `str.isspace`, `str.splitlines`, `str.isalnum`, `str.isalpha`;
# PUNCT and TERMINAL datatrove's sets; MARK Unicode's P; ENDS what ends a sentence for spaCy.
SPACE, BREAK, ALNUM, ALPHA, PUNCT, MARK, ENDS, TERMINAL = (1 << bit for bit in range(8))
LETTER, LOWER, UPPER, PREFIX, SUFFIX, QUOTE, BEFORE_DOT, ICON = (1 << bit for bit in range(8, 16))
DECIMAL, ALONE, JOINS = (1 << bit for bit in range(16, 19))
"""spaCy's letters; its prefixes and suffixes of one character; what may stand before a full stop that it cuts off.
DECIMAL is `str.isdecimal`; ALONE a letter of a script that puts no space between words; JOINS Unicode's M, marks upon
the character before."""

RELEASES = ("datatrove", "spacy")
"""Distributions whose notions these are, and those of English words: other releases may measure otherwise."""

POINTS = 0x110000
_LAST_MARK = 0x20000
"""No punctuation is assigned from here on, nor marks but variation selectors."""


@lru_cache(maxsize=1)
def flags() -> np.ndarray:
    """uint32 [POINTS], read-only; takes some 0.3 seconds, once a process."""
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

    table = np.zeros(POINTS, np.uint32)
    every = np.arange(POINTS, dtype=np.uint32)
    every[0xD800:0xE000] = 0  # surrogates are in no text
    characters = every.view("<U1")
    table[np.strings.isspace(characters)] |= SPACE
    table[np.strings.isalnum(characters)] |= ALNUM
    table[np.strings.isalpha(characters)] |= ALPHA
    table[np.strings.isdecimal(characters)] |= DECIMAL
    for point in range(_LAST_MARK):
        category = unicodedata.category(chr(point))[0]
        if category in "PM":
            table[point] |= MARK if category == "P" else JOINS
    for first, last in (*UNSPACED, *IDEOGRAPHS):
        table[first : last + 1] |= np.uint32(ALONE)
    for first, last in HANGUL_LETTERS:
        table[first : last + 1] &= ~np.uint32(ALONE)
    _set(table, "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", BREAK)
    _set(table, PUNCTUATION_SET, PUNCT)
    _set(table, TERMINAL_PUNCTUATION, TERMINAL)
    _spacy(table, every.tobytes().decode(f"utf-32-{sys.byteorder[0]}e"))
    table.flags.writeable = False
    return table


def _spacy(table: np.ndarray, every: str) -> None:
    """Adds spaCy's classes. `every`: all characters."""
    with without_torch():
        from spacy.lang import char_classes as classes
        from spacy.pipeline import Sentencizer

    def single(pieces: list[str]) -> list[str]:
        """Of patterns, those that are one character, plain."""
        plain = [re.sub(r"\\(.)", r"\1", piece) for piece in pieces]
        return [piece for piece in plain if len(piece) == 1]

    def members(pattern: str) -> str:
        return "".join(re.findall(f"[{pattern}]+", every))

    icons = members(classes.CONCAT_ICONS)
    around = [*single(classes.LIST_PUNCT), "…", *single(classes.LIST_QUOTES), *icons, "—", "–"]
    # These two classes are written as spaCy writes them in its patterns, slips (`(?:` in a class) and all.
    before_dot = rf"0-9{classes.ALPHA_LOWER}%²\-\+{classes.PUNCT}(?:{classes.CONCAT_QUOTES})"
    for pattern, bit in (
        (classes.ALPHA, LETTER),
        (classes.ALPHA_LOWER, LOWER),
        (classes.ALPHA_UPPER, UPPER),
        (classes.CONCAT_QUOTES, QUOTE),
        (before_dot, BEFORE_DOT),
    ):
        _set(table, members(pattern), bit)
    _set(table, icons, ICON)
    _set(table, around, SUFFIX)
    _set(table, [*around, "§", "%", "=", *single(classes.LIST_CURRENCY)], PREFIX)
    _set(table, Sentencizer.default_punct_chars, ENDS)


def _set(table: np.ndarray, characters: object, bit: int) -> None:
    points = np.array([ord(character) for character in characters], np.int64)  # type: ignore[attr-defined]
    table[points] |= np.uint32(bit)
