"""Ranges of words cut out of a text, so that what is left reads as text: white space, marks and tokens around a cut.

Between two words stands a gap, of white space and punctuation. Of that in front of a cut the marks that close the word
before it stay (`end.` of `end. The cut`), of that behind it those that open the next one, and the indent or bullet of
its line; all else goes, and in its place stand as many line breaks as the stronger of the two gaps has, at most two, or
a space. No token is parted: where punctuation alone joins two words (`3.50`, `Anna's`, an address), both stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_JOINT = re.compile(r"[!-/:-@\[-`{-~\u2019\u2010\u2011]+")
"""A gap that joins two words to one token: ASCII punctuation, typographic apostrophe and hyphens."""
_CLOSING, _OPENING = re.compile(r"\S+"), re.compile(r"\s(\S*)\Z")


class Cut(NamedTuple):
    """A text with ranges of words taken out, which ranges that were, [start, end) in words, and how many words."""

    text: str
    ranges: tuple[tuple[int, int], ...]
    words: int


def without_ranges(text: str, starts: np.ndarray, ends: np.ndarray, ranges: Sequence[tuple[int, int]]) -> Cut:
    """`starts`, `ends`: bytes at which each word of the text begins and ends, int [words]. `ranges` of words, [start,
    end), in order and apart. A range shrinks to whole tokens, and one of which nothing is left is not cut."""
    gaps = _Gaps(text.encode(), starts.tolist(), ends.tolist())
    whole = [part for start, end in ranges if (part := gaps.tokens(start, end)) is not None]
    parts, at = list[str](), 0  # `at`: the byte from which on the text is not copied yet
    for start, end in whole:
        before, after = gaps.before(start), gaps.before(end)
        if start:
            parts += [gaps.bytes[at : gaps.ends[start - 1]].decode(), _closing(before)]
        if start and end < len(starts):
            parts.append(_joint(before, after))
        if end < len(starts):
            parts.append(_opening(after))
            at = gaps.starts[end]
        else:
            at = len(gaps.bytes)
    parts.append(gaps.bytes[at:].decode())
    return Cut("".join(parts), tuple(whole), sum(end - start for start, end in whole))


class _Gaps(NamedTuple):
    """A text in UTF-8, and the bytes at which its words begin and end."""

    bytes: bytes
    starts: list[int]
    ends: list[int]

    def before(self, word: int) -> str:
        """What stands between this word and the one before it; before the first and behind the last, up to the edge."""
        start = self.ends[word - 1] if word else 0
        end = self.starts[word] if word < len(self.starts) else len(self.bytes)
        return self.bytes[start:end].decode()

    def tokens(self, start: int, end: int) -> tuple[int, int] | None:
        """The range without words at its ends that belong to a token outside of it; None if there are no others."""
        while 0 < start < end and _JOINT.fullmatch(self.before(start)):
            start += 1
        while start < end < len(self.starts) and _JOINT.fullmatch(self.before(end)):
            end -= 1
        return (start, end) if start < end else None


def _closing(gap: str) -> str:
    """What of the gap behind a word that stays belongs to it: to the end of its line, else up to the first space."""
    line, line_break, _ = gap.partition("\n")
    if line_break:
        return line.rstrip()
    marks = _CLOSING.match(gap)
    return marks[0] if marks else ""


def _opening(gap: str) -> str:
    """What of the gap before a word that stays belongs to it: from the beginning of its line, else from the last
    space; a gap without any closes the word before it."""
    _, line_break, line = gap.rpartition("\n")
    if line_break:
        return line
    marks = _OPENING.search(gap)
    return marks[1] if marks else ""


def _joint(before: str, after: str) -> str:
    """The white space in place of what was cut out between these two gaps."""
    breaks = max(before.count("\n"), after.count("\n"))
    if breaks:
        return "\n" * min(breaks, 2)
    return " " if any(char.isspace() for char in before + after) else ""
