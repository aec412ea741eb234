"""The pass rate of a problem, estimated without the bias of the stop that ended its sampling.

A stop at a success favours runs of luck, and giving up favours bad luck: the share of accepted samples is wrong by as
much as a half. The first sample is drawn whatever the stop, so whether it was accepted is an estimate without bias, but
a poor one. Its mean, given all that the samples tell apart from their order, is the best that follows from it: of all
orders in which these samples could have come with the stop where it was, the share that begins with an accepted one.
Without giving up that is (k - 1) / (n - 1) where the last success ended it, else k / n (Haldane 1945).
Source: Girshick, Mosteller and Savage 1946; Rao-Blackwell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from math import comb

from gristmill.synth.sampling import Judged, Stop, settle

_MOST_CHAINS = 12
"""Distinct chains up to which orders are counted: beyond it that takes long."""


def pass_rate(samples: Mapping[int, Judged], stop: Stop) -> float | None:
    """The chance that a sample of the problem is accepted, estimated from the samples that count; None: they do not
    tell. Undecided samples are left out, as if they had not been drawn."""
    settled = settle(samples, stop)
    counted = [samples[n] for n in range(settled.counted)]
    decided = [sample.chain for sample in counted if sample.verdict != "undecided"]
    if not decided or (settled.end == "enough" and stop.accept == 1):
        return None
    repeats = sorted(Counter(chain for chain in decided if chain is not None).values())
    if len(repeats) > _MOST_CHAINS:  # no stop comes before these samples
        pilot = decided[: min(stop.accept, stop.patience)]
        return sum(chain is not None for chain in pilot) / len(pilot)
    dry = {"enough": (0,), "given_up": (stop.patience,)}.get(settled.end or "", range(stop.patience + 1))
    rejected = len(decided) - sum(repeats)
    begin_right, orders = _orders(tuple(repeats), rejected, stop.patience, tuple(dry))
    return begin_right / orders


def _orders(repeats: tuple[int, ...], rejected: int, patience: int, dry: tuple[int, ...]) -> tuple[int, int]:
    """In how many orders samples can have come, of which the first is accepted in how many, and in how many in all.

    `repeats`: how often each chain was found. The first of each is new; between the new ones are gaps of fewer samples
    than `patience`, and after the last there are as many as `dry` says. The orders are counted from the end: the
    samples in the gaps behind a new chain are `free` until it is said which of them repeat it; what is left in the end
    was rejected.
    """

    @cache
    def count(left: tuple[int, ...], free: int) -> tuple[int, int]:
        """(beginning with an accepted one, all), where the chains `left` come before `free` samples."""
        if not left:
            return 0, int(free == rejected)  # nothing was accepted before a gap: `before` knows gaps of none
        begin_right = orders = 0
        for place, times in enumerate(left):
            ways = comb(free, times - 1)
            if not ways or times in left[:place]:  # chains that were found as often are counted together
                continue
            ways *= left.count(times)
            others = left[:place] + left[place + 1 :]
            for gap in range(patience):
                right, of = count(others, free - times + 1 + gap)
                begin_right += ways * (right if others or gap else of)
                orders += ways * of
        return begin_right, orders

    counts = [count(repeats, tail) for tail in dry]
    return sum(right for right, _ in counts), sum(of for _, of in counts)
