"""Preference pairs of a problem's chains: which accepted one stands against which rejected one, and where they part.

The most is learned where two chains have most in common: so the pair with the longest common beginning is taken, in
steps. A chain that was cut off, or says no answer, is no rejected side: it would teach to be short, not to be right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_STEP = re.compile(r"\n+|(?<=[.!?]) +(?=[A-Z0-9])| ; ")


class Chain(NamedTuple):
    """A sample that counts: its number, and its text."""

    sample: int
    text: str


@dataclass(frozen=True)
class Pair:
    """`step`: the first step, from 0, in which the two differ; `steps`: of the chosen one."""

    chosen: Chain
    rejected: Chain
    step: int
    steps: int


def steps_of(text: str) -> list[str]:
    """The steps of a chain: lines, sentences, or what stands between semicolons; without spaces at their ends."""
    return [step.strip() for step in _STEP.split(text) if step.strip()]


def first_divergence(a: Sequence[str], b: Sequence[str]) -> int:
    """The first place at which two lists of steps differ; where one begins the other, the length of the shorter."""
    for place, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return place
    return min(len(a), len(b))


def best_pair(accepted: Sequence[Chain], rejected: Sequence[Chain]) -> Pair | None:
    """The pair that parts last; of equal ones, that of the lowest numbers. None: one side is empty."""
    best: Pair | None = None
    wrong = [(chain, steps_of(chain.text)) for chain in sorted(rejected)]
    for chosen in sorted(accepted):
        steps = steps_of(chosen.text)
        for other, other_steps in wrong:
            step = first_divergence(steps, other_steps)
            if best is None or step > best.step:
                best = Pair(chosen, other, step, len(steps))
    return best
