"""Variants of a template: other numbers, with which the story still makes sense, and the answer that they have.

Sense is what can be seen of the numbers: what was whole stays whole, what was positive stays positive, of two numbers
of the question the larger stays the larger, shares stay below 100%, nothing grows or shrinks much. A draw that breaks
one of these is thrown away. The solution is written anew from the steps, since its prose speaks of the old numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise

from gristmill.synth.draw import Draw
from gristmill.synth.evolve.expressions import plain
from gristmill.synth.evolve.template import Place, Template

TRIES = 300
"""Draws for each variant that is asked for."""
_FURTHEST = 20
"""How many times as large as it was a result may be."""


def variants(origin: Template, count: int, seed: int) -> Iterator[dict[str, str]]:
    """Up to `count` rows with `question`, `answer` (steps and `#### N`) and `source`, which names the origin."""
    name = origin_of(origin.question)
    draw = Draw("variants", seed, origin.question)
    seen = {tuple(place.value for place in origin.free.values())}
    for _ in range(TRIES * count):
        if len(seen) > count:
            return
        values = {key: _drawn(draw, place) for key, place in origin.free.items()}
        if tuple(values.values()) in seen or not _in_order(origin, values):
            continue
        try:
            results = origin.solve(values)
        except ZeroDivisionError:
            continue
        if all(_fits(step.result, result) for step, result in zip(origin.steps, results, strict=True)):
            seen.add(tuple(values.values()))
            yield _row(origin, values, results, f"evolved:{name}:{len(seen) - 1}")


def origin_of(question: str) -> str:
    """How variants name the problem that they come from: 16 hexadecimal digits."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def _drawn(draw: Draw, place: Place) -> Fraction:
    """Another number of about the same size; of tens, tens, and so on."""
    old = int(place.value)
    unit = 1
    while old % (unit * 10) == 0 and old // (unit * 10) >= 2:
        unit *= 10
    if unit == 1 and old % 5 == 0 and old >= 15:
        unit = 5
    low, high = max(2, -(-old // (2 * unit))), max(3, 2 * old // unit)
    if place.is_share:
        high = min(high, max(low, 95 // unit))
    return Fraction(draw.between(low, high) * unit)


def _in_order(origin: Template, values: Mapping[str, Fraction]) -> bool:
    """Whether of any two numbers of the question the larger is still the larger."""
    pairs = [(place.value, values[key]) for key, place in origin.free.items()]
    pairs += [(value, value) for value in origin.fixed]
    pairs.sort()  # by what they were: of numbers that were equal none is free
    return all(new < following for (old, new), (behind, following) in pairwise(pairs) if old != behind)


def _fits(old: Fraction, new: Fraction) -> bool:
    """Whether a result is of the kind that it was."""
    if (old > 0) != (new > 0) or (old.denominator == 1) != (new.denominator == 1):
        return False
    if abs(new) > _FURTHEST * abs(old) or abs(old) > _FURTHEST * abs(new):
        return False
    return _decimals(new) <= max(2, _decimals(old)) if new.denominator > 1 else True


def _decimals(value: Fraction) -> int:
    """Decimal places of a number; 99 of one that has no end."""
    for places in range(7):
        if (value * 10**places).denominator == 1:
            return places
    return 99


def _row(origin: Template, values: Mapping[str, Fraction], results: list[Fraction], source: str) -> dict[str, str]:
    question, at = "", 0
    for key, place in sorted(origin.free.items(), key=lambda item: item[1].start):
        has_commas = "," in origin.question[place.start : place.end]
        number = f"{int(values[key]):,}" if has_commas else plain(values[key])
        question += origin.question[at : place.start] + number
        at = place.end
    question += origin.question[at:]
    known = dict(values) | {f"r{number}": result for number, result in enumerate(results)}
    lines = [
        f"{step.expression.written({at: known[name] for at, name in step.names.items()})} = {plain(result)}"
        for step, result in zip(origin.steps, results, strict=True)
    ]
    return {"question": question, "answer": "\n".join([*lines, f"#### {plain(results[-1])}"]), "source": source}
