"""Whether two answers are the same, decided without computer algebra where that is possible.

Tiers: equal texts; sets of numbers; numbers with their units, exactly, as percent, or as a decimal that the other one
rounds to. What is no number is left to the symbolic tier (`Unknown`). Two numbers that differ are different for good.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from gristmill.synth.verify.answers.number import Number
from gristmill.synth.verify.answers.reading import Reading, alternatives, read
from gristmill.synth.verify.answers.units import differ

Relation = Literal["same", "different", "unknown"]

ROUNDED = 4
"""Decimals from which on a decimal may stand for a number that it is rounded from."""
NOISE = 12
"""Significant digits beyond which a long decimal is noise of floating point."""


@dataclass(frozen=True)
class Comparison:
    """`how`: the tier that decided (`exact`, `numeric`), or what is wrong (`wrong_answer`, `hedged`, ...)."""

    relation: Relation
    how: str


def compare(gold: Reading, answer: Reading) -> Comparison:
    """How an answer relates to the gold answer. The order matters: who names several is judged by what the gold is."""
    if gold.name and answer.name and gold.name != answer.name and gold.number is not None:
        return Comparison("different", "wrong_answer")  # y = 2 for x = 2
    if gold.folded == answer.folded and gold.plain:
        return Comparison("same", "exact")
    if gold.digits or answer.digits:
        return _in_bases(gold, answer)
    if answer.several and not gold.several:
        decimal = _DECIMAL_COMMA.fullmatch(answer.plain)  # 3,14 is a list of 3 and 14, unless it is what was asked for
        if decimal and gold.number is not None and _is_same(gold, read(f"{decimal[1]}.{decimal[2]}{decimal[3]}")):
            return Comparison("same", "numeric")
        return Comparison("different", "hedged")
    if gold.several:
        return _sets(gold, answer)
    if gold.number is not None and answer.number is not None:
        return _numbers(gold, answer)
    if _CLOCK.fullmatch(gold.plain) and _CLOCK.fullmatch(answer.plain):
        same = gold.plain.replace(" ", "") == answer.plain.replace(" ", "")
        return Comparison("same", "exact") if same else Comparison("different", "wrong_answer")
    if gold.number is not None and any(sign in answer.plain for sign in _NO_NUMBER):
        return Comparison("different", "wrong_answer")  # computer algebra would take the number out of `> 3`
    if _is_words(gold.plain) and _is_words(answer.plain):
        return _words(gold.folded, answer.folded)
    return Comparison("unknown", "beyond_numbers")


def _sets(gold: Reading, answer: Reading) -> Comparison:
    parts = answer.several or _coordinates(answer) or (answer,)
    numbers = all(part.number is not None for part in (*gold.several, *parts))
    if not numbers:
        same = gold.key == answer.key
        return Comparison("same", "exact") if same else Comparison("unknown", "beyond_numbers")
    if not answer.several and len(parts) > 1:  # a point has an order
        same = len(parts) == len(gold.several) and all(map(_is_same, gold.several, parts))
        return Comparison("same", "numeric") if same else Comparison("different", "wrong_answer")
    left = list(parts)
    missing = []
    for part in gold.several:  # each stands for one: 2, 2, 3 is not 2, 3, 3
        same_as = next((other for other in left if _is_same(part, other)), None)
        if same_as is None:
            missing.append(part)
        else:
            left.remove(same_as)
    if not missing and not left:
        return Comparison("same", "numeric")
    return Comparison("different", "incomplete" if not left else "wrong_answer")


def _coordinates(answer: Reading) -> tuple[Reading, ...]:
    """The numbers of a point, `(1, 2)`; none: it is no point, or not one of numbers."""
    inner = answer.plain[1:-1] if answer.plain.startswith("(") and answer.plain.endswith(")") else ""
    items = tuple(map(read, alternatives(inner)))
    return items if len(items) > 1 and all(item.number is not None for item in items) else ()


def _in_bases(gold: Reading, answer: Reading) -> Comparison:
    """Numbers in another base than ten, of which the answer may leave the base to the question."""
    digits = answer.digits or (answer.plain, gold.digits[1] if gold.digits else 0)
    if gold.digits == digits:
        return Comparison("same", "exact")
    return Comparison("different", "wrong_answer")


def _is_same(gold: Reading, answer: Reading) -> bool:
    return _numbers(gold, answer).relation == "same"


def _numbers(gold: Reading, answer: Reading) -> Comparison:
    assert gold.number is not None and answer.number is not None
    if gold.unit and answer.unit and differ(gold.unit, answer.unit):
        return Comparison("different", "wrong_unit")
    if gold.unit and answer.unit and gold.unit != answer.unit:
        scale = answer.unit.size / gold.unit.size
        equal = gold.number.value == answer.number.value * scale
        return Comparison("same", "numeric") if equal else Comparison("different", "wrong_answer")
    if same_number(gold.number, answer.number):
        return Comparison("same", "numeric")
    return Comparison("different", "wrong_answer")


def same_number(gold: Number, answer: Number) -> bool:
    """Equal, as percent or without it, or one the rounding of the other."""
    if _close(gold, answer):
        return True
    if gold.percent == answer.percent:
        return False
    # 60% for 60: the sign may be left to the question. The other way about, .6 for 60, is a wrong number; and so is .6%
    # for .6, which is a share.
    if not all(abs(_without_percent(number).value) >= 1 or not number.value for number in (gold, answer)):
        return False
    return _close(_without_percent(gold), _without_percent(answer))


def _without_percent(number: Number) -> Number:
    if not number.percent:
        return number
    return Number(number.value * 100, None if number.decimals is None else number.decimals - 2)


def _close(a: Number, b: Number) -> bool:
    if a.value == b.value:
        return True
    coarse, fine = (a, b) if _places(a) <= _places(b) else (b, a)
    if coarse.decimals is None:
        return False  # both are exact, and differ
    difference = abs(coarse.value - fine.value)
    if coarse.decimals >= ROUNDED and _places(fine) > coarse.decimals and difference < Fraction(1, 10**coarse.decimals):
        return True  # rounded, or cut off
    is_long = fine.decimals is not None and fine.decimals >= NOISE
    return is_long and difference * 10**NOISE <= abs(fine.value)


def _places(number: Number) -> int:
    """Decimals of a decimal; of a fraction more than any."""
    return 1 << 30 if number.decimals is None else number.decimals


def _is_words(plain: str) -> bool:
    return bool(plain) and all(sign.isalpha() or sign in " '-" for sign in plain)


def _words(gold: str, answer: str) -> Comparison:
    """Answers in words: equal but for small words; two single words that differ are different, more may be either."""
    left, right = ([word for word in text.split() if word not in _SMALL] for text in (gold, answer))
    if left == right:
        return Comparison("same", "exact")
    if len(left) == len(right) == 1:
        return Comparison("different", "wrong_answer")
    return Comparison("unknown", "text_differs")


_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d+)((?: ?(?:%|[^\W\d_][^,\d]*))?)")
_CLOCK = re.compile(r"\d+(?: ?: ?\d+)+")
"""A time of day, or a ratio."""
_NO_NUMBER = ("<", ">", "≤", "≥", "≠", "∞", "‰", ":", r"\le", r"\ge", r"\ne", r"\lt", r"\gt", r"\infty", r"\in ")
_SMALL = frozenset(("a", "an", "the", "on", "in", "at", "is", "it"))
