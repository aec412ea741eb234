"""The learning rate's law, fitted: B of peak LR = B * D^-0.32 from small runs of a few sizes D and a few rates each.

For every D the best rate is the minimum of a parabola in log LR through the losses around the lowest one; B follows by
least squares of log best rate against log D with the slope fixed, which is a mean. The slope that the sizes themselves
would choose stands beside it, with its standard error. A minimum at the edge of the rates tried is refused.
Source: arXiv 2503.01743, section 3.1 (the law); arXiv 2409.19913, section 4 (the exponent, and a fit of this kind).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gristmill.model.train.schedule import PeakLaw

SIZES, RATES = 2, 3
"""What a fit needs at least: sizes D, and rates at each of them."""
NEAR = 5
"""Rates around the best one that the parabola goes through, at most: farther away a loss is no parabola in log LR."""
SAME_SIZE = 1.05
"""Runs whose tokens differ by less than this factor are of one size: windows differ in their tokens."""
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5%, for 1 to 10 degrees of freedom; for more of them 10's, which is wider, is taken."""


class CannotFit(ValueError):
    """The runs do not determine the law; the message has a line for each reason, and says what to add."""


@dataclass(frozen=True)
class Trial:
    """A run that was trained to its end. `name`: of its version; `tokens`: that it learned from, the law's D; `lr`: its
    peak; `loss`: a target's mean, of whatever kind is the same for all."""

    name: str
    tokens: int
    lr: float
    loss: float


@dataclass(frozen=True)
class BestRate:
    """The best rate of a size. `tokens`: the mean of its runs; `rates`, `losses`: what was tried, by rising rate, runs
    of one rate averaged; `lr`, `loss`: at the parabola's minimum."""

    tokens: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    lr: float
    loss: float


@dataclass(frozen=True)
class LawFit:
    """What a fit came to. `scatter`: standard deviation of log best rate about the law. `free_exponent` is what the
    sizes alone would choose, `free_error` its standard error: None of two sizes, which leave none."""

    law: PeakLaw
    scatter: float
    free_exponent: float
    free_error: float | None
    sizes: tuple[BestRate, ...]

    def predicted(self, tokens: int) -> tuple[float, float, float]:
        """(lowest, law, highest) peak LR for so many tokens; a further size's best rate lies between the two in 95 of
        100 cases, if it scatters about the law as these do."""
        n = len(self.sizes)
        t = _T975[min(n - 1, len(_T975)) - 1]
        factor = math.exp(t * self.scatter * math.sqrt(1 + 1 / n))
        lr = self.law.peak(tokens)
        return lr / factor, lr, lr * factor


def fit(trials: Sequence[Trial], exponent: float = -0.32) -> LawFit:
    """The law from runs of at least SIZES sizes with RATES rates each.

    Raises CannotFit with every reason at once: too few sizes or rates, a lowest loss at the edge of the rates, losses
    that have no minimum, a number that cannot be.
    """
    refused = [reason for trial in trials if (reason := _impossible(trial))]
    if refused:
        raise CannotFit("\n".join(refused))
    groups = _by_size(trials)
    sizes: list[BestRate] = []
    for group in groups:
        try:
            sizes.append(_best_rate(group))
        except CannotFit as reason:
            refused.append(str(reason))
    if len(groups) < SIZES:
        listed = ", ".join(f"D={_mean_tokens(group):,.0f}" for group in groups) or "no run"
        refused.append(f"{listed}: runs of at least {SIZES} sizes are needed, best a factor of 3 or more apart")
    if refused:
        raise CannotFit("\n".join(refused))
    return _law_through(tuple(sizes), exponent)


def _law_through(sizes: tuple[BestRate, ...], exponent: float) -> LawFit:
    log_tokens = np.log([size.tokens for size in sizes])
    log_rates = np.log([size.lr for size in sizes])
    n = len(sizes)
    # With the slope fixed, the least squares of log LR = log B + slope * log D are the mean of the differences.
    log_bs = log_rates - exponent * log_tokens
    spread = log_tokens - log_tokens.mean()
    slope = float(spread @ log_rates / (spread @ spread))
    error = None
    if n > 2:
        residuals = log_rates - log_rates.mean() - slope * spread
        error = math.sqrt(float(residuals @ residuals) / (n - 2) / float(spread @ spread))
    return LawFit(PeakLaw(math.exp(float(log_bs.mean())), exponent), float(log_bs.std(ddof=1)), slope, error, sizes)


def _by_size(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Runs of one size together, by rising size."""
    groups: list[list[Trial]] = []
    for trial in sorted(trials, key=lambda trial: trial.tokens):
        if groups and trial.tokens < groups[-1][0].tokens * SAME_SIZE:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def _best_rate(trials: Sequence[Trial]) -> BestRate:
    """Of one size. Raises CannotFit."""
    losses_of: dict[float, list[float]] = defaultdict(list)
    for trial in trials:
        losses_of[trial.lr].append(trial.loss)
    rates = sorted(losses_of)
    losses = [math.fsum(losses_of[rate]) / len(losses_of[rate]) for rate in rates]
    place = f"D={_mean_tokens(trials):,.0f}"
    if len(rates) < RATES:
        tried = ", ".join(f"{rate:.3g}" for rate in rates)
        raise CannotFit(f"{place}: only {_counted(len(rates), 'rate')} tried ({tried}); {RATES} or more are needed")
    lowest = losses.index(min(losses))
    if lowest in (0, len(rates) - 1):
        raise CannotFit(_at_the_edge(place, rates, lowest))
    near = _nearest(rates, lowest)
    x = np.log([rates[i] for i in near])
    center = float(x.mean())  # parabolas are fitted around it, or the powers of nearly equal numbers cancel
    a, b, c = (float(value) for value in np.polyfit(x - center, [losses[i] for i in near], 2))
    best = center - b / (2 * a) if a > 0 else math.nan
    if not math.log(rates[0]) < best < math.log(rates[-1]):
        tried = ", ".join(f"{rate:.3g} ({loss:.4f})" for rate, loss in zip(rates, losses, strict=True))
        raise CannotFit(
            f"{place}: of the rates tried, with their losses {tried}, a parabola finds no minimum: they are too noisy"
            " or too close together. Add other seeds of the same rates, or rates a factor of 2 apart"
        )
    return BestRate(_mean_tokens(trials), tuple(rates), tuple(losses), math.exp(best), c - b * b / (4 * a))


def _nearest(rates: Sequence[float], lowest: int) -> list[int]:
    """Indices of up to NEAR rates around the lowest loss, one at least on either side."""
    by_distance = sorted(range(len(rates)), key=lambda i: abs(math.log(rates[i] / rates[lowest])))
    chosen = {lowest - 1, lowest, lowest + 1}
    for i in by_distance:
        if len(chosen) < NEAR:
            chosen.add(i)
    return sorted(chosen)


def _at_the_edge(place: str, rates: Sequence[float], lowest: int) -> str:
    """What to add where the lowest loss is that of the smallest or largest rate: the next in their steps."""
    step = max(math.sqrt(2), math.exp(max(abs(math.log(b / a)) for a, b in pairwise(rates))))
    at, end = rates[lowest], "smallest" if lowest == 0 else "largest"
    wanted = at / step if lowest == 0 else at * step
    return (
        f"{place}: the lowest loss is at the {end} rate tried, {at:.3g}, so the best one may lie beyond;"
        f" add a run of this size with a peak LR of {wanted:.3g}"
    )


def _impossible(trial: Trial) -> str | None:
    """Why a run says nothing."""
    if not math.isfinite(trial.loss):
        return f"{trial.name}: its loss is {trial.loss}; leave it out"
    if not (trial.lr > 0 and math.isfinite(trial.lr)) or trial.tokens < 1:
        return f"{trial.name}: its peak LR is {trial.lr} and its tokens {trial.tokens}; both are above 0"
    return None


def _mean_tokens(trials: Sequence[Trial]) -> float:
    return math.fsum(trial.tokens for trial in trials) / len(trials)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
