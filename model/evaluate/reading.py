"""How near a written answer is to the one expected: by words, by characters, by named attributes, by several people.

Distances are Levenshtein's, by bits: as many steps as the longer text has characters, each of one number with as many
bits as the shorter has. Blanks are one and none at the ends; letters are compared as they are, but by VQA's own rules.
Source: Hyyro 2001 (the bit-parallel distance after Myers 1999); Antol et al. 2015, arXiv 1505.00468, and the official
evaluation of VQA v2 for accuracy by several answers and how these are made alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

NUMBER = "#"
"""As a value of an attribute: every run of digits."""
_WORDS = re.compile(r"\d+|[^\W\d_]+")


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest items to insert, delete or replace that make one of the other."""
    if len(a) > len(b):
        a, b = b, a
    if not a:
        return len(b)
    where: dict[str, int] = {}
    for place, item in enumerate(a):
        where[item] = where.get(item, 0) | 1 << place
    # Of the column of a table of distances: bit i says that row i + 1 is one more (`rises`) or one less (`falls`).
    everything, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    rises, falls, distance = everything, 0, len(a)
    for item in b:
        same = where.get(item, 0)
        level = (((same & rises) + rises) ^ rises) | same | falls
        up, down = falls | ~(level | rises) & everything, rises & level
        distance += bool(up & last) - bool(down & last)
        up, down = (up << 1 | 1) & everything, down << 1 & everything
        rises, falls = down | ~(level | up) & everything, up & level
    return distance


class Reading(NamedTuple):
    """Of an answer beside the one expected: how many `words` and `chars` that has, and how many edits away it is."""

    words: int
    word_errors: int
    chars: int
    char_errors: int

    @property
    def exact(self) -> bool:
        """Whether they are the same text, but for blanks."""
        return self.char_errors == 0


def reading(answer: str, expected: str) -> Reading:
    """The reading of an answer. Word accuracy is 1 - word_errors / words, OCR accuracy 1 - char_errors / chars (the
    character error rate), both at least 0."""
    given, wanted = answer.split(), expected.split()
    texts = " ".join(given), " ".join(wanted)
    return Reading(len(wanted), edits(given, wanted), len(texts[1]), edits(*texts))


class Attribute(NamedTuple):
    """How many values of a named attribute are right, of how many."""

    name: str
    right: int
    total: int


def attributes(answer: str, expected: str, values: Mapping[str, Sequence[str]]) -> list[Attribute]:
    """Of each attribute, by name its possible values (words; NUMBER: any run of digits): what the answer says of it in
    the places where the expected text says something, and of how many places. One more place than expected, or one
    less, is one that is wrong: to name all colours is no answer. Attributes of which neither speaks are left out."""
    rows = []
    for name, allowed in values.items():
        known = {value.casefold() for value in allowed}
        given, wanted = (list(_values(text, known)) for text in (answer, expected))
        if wanted:
            right = sum(a == b for a, b in zip(given, wanted, strict=False))
            rows.append(Attribute(name, right, max(len(given), len(wanted))))
    return rows


def _values(text: str, known: set[str]) -> Iterator[str]:
    for word in _WORDS.findall(text.casefold()):
        if word in known or (NUMBER in known and word.isdigit()):
            yield word


# VQA.

_PEOPLE = 3
"""Who must have given an answer for it to be right."""
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"none": "0"}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'll somebody's
someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'd've they'll they're
they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've
who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all you'd you'd've you'll you're you've
"""
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTED.split()}
_PUNCTUATION = re.compile(r"[;/\[\]\"{}()=+\\_><@`,?!]|-")
_PERIOD, _COMMA = re.compile(r"(?<!\d)\.|\.(?!\d)"), re.compile(r"(?<=\d),(?=\d)")


def plain_answer(text: str) -> str:
    """An answer as VQA's evaluation compares it: lower case, without articles, punctuation and full stops, numbers up
    to ten as digits, contractions with their apostrophes."""
    text = _COMMA.sub("", " ".join(text.split()))
    text = _PERIOD.sub("", _PUNCTUATION.sub(" ", text))
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, accepted: Sequence[str]) -> float:
    """How right an answer is, 0 to 1, by those of several people: the mean, over all ways to leave one of them out, of
    how many of the others said the same, a third each and 1 at most. Of fewer than four answers each is right: there
    the mean could not be 1. Raises ValueError for no answer."""
    if not accepted:
        raise ValueError("there is no answer to compare with")
    given = plain_answer(answer)
    same = [plain_answer(other) == given for other in accepted]
    if len(accepted) <= _PEOPLE:
        return float(any(same))
    others = (sum(same) - own for own in same)
    return sum(min(1.0, count / _PEOPLE) for count in others) / len(accepted)
