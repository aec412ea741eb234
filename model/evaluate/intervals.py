"""What a score is worth: bootstrap intervals, the difference of two models on the same items, McNemar's exact test.

A score is a ratio of sums over items (right answers to answers, nats to tokens), so one resampling serves them all:
items are drawn with replacement, sums taken, ratios formed. Vectorised, a bounded part at a time; the same seed gives
the same interval on every machine.
Source: Efron 1979 (percentile bootstrap); McNemar 1947, in its exact form by the binomial distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_AT_A_TIME = 1 << 22
"""Draws that exist at a time, of a score with two columns."""

Ratio = Callable[[np.ndarray], np.ndarray]
"""Scores of sums: float64 [..., columns] -> [...]."""


@dataclass(frozen=True)
class Bootstrap:
    """`resamples` drawn by `seed`; an interval holds the share `level` of them."""

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if not 100 <= self.resamples <= 1_000_000:
            raise ValueError(f"resamples={self.resamples}: allowed are 100 to 1,000,000")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: 0 or more")
        if not 0 < self.level < 1:
            raise ValueError(f"level={self.level}: allowed is between 0 and 1")

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sums of each resample, float64 [resamples, columns]. `columns`: float64 [items, columns], at least one."""
        items = len(columns)
        rng = np.random.default_rng(self.seed)
        at_a_time = max(1, _AT_A_TIME * 2 // columns.size)
        parts = []
        for first in range(0, self.resamples, at_a_time):
            draws = rng.integers(0, items, (min(at_a_time, self.resamples - first), items))
            parts.append(columns[draws].sum(axis=1))
        return np.concatenate(parts)

    def interval(self, columns: np.ndarray, ratio: Ratio) -> tuple[float, float]:
        """The bounds of a score of items."""
        return self._bounds(ratio(self.sums(columns)))

    def difference(self, before: np.ndarray, after: np.ndarray, ratio: Ratio) -> tuple[float, float]:
        """The bounds of how much greater the score of `after` is, each resample drawing the same items of both."""
        sums = self.sums(np.concatenate([before, after], axis=1))
        width = before.shape[1]
        return self._bounds(ratio(sums[:, width:]) - ratio(sums[:, :width]))

    def _bounds(self, scores: np.ndarray) -> tuple[float, float]:
        tail = (1 - self.level) / 2
        # A resample of items that have nothing below the line (of no bytes, say) has no score.
        low, high = np.nanquantile(scores, [tail, 1 - tail])
        return float(low), float(high)


def mcnemar(only_before: int, only_after: int) -> float:
    """The two-sided p-value of so many items being right only before, and only after: as unequal or more, by chance."""
    changed = only_before + only_after
    ways = total = 1  # of drawing 0 of `changed`; then up to the smaller number
    for k in range(min(only_before, only_after)):
        ways = ways * (changed - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**changed)
