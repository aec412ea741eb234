"""When to stop sampling a problem, decided by verdicts in sample order and by nothing else; and what to draw next.

Samples run side by side and their verdicts arrive in any order. Which samples count must not depend on that,
so the stop is a function of the verdicts 0..i in sample order; it is known once that prefix is complete.
Samples beyond the stop are surplus: paid for, reported, but outside ledger and digest.
A stop at the k-th success favours runs of luck: the share of successes up to it is too high by about 1/k. The pass rate
is estimated without that bias: by (k - 1) / (n - 1) where the k-th success ended it, else by k / n (Haldane 1945).
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


@dataclass(frozen=True)
class Waves:
    """How many samples of a problem are drawn before the first verdict, `first`, and in each wave after it, `then`."""

    first: int = 4
    then: int = 4

    def __post_init__(self) -> None:
        if self.first < 1 or self.then < 1:
            raise ValueError(f"Waves: first={self.first}, then={self.then}: 1 or more")


def settle(verdicts: Mapping[int, Verdict], stop: Stop) -> Settled:
    """Which of the samples judged so far count. `verdicts`: sample number -> verdict, in any order of arrival."""
    accepted = n = 0
    while n in verdicts and accepted < stop.accept and n < stop.at_most:
        accepted += verdicts[n] == "accepted"
        n += 1
    done = accepted == stop.accept or n == stop.at_most
    return Settled(counted=n, done=done, surplus=tuple(sorted(k for k in verdicts if k >= n)) if done else ())


def next_samples(verdicts: Mapping[int, Verdict], stop: Stop, waves: Waves) -> tuple[int, ...]:
    """The numbers of the samples to draw next; none where the stop is reached. Drawn so far: 0..n-1 without a gap."""
    drawn = len(verdicts)
    if drawn and settle(verdicts, stop).done:
        return ()
    return tuple(range(drawn, min(drawn + (waves.then if drawn else waves.first), stop.at_most)))


def pass_rate(verdicts: Mapping[int, Verdict], stop: Stop) -> float | None:
    """The chance that a sample of the problem is accepted, estimated from the samples that count; None: they do not
    tell. Undecided samples are left out, as if they had not been drawn."""
    counted = [verdicts[n] for n in range(settle(verdicts, stop).counted)]
    decided = sum(verdict != "undecided" for verdict in counted)
    accepted = sum(verdict == "accepted" for verdict in counted)
    if accepted == stop.accept:
        return (accepted - 1) / (decided - 1) if accepted > 1 else None
    return accepted / decided if decided else None


DIFFICULTIES = ("easy", "medium", "hard", "unsolved", "unknown")


def difficulty(accepted: int, decided: int, rate: float | None) -> str:
    """One of DIFFICULTIES: easy from a pass rate of .8 on, medium from .4, hard below; unsolved without an accepted
    sample. `rate` None (the first success ended it): by the share of successes, which errs to the easy side."""
    if not decided:
        return "unknown"
    if not accepted:
        return "unsolved"
    rate = accepted / decided if rate is None else rate
    return "easy" if rate >= 0.8 else "medium" if rate >= 0.4 else "hard"
