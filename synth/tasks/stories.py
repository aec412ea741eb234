"""Short word problems that a model of a million parameters can learn in minutes. Notable choices:

- a problem is a chain: a stock of things, and two to four events that add to it, take from it or multiply it;
- the numbers stay below 100, the words are few, and every step of the answer goes on from the one before;
- the answer is computed while the story is told: one step `a+b=c` a line, at last `#### N`;
- what is held out are pairs of numbers: two that follow each other in a held-out problem never do in another one,
  whatever the seed and how many there are. Sentences are so short that 13 words in a row always hold two whole events:
  no such run is in both, which is what a search for contamination looks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from gristmill.synth.draw import Draw
from gristmill.synth.tasks.instructions import Row

LARGEST = 99
"""Of all numbers in a problem; the smallest is 1."""

_SHE = ("Ana", "Eva", "Mia", "Zoe", "Rosa", "Ines")
_HE = ("Ben", "Leo", "Sam", "Tom", "Ravi", "Omar")
_THINGS = ("apples", "books", "buttons", "cards", "coins", "eggs", "pens", "shells", "stamps", "stones")
_EVENTS = {
    "+": ("{who} buys {n} more.", "{who} finds {n} more.", "{who} gets {n} more.", "{who} wins {n}."),
    "-": ("{who} gives away {n}.", "{who} loses {n}.", "{who} sells {n}.", "{who} lends out {n}."),
    "*2": ("The number doubles.",),
    "*3": ("The number triples.",),
}
_SIGNS = "++--*"
_OPERANDS = {"+": (2, 9), "-": (2, 9), "*": (2, 3)}


class Step(NamedTuple):
    """One calculation, `before sign operand = after`."""

    before: int
    sign: str
    operand: int
    after: int

    def __str__(self) -> str:
        return f"{self.before}{self.sign}{self.operand}={self.after}"


def story(draw: Draw, *, held_out: bool = False) -> Row:
    """A problem, `question` and `answer`; of those held out, or of the others."""
    count = draw.between(2, 4)
    steps = chain(draw, count)
    while any(is_held_out(a.operand, b.operand) != held_out for a, b in pairwise(steps)):
        steps = chain(draw, count)
    question = " ".join([*sentences(draw, steps), "How many now?"])
    answer = "\n".join([*map(str, steps), f"#### {steps[-1].after}"])
    return Row(f"story_{count}_steps", {"question": question, "answer": answer})


def sentences(draw: Draw, steps: Sequence[Step]) -> list[str]:
    """The sentences that tell these steps."""
    she = draw.chance(0.5)
    name, things, who = draw.pick(_SHE if she else _HE), draw.pick(_THINGS), "She" if she else "He"
    lines = [f"{name} has {steps[0].before} {things}."]
    for step in steps:
        event = draw.pick(_EVENTS[f"*{step.operand}" if step.sign == "*" else step.sign])
        lines.append(event.format(who=who, n=step.operand))
    return lines


def chain(draw: Draw, count: int) -> list[Step]:
    """So many steps, each from the result of the one before, whose results are 1 to LARGEST."""
    steps: list[Step] = []
    value = draw.between(2, 40)
    while len(steps) < count:
        sign = draw.pick(_SIGNS)
        operand = draw.between(*_OPERANDS[sign])
        after = {"+": value + operand, "-": value - operand, "*": value * operand}[sign]
        if 1 <= after <= LARGEST:
            steps.append(Step(value, sign, operand, after))
            value = after
    return steps


def is_held_out(first: int, second: int) -> bool:
    """Whether these two numbers, of events one after the other, belong to held-out problems alone: 13 of 64 pairs, at
    least one for every number, so that chains of any length can be made of them."""
    return (2 * first + second) % 5 == 0
