"""When to stop sampling a problem, decided by verdicts in sample order and by nothing else; and what to draw next.

What is wanted of a problem are distinct right chains, as selection counts them: a sampler that finds one again brings
nothing. So a problem is done at its `accept`-th distinct one, or given up when so many samples in a row brought nothing
new that another chain is unlikely, or at `at_most`. Which samples count must not depend on the order in which verdicts
arrive: the stop is a function of the samples 0..i, known once that prefix is complete. What was drawn beyond it is
surplus: paid for, reported, but outside ledger and digest. The pass rate is estimated without the bias of the stop
(`synth.pass_rate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log
from typing import Literal, NamedTuple

from gristmill.synth.selection import same_chain

Verdict = Literal["accepted", "rejected", "undecided"]
End = Literal["enough", "given_up", "at_most"]
"""Why a problem is sampled no more."""


class Judged(NamedTuple):
    """A sample's verdict and, of an accepted one, its `chain` as selection compares chains."""

    verdict: Verdict
    chain: str | None = None

    @classmethod
    def of(cls, verdict: Verdict, text: str | None) -> Judged:
        """Of a sample with this text."""
        return cls(verdict, same_chain(text or "") if verdict == "accepted" else None)


@dataclass(frozen=True)
class Stop:
    """Stop at the `accept`-th distinct accepted chain, at the latest after `at_most` samples.

    Before that a problem is given up once `patience` samples in a row brought no new chain. If the chance that a sample
    brings one is `least_chance` or more, that many fail with a probability of at most 1 - `confidence`: so often, at
    most, a problem worth sampling is given up after each of its chains. `least_chance` 0: none is given up.
    """

    accept: int = 4
    at_most: int = 64
    least_chance: float = 0.1
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if not 1 <= self.accept <= self.at_most:
            raise ValueError(f"Stop: 1 <= accept <= at_most, not accept={self.accept}, at_most={self.at_most}")
        if not (0 <= self.least_chance < 1 and 0 < self.confidence < 1):
            raise ValueError(
                f"Stop: least_chance={self.least_chance}, confidence={self.confidence}: between 0 and 1, the chance 0"
                " where no problem is to be given up"
            )

    @property
    def patience(self) -> int:
        """The least s with (1 - least_chance)^s <= 1 - confidence, `at_most` if that is less: it ends a problem too."""
        if not self.least_chance:
            return self.at_most
        return min(self.at_most, ceil(log(1 - self.confidence) / log(1 - self.least_chance) - 1e-9))


@dataclass(frozen=True)
class Settled:
    """`counted` samples are 0..n-1, with `distinct` accepted chains, the last `dry` of them (undecided ones apart)
    without a new one. `end`: why it stopped; None: another sample is wanted."""

    counted: int
    distinct: int
    dry: int
    end: End | None
    surplus: tuple[int, ...]

    @property
    def done(self) -> bool:
        """The stop is reached: no further verdict can change what counts."""
        return self.end is not None


@dataclass(frozen=True)
class Waves:
    """How many samples of a problem are drawn at most before the first verdict, `first`, and in each wave after it,
    `then`."""

    first: int = 4
    then: int = 8

    def __post_init__(self) -> None:
        if self.first < 1 or self.then < 1:
            raise ValueError(f"Waves: first={self.first}, then={self.then}: 1 or more")


def settle(samples: Mapping[int, Judged], stop: Stop) -> Settled:
    """Which of the samples judged so far count. `samples`: by number, in any order of arrival."""
    chains: set[str] = set()
    n = dry = 0
    end: End | None = None
    while end is None and n in samples:
        verdict, chain = samples[n]
        n += 1
        if chain is not None and chain not in chains:
            chains.add(chain)
            dry = 0
        else:
            dry += verdict != "undecided"
        end = _end(len(chains), dry, n, stop)
    surplus = tuple(sorted(k for k in samples if k >= n)) if end is not None else ()
    return Settled(n, len(chains), dry, end, surplus)


def _end(distinct: int, dry: int, counted: int, stop: Stop) -> End | None:
    if distinct == stop.accept:
        return "enough"
    if counted == stop.at_most:
        return "at_most"
    return "given_up" if dry == stop.patience else None


def next_samples(samples: Mapping[int, Judged], stop: Stop, waves: Waves) -> tuple[int, ...]:
    """The numbers of the samples to draw next; none where the stop is reached. Drawn so far: 0..n-1 without a gap.

    No wave is larger than what has to be drawn before the problem can be given up. Fewer samples than chains are
    missing cannot be enough, and the first wave has no more. Of a problem whose chains are rare it is half as many as
    bring what is missing on average, so that there are few waves and little surplus.
    """
    drawn = len(samples)
    if not drawn:
        return tuple(range(min(waves.first, stop.accept)))
    settled = settle(samples, stop)
    if settled.done:
        return ()
    missing = stop.accept - settled.distinct
    likely = missing * (drawn + 1) // (2 * (settled.distinct + 1))
    size = min(max(missing, likely), waves.then, stop.patience - settled.dry, stop.at_most - drawn)
    return tuple(range(drawn, drawn + size))


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
