"""The verifier of steps: every equation between numbers in a chain has to hold; the first that does not is named.

A right answer can be reached by a false step: at the base model of a small study 20% of right chains had one. Rounding
is allowed as it is written: `10 / 3 = 3.33` holds, `10 / 3 = 3.4` does not. What cannot be read is not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from gristmill.synth.verify.answers.number import Number
from gristmill.synth.verify.steps.equations import Equation, equations
from gristmill.synth.verify.verdict import Named, Problem, Verdict

STEPS = Named("steps", 1)
_NOISE = Fraction(1, 10**9)


@dataclass(frozen=True)
class StepCheck:
    """`equations`: how many were checked, up to the first false one. `false`: that one."""

    equations: int
    false: Equation | None


@dataclass(frozen=True)
class Steps:
    """`at_least`: equations that a chain has to show; with fewer, and none false, it is undecided."""

    at_least: int = 0

    @property
    def id(self) -> str:
        """`steps@1`."""
        return STEPS.id

    def verify(self, problem: Problem, chain: str) -> Verdict:
        """Accepted: no equation of the chain is false. The evidence is the first false step."""
        check = check_steps(chain)
        if check.false is not None:
            return STEPS.reject("false_step", check.false.text)
        if check.equations < self.at_least:
            return STEPS.undecided("too_few_equations", f"{check.equations} of {self.at_least}")
        return STEPS.accept(f"{check.equations} equations")


def check_steps(chain: str) -> StepCheck:
    """Checks the equations of a chain in order, up to the first that is false."""
    count = 0
    for equation in equations(chain):
        count += 1
        if not holds(equation):
            return StepCheck(count, equation)
    return StepCheck(count, None)


def holds(equation: Equation) -> bool:
    """Whether a reading of the left side equals a reading of the right side, as it is rounded."""
    return any(_equal(left, right) for left in equation.left for right in equation.right)


def _equal(left: Number, right: Number) -> bool:
    difference = abs(left.value - right.value)
    if difference <= _NOISE * max(Fraction(1), abs(left.value)):
        return True
    for rounded, exact in ((left, right), (right, left)):
        if rounded.decimals:  # a whole number is not taken for a rounded one
            place = Fraction(1, 10**rounded.decimals)
            is_cut = difference < place and abs(rounded.value) < abs(exact.value)
            if is_cut or difference * 2 <= place:
                return True
    return False
