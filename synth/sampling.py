"""When to stop sampling a problem, decided by verdicts in sample order and by nothing else.

Samples run side by side and their verdicts arrive in any order. Which samples count must not depend on that,
so the stop is a function of the verdicts 0..i in sample order; it is known once that prefix is complete.
Samples beyond the stop are surplus: paid for, reported, but outside ledger and digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["accepted", "rejected", "undecided"]


@dataclass(frozen=True)
class Stop:
    """Stop at the `accept`-th accepted sample, at the latest after `at_most` samples."""

    accept: int = 4
    at_most: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.accept <= self.at_most:
            raise ValueError(f"Stop: 1 <= accept <= at_most, not accept={self.accept}, at_most={self.at_most}")


@dataclass(frozen=True)
class Settled:
    """`counted` samples are 0..n-1. `done`: the stop is reached, no further verdict can change `counted`."""

    counted: int
    done: bool
    surplus: tuple[int, ...]


def settle(verdicts: Mapping[int, Verdict], stop: Stop) -> Settled:
    """Which of the samples judged so far count. `verdicts`: sample number -> verdict, in any order of arrival."""
    accepted = n = 0
    while n in verdicts and accepted < stop.accept and n < stop.at_most:
        accepted += verdicts[n] == "accepted"
        n += 1
    done = accepted == stop.accept or n == stop.at_most
    return Settled(counted=n, done=done, surplus=tuple(sorted(k for k in verdicts if k >= n)) if done else ())
