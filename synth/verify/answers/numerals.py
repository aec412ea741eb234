"""Numbers in words: `twenty-one`, `three hundred and forty-two`, `minus five eggs`, `two thirds`, `a dozen`."""

from __future__ import annotations

from fractions import Fraction

_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth"
_UNITS = {word: value for value, word in enumerate(_COUNTED.split())}
_ROUND = {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_GROUPS = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    form: value for value, word in enumerate(_ORDINALS.split(), 3) for form in (word, f"{word}s")
}
_LONGEST = 24
"""Words of a number."""


def numeral(text: str) -> tuple[Fraction, str] | None:
    """The number that a text in lower case begins with, and the words behind it; None: it begins with none, or says
    more than a number (`five or six`, `five and a half`, `twenty five hundred`)."""
    sign, words = (-1, text[1:].split()) if text.startswith("-") else (1, text.split())
    words = [part for word in words[:_LONGEST] for part in word.split("-")]
    if words[:1] == ["half"]:
        words = ["a", *words]
    if words[:1] == ["a"] and words[1:2] and words[1] in ("dozen", "hundred", *_PARTS, *_GROUPS):
        words = ["one", *words[1:]]
    value, used = _whole(words)
    if not used:
        return None
    behind = words[used:]
    if behind[:1] and behind[0] in _PARTS and (value == 1) == (not behind[0].endswith("s")):
        value, behind = value / _PARTS[behind[0]], behind[1:]
        behind = behind[behind[:1] in (["a"], ["an"]) :]  # half a cup
    elif behind[:1] == ["dozen"]:
        value, behind = value * 12, behind[1:]
    if behind[:1] and (behind[0] in ("and", "or", "to", "of", "point", *_UNITS, *_ROUND, *_GROUPS)):
        return None
    return sign * value, " ".join(behind)


def _whole(words: list[str]) -> tuple[Fraction, int]:
    """The whole number that words begin with, and how many of them it takes; 0: none."""
    total = group = used = 0
    last = 10**15  # what was said last: smaller numbers alone may follow within a group
    for at, word in enumerate(words):
        if word in _UNITS or word in _ROUND:
            value = _UNITS[word] if word in _UNITS else _ROUND[word]
            if not (last > 99 or (last in _ROUND.values() and 0 < value < 10)):
                break
            group, last = group + value, value
        elif word == "hundred" and 0 < group < 100 and last < 100:
            group, last = group * 100, 100
        elif word in _GROUPS and group and (not total or total % (_GROUPS[word] * 1000) == 0):
            total, group, last = total + group * _GROUPS[word], 0, 10**15
        elif word == "and" and used and words[at + 1 : at + 2] and (group % 100 == 0) and words[at + 1] in _SMALL:
            continue
        else:
            break
        used = at + 1
    return Fraction(total + group), used


_SMALL = frozenset((*_UNITS, *_ROUND))
