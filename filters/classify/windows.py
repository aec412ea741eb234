"""What a text classifier sees of a text: some windows of it, as words that fastText can count.

Windows have a fixed length and a text's score is their mean, so that a long text is no better than a short one by being
long. Words are lower case, numbers one word, and punctuation and the ends of lines words of their own, since lists,
menus and prose differ by them more than by what they are about.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

NUMBER, BREAK = "0", "¶"
"""The words that stand for any number, and for the end of a line."""
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")  # soft hyphen, zero width, BOM: inside words
_WORDS = re.compile(r"\n|\d[\d.,]*|[^\W\d_]+(?:'[^\W\d_]+)*|[^\w\s]")


@dataclass(frozen=True)
class Windows:
    """`count` windows of `characters` each, spread over a text from its head to its tail; a text that is no longer than
    all of them is cut into as many as it fills. Raises ValueError that names the field."""

    count: int = 8
    characters: int = 600

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 1024:
            raise ValueError(f"windows.count={self.count}: allowed are 1 to 1024 windows")
        if not 50 <= self.characters <= 1_000_000:
            raise ValueError(f"windows.characters={self.characters}: allowed are 50 to 1,000,000")

    def lines(self, text: str) -> list[str]:
        """A line of words for each window that has any, as fastText takes them."""
        return [line for piece in self.pieces(text) if (line := words(piece))]

    def pieces(self, text: str) -> list[str]:
        """What of a text stands in each window, prepared; it may have no word."""
        text = text.strip()
        return [prepared(_whole_words(text, start, end)) for start, end in self._spans(len(text))]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        """Where the windows of a text of so many characters begin and end."""
        pieces = -(-length // self.characters)
        if pieces <= self.count:
            # Pieces of one length: a last piece of three words would weigh as much as all the others.
            bounds = [round(length * number / max(pieces, 1)) for number in range(pieces + 1)]
            return list(pairwise(bounds))
        step = (length - self.characters) / max(self.count - 1, 1)
        starts = [round(step * number) for number in range(self.count)]
        return [(start, start + self.characters) for start in starts]


def prepared(text: str) -> str:
    """A text in the characters in which words are looked for: small, of one width, none of them invisible."""
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).replace("’", "'")
    return text.lower()


def words(text: str) -> str:
    """The words of a text, with one space between them; the kernel (score_kernel.py) cuts them the same way."""
    return " ".join(_word(match) for match in _WORDS.findall(prepared(text)))


def _word(match: str) -> str:
    if match[0].isdecimal():
        return NUMBER
    return BREAK if match == "\n" else match


def _whole_words(text: str, start: int, end: int) -> str:
    """A part of a text without the halves of words at its ends; what is one long word stays as it is."""
    part = text[start:end]
    if start and not text[start - 1].isspace():
        part = part.partition(" ")[2] or part
    if end < len(text) and not text[end].isspace():
        part = part.rpartition(" ")[0] or part
    return part
