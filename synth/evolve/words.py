"""Numbers that words of a question stand for: `twenty-five`, a dozen, what a week, a foot or a dollar has.

A constant that a word explains may stand in a step. What else a word could mean is as far as it goes the other way: a
number of a step that is equal to it may be the word's, so that it is neither drawn again nor taken for a result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

_WORD = re.compile(r"[A-Za-z]+")
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = {
    word: 10 * number
    for number, word in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_EXPLAINED: Mapping[str, tuple[int, ...]] = {
    **{word: (number,) for number, word in enumerate(_COUNTS)},
    **dict.fromkeys(("twice", "double", "doubled", "doubles", "half", "halves", "halved"), (2,)),
    **dict.fromkeys(("both", "couple", "pair", "pairs", "twin", "twins"), (2,)),
    **dict.fromkeys(("thrice", "triple", "tripled", "third", "thirds", "triples"), (3,)),
    **dict.fromkeys(("quarter", "quarters", "fourth", "fourths", "quadruple", "quadrupled"), (4,)),
    **dict.fromkeys(("fifth", "fifths"), (5,)),
    **dict.fromkeys(("dozen", "dozens", "foot", "feet", "inch", "inches"), (12,)),
    **dict.fromkeys(("week", "weeks", "weekly", "daily", "day", "days"), (7,)),
    **dict.fromkeys(("hour", "hours", "minute", "minutes", "hourly", "seconds"), (60,)),
    **dict.fromkeys(("year", "years", "month", "months", "monthly", "yearly", "annual", "annually"), (12,)),
    **dict.fromkeys(("percent", "percentage", "cents", "cent"), (100,)),
}
"""Constants that a word stands for. What else it could mean (days: 24, 30, 365) is no constant of a step."""
_POSSIBLE: Mapping[str, tuple[int, ...]] = {
    **{word: (number,) for number, word in enumerate(_TEENS, 13)},
    **{word: (number,) for word, number in _TENS.items()},
    **{word: (number,) for number, word in enumerate(("sixth", "seventh", "eighth", "ninth", "tenth"), 6)},
    **dict.fromkeys(("day", "daily"), (24, 30, 31, 365)),
    **dict.fromkeys(("hour", "hourly", "minute", "second"), (24, 60)),
    **dict.fromkeys(("week", "weekly", "weekday", "workday"), (4, 5, 52)),
    **dict.fromkeys(("month", "monthly"), (4, 30, 31)),
    **dict.fromkeys(("year", "yearly", "annual", "annually"), (4, 52, 360, 365, 366)),
    **dict.fromkeys(("weekend", "eye", "leg", "wheel", "tire"), (2, 4, 6, 8)),
    **dict.fromkeys(("pound", "ounce", "gallon", "quart", "pint", "cup"), (2, 4, 8, 16)),
    **dict.fromkeys(("yard", "mile", "ton"), (3, 36, 1760, 2000, 5280)),
    **dict.fromkeys(("meter", "kilometer", "gram", "kilogram", "liter", "km", "kg"), (10, 100, 1000)),
    **dict.fromkeys(("quarter", "dime", "nickel", "dollar", "penny", "pennies"), (4, 5, 10, 20, 25, 100)),
    **dict.fromkeys(("square", "rectangle", "rectangular", "side", "cube"), (2, 4, 6, 8, 12)),
    **dict.fromkeys(("triangle", "pentagon", "hexagon", "octagon", "angle", "degree"), (3, 5, 6, 8, 90, 180, 360)),
    **dict.fromkeys(("decade", "century", "score", "fortnight", "gross"), (10, 14, 20, 100, 144)),
    **{word: (number,) for word, number in _SCALES.items()},
    **dict.fromkeys(("finger", "toe", "deck", "alphabet"), (5, 10, 20, 26, 52)),
}
"""What else a word could mean."""


def constants(question: str) -> set[Fraction]:
    """What words of a question explain."""
    return {Fraction(number) for word in _words(question) for number in _EXPLAINED.get(word, ())}


def meanings(question: str) -> set[Fraction]:
    """What else they could mean; numbers in words among them."""
    words = _words(question)
    numbers = {number for word in words for number in _POSSIBLE.get(word, ()) or _POSSIBLE.get(word.rstrip("s"), ())}
    for word, following in pairwise(words):
        if word in _TENS and following in _COUNTS[:10]:
            numbers.add(_TENS[word] + _COUNTS.index(following))
        if following in _SCALES and (count := _EXPLAINED.get(word, ()) or _POSSIBLE.get(word, ())):
            numbers.add(count[0] * _SCALES[following])
    return {Fraction(number) for number in numbers}


def _words(question: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(question)]
