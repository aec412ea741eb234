"""A worked problem as a template: which of its numbers may be drawn again, so that its own steps give the new answer.

GSM8K writes each step of a solution as `<<48/2=24>>`, others write it on a line. A number of a step is an earlier
result, a number of the question, or a constant that words of the question explain (twice, a dozen, percent). A problem
is a template only if each number of each step is exactly one of these, and if its steps come to its answer: where two
readings are possible, or a number comes from nowhere, it may depend on what is drawn again, and the problem is refused.
Source: Mirzadeh et al. 2024, GSM-Symbolic (arXiv 2410.05229), whose templates are written by hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gristmill.synth.evolve.expressions import BadExpression, Expression, parsed
from gristmill.synth.evolve.words import constants, meanings

LONGEST = 4000
"""Characters of a question, and of a solution, that are still read."""
_STEP = re.compile(r"<<([^<>=\n]{1,100})=([^<>=\n]{1,40})>>")
_LINE = re.compile(r"^[ \t]*([-+*/x×÷().\d \t]{1,100})=[ \t]*([\d.,]{1,40})[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])\.\d+")
_ALWAYS = frozenset((1,))
_YEARS = range(1800, 2101)
_MEASURES = frozenset((12, 24, 30, 52, 60, 100, 360, 365, 366))
"""What a day, a month, a year, an hour or a circle has: who writes it means it."""
_LEAST = 4
"""Smaller numbers are too often something else as well: of whom the story tells, on how many days."""


class NoTemplate(Exception):
    """A problem whose numbers cannot be drawn again, and the `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Place:
    """A number of the question: where it stands, and what it is. `is_share`: percent stands behind it."""

    start: int
    end: int
    value: Fraction
    is_share: bool


@dataclass(frozen=True)
class Step:
    """A step: its expression, in which numbers are named, and its result in the problem as it was."""

    expression: Expression
    names: Mapping[int, str]
    result: Fraction


@dataclass(frozen=True)
class Template:
    """`free`: the places of the question that may be drawn again, by name; `fixed`: its other numbers."""

    question: str
    free: Mapping[str, Place]
    fixed: Sequence[Fraction]
    steps: Sequence[Step]

    def solve(self, values: Mapping[str, Fraction]) -> list[Fraction]:
        """The results of all steps. Raises ZeroDivisionError."""
        known, results = dict(values), []
        for number, step in enumerate(self.steps):
            numbers = {at: known[name] for at, name in step.names.items()}
            results.append(step.expression.value(numbers))
            known[f"r{number}"] = results[-1]
        return results


def template(question: str, solution: str, gold: str) -> Template:
    """The template of a problem with steps as GSM8K writes them, or on lines where none is so. Raises NoTemplate:
    too_long, no_steps, false_step, unreadable_step, answer_is_no_result, ambiguous, unexplained_number, nothing_free.
    """
    if max(len(question), len(solution)) > LONGEST:
        raise NoTemplate("too_long")
    marked = list(_STEP.finditer(solution))
    written = [(match[1], match[2]) for match in marked or _LINE.finditer(solution)]
    if not written:
        raise NoTemplate("no_steps")
    places = [_place(question, match) for match in _NUMBER.finditer(question)]
    mentions = Counter(place.value for place in places)
    explained = constants(question) | ({Fraction(100)} if "%" in question else set())
    possible = explained | meanings(question)
    named = {place.value: f"q{number}" for number, place in enumerate(places) if mentions[place.value] == 1}
    steps: list[Step] = []
    used: set[str] = set()
    results: dict[Fraction, str] = {}
    for number, (left, right) in enumerate(written):
        expression, result = _read(left, right)
        names = {
            at: name
            for at, value in enumerate(expression.numbers)
            if (name := _origin(value, results, named, mentions, explained)) is not None
        }
        used.update(names.values())
        steps.append(Step(expression, names, result))
        if result in results or result in mentions or result in possible:
            results[result] = ""  # whichever it is, a later step does not tell
        else:
            results[result] = f"r{number}"
    if _number(gold) != steps[-1].result:
        raise NoTemplate("answer_is_no_result")
    free = {
        name: place
        for number, place in enumerate(places)
        if (name := f"q{number}") in used and place.value not in possible and _may_vary(question, place)
    }
    if not free:
        raise NoTemplate("nothing_free")
    fixed = [place.value for number, place in enumerate(places) if f"q{number}" not in free]
    kept = [Step(step.expression, _without_fixed(step.names, free), step.result) for step in steps]
    return Template(question, free, fixed, kept)


def _without_fixed(names: Mapping[int, str], free: Mapping[str, Place]) -> dict[int, str]:
    return {at: name for at, name in names.items() if name in free or name.startswith("r")}


def _origin(
    value: Fraction,
    results: Mapping[Fraction, str],
    named: Mapping[Fraction, str],
    mentions: Mapping[Fraction, int],
    explained: set[Fraction],
) -> str | None:
    """What a number of a step is: the name of a result or of a number of the question; None: a constant."""
    if value in results:
        if not results[value]:
            raise NoTemplate("ambiguous")
        return results[value]
    if value in mentions:  # where it is mentioned twice, or is a word's constant too, it stays as it is
        return named.get(value)
    if value in explained or value in _ALWAYS:
        return None
    raise NoTemplate("unexplained_number")


def _read(left: str, right: str) -> tuple[Expression, Fraction]:
    """A step, which has to be true."""
    try:
        expression = parsed(left)
        result = _number(right)
        own = expression.value({})
    except (BadExpression, ZeroDivisionError):
        raise NoTemplate("unreadable_step") from None
    if result is None:
        raise NoTemplate("unreadable_step")
    if own != result:
        raise NoTemplate("false_step")
    return expression, result


def _place(question: str, match: re.Match[str]) -> Place:
    value = _number(match[0])
    assert value is not None
    return Place(match.start(), match.end(), value, question[match.end() :].lstrip().startswith(("%", "percent")))


def _may_vary(question: str, place: Place) -> bool:
    """Whether a number is a count or an amount: no measure, no part of a fraction, a time, a range, a decimal, a year,
    an ordinal."""
    before, behind = question[: place.start][-1:], question[place.end :][:2]
    if place.value.denominator != 1 or place.value < _LEAST or place.value in _MEASURES or place.value in _YEARS:
        return False
    if before in ("/", ":", "-", "#") or behind[:1] in ("/", ":") or behind[:1].isalpha():
        return False
    return not (behind[:1] in ("-", "–") and behind[1:].isdigit())


def _number(text: str) -> Fraction | None:
    plain = text.strip().lstrip("$").replace(",", "").rstrip(".")
    return Fraction(plain) if re.fullmatch(r"-?(?:\d{1,15}(?:\.\d{1,9})?|\.\d{1,9})", plain) else None
