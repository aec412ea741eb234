"""Language first: what language a page is in, told from the text between its tags before any of it is extracted.

Of most crawls most pages are in languages that a recipe does not keep, and extraction is the dearest step. A page is
dropped here if it has enough prose, and windows over its prose and over all of its text have a label that is none of
those wanted, and none of them a wanted language to speak of. What is in doubt is extracted, and judged by the language
filter behind it.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

from gristmill.filters.language import WINDOW, WINDOWS, LanguageFilter
from gristmill.filters.pages.shown import shown_text

VERSION = 1
"""Raised whenever the same page and settings can come to another verdict."""
CHARACTER_BYTES = 4
"""Of UTF-8, at most."""


@dataclass(frozen=True)
class LanguageFirst:
    """When a page is surely in a language that is not wanted: `min_bytes` of prose (UTF-8), a label of the windows over
    prose and text that has at least `min_score`, and wanted languages that together have less than `max_wanted` in
    every window. What is wanted says the language filter."""

    min_bytes: int = 500
    min_score: float = 0.5
    max_wanted: float = 0.5

    def __post_init__(self) -> None:
        if self.min_bytes < 1:
            raise ValueError(f"language_first: min_bytes={self.min_bytes}: at least 1")
        for name in ("min_score", "max_wanted"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"language_first: {name}={getattr(self, name)}: a probability, from 0 to 1")


def unwanted(page: bytes, rules: LanguageFirst, language: LanguageFilter) -> str | None:
    """Label and score (`de 0.98`) of a page, HTML in UTF-8, that is surely in an unwanted language; None: extract it.

    Raises as `LanguageFilter.glance`.
    """
    shown = shown_text(page)
    if len(shown.prose) < rules.min_bytes:
        return None
    prose = windows(shown.prose)
    # Pages that are wanted mostly show it here, and one window is enough for them to be extracted.
    if language.glance([prose[WINDOWS // 2]]).wanted >= rules.max_wanted:
        return None
    # The main text may be short pieces, and the prose a footer's: so all text is looked at as well.
    glance = language.glance([*prose, *windows(shown.text)])
    if glance.language is None or glance.language in language.keep:
        return None
    if glance.score < rules.min_score or glance.wanted >= rules.max_wanted:
        return None
    return f"{glance.language} {glance.score:.2f}"


def windows(text: bytes) -> list[str]:
    """`WINDOWS` of `WINDOW` characters over a text, UTF-8 as HTML has it; of a short one they are shorter, since only a
    part of it may be wanted."""
    width = min(WINDOW, math.ceil(len(text) / WINDOWS))
    step = max(0, len(text) - width) / (WINDOWS - 1)
    starts = [round(step * number) for number in range(WINDOWS)]
    pieces = [text[start : start + CHARACTER_BYTES * width].decode("utf-8", "ignore") for start in starts]
    return [html.unescape(piece[:width]) for piece in pieces]
