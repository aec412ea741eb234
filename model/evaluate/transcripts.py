"""Transcripts beside those expected: word and character error rates after a normalisation that has a name.

A rate is a sum of edits over a sum of lengths, of all items: it is of a corpus, not the mean of rates. What is counted
as the same is a matter of the normalisation, so it is chosen by language, and stands in the recipe of an evaluation. In
languages that are written without blanks there are no words to count: their texts have characters alone.
Source: the basic normaliser of Whisper (Radford et al. 2022, arXiv 2212.04356, appendix C), without its removal of
diacritics and of what stands in brackets; Levenshtein's distance as `evaluate.reading` has it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gristmill.model.evaluate.reading import Reading, reading

_APOSTROPHES = re.compile(r"(?<=\w)[’ʼ＇](?=\w)")


def plain(text: str) -> str:
    """Compatible characters as one (NFKC), case folded; what is no letter, mark or digit is a blank, but an apostrophe
    within a word; blanks as one."""
    folded = _APOSTROPHES.sub("'", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))
    kept = [
        letter if unicodedata.category(letter)[0] in "LMN" or _is_within(folded, place) else " "
        for place, letter in enumerate(folded)
    ]
    return " ".join("".join(kept).split())


def _is_within(text: str, place: int) -> bool:
    """Whether an apostrophe stands between two letters."""
    return text[place] == "'" and text[place - 1 : place].isalnum() and text[place + 1 : place + 2].isalnum()


NORMALISATIONS: Mapping[str, Callable[[str], str]] = {
    "none": lambda text: " ".join(text.split()),
    "plain": plain,
    "characters": lambda text: "".join(plain(text).split()),
}
"""By name: blanks as one; `plain`; and without blanks, which then are no borders of words."""
WITHOUT_WORDS = frozenset(("characters",))


@dataclass(frozen=True)
class Normalisation:
    """`default` of texts in any language but those in `by_language`, each the name of one of NORMALISATIONS."""

    default: str = "plain"
    by_language: Mapping[str, str] = field(default_factory=lambda: {"zh": "characters", "ja": "characters"})

    def __post_init__(self) -> None:
        for where, name in (("default", self.default), *sorted(self.by_language.items())):
            if name not in NORMALISATIONS:
                raise ValueError(f"{where}={name!r}: allowed are {', '.join(NORMALISATIONS)}")

    def name(self, language: str | None) -> str:
        """What texts of a language are normalised by; None: of an unknown one."""
        return self.by_language.get(language or "", self.default)


def transcript_reading(answer: str, expected: str, language: str | None, how: Normalisation) -> Reading:
    """How far a transcript is from the one expected; `words` and `word_errors` are 0 in a language without words. Of an
    expected text of nothing, what is written is all errors."""
    name = how.name(language)
    near = reading(*(NORMALISATIONS[name](text) for text in (answer, expected)))
    return near._replace(words=0, word_errors=0) if name in WITHOUT_WORDS else near
