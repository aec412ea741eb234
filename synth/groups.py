"""Groups that a problem belongs to, for what a selection does to each: whom it is about, how long it is, what it asks.

Names and pronouns are read from the text by lists, of English alone: a count of words, not a judgement about people.
A problem of other languages has the group `unknown` there, and is compared by the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SHE = frozenset(["she", "her", "hers", "herself"])
_HE = frozenset(["he", "him", "his", "himself"])
_THEY = frozenset(["they", "them", "their", "theirs", "themselves"])
_WORD = re.compile(r"[A-Za-z]+")
LENGTHS = (0, 100, 200, 400, 800)
"""Lower edges of the bins of a question's length, in characters."""
NONE, MIXED = "none", "several"


def pronouns(question: str) -> str:
    """`she`, `he` or `they`: the pronouns of people in a text, `several` where there are two kinds, else `none`."""
    words = {word.lower() for word in _WORD.findall(question)}
    kinds = [name for name, kind in (("she", _SHE), ("he", _HE), ("they", _THEY)) if words & kind]
    return MIXED if len(kinds) > 1 else kinds[0] if kinds else NONE


def length(question: str) -> str:
    """The bin of a question's length: `100-199` characters, the last `800 and more`."""
    low = max(edge for edge in LENGTHS if edge <= len(question))
    above = [edge for edge in LENGTHS if edge > low]
    return f"{low}-{above[0] - 1}" if above else f"{low} and more"


def names(question: str, known: Mapping[str, str]) -> str:
    """The group of the names in a question, by a list of names (lower case -> group); `several`, `none`. A name begins
    with a capital: `will` is none."""
    capitals = (word.lower() for word in _WORD.findall(question) if word[0].isupper())
    groups = {known[word] for word in capitals if word in known}
    return MIXED if len(groups) > 1 else groups.pop() if groups else NONE


def groups_of(question: str, domain: str, language: str, difficulty: str, known: Mapping[str, str]) -> dict[str, str]:
    """Dimension -> the group of a problem in it."""
    english = language in ("", "en")
    return {
        "domain": domain or "unknown",
        "difficulty": difficulty,
        "length": length(question),
        "language": language or "unknown",
        "pronouns": pronouns(question) if english else "unknown",
        "names": names(question, known) if english else "unknown",
    }
