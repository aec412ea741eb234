"""How well a score tells the positives among items from the negatives: area under the ROC curve, precision and recall.

The area is the share of pairs, a positive and a negative, in which the positive scores higher; a tie is half a pair.
Within strata only pairs of one stratum are counted, so that a score that follows what the strata are cut by (length)
gains nothing from it. Intervals are of items drawn with replacement; of two scores the same items are drawn, which is
what a difference has to be judged by.
Source: Hanley and McNeil 1982 (the area as a share of pairs); Efron 1979 (percentile bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gristmill.model.evaluate.intervals import Bootstrap

QUINTILES = 5


class Estimate(NamedTuple):
    """A value, and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AtThreshold:
    """What is taken for positive from a score of `threshold` on: `taken`, a share of all items, and its precision and
    recall. `precision` is None where nothing is taken."""

    threshold: float
    taken: float
    precision: Estimate | None
    recall: Estimate


@dataclass(frozen=True)
class Ranking:
    """Of a score on items: `auc`, and `auc_within_length`, of pairs of one length quintile; the same of the text's
    length alone; how much more the score has; precision and recall. None where no pair is of one quintile."""

    positives: int
    negatives: int
    auc: Estimate
    auc_of_length: Estimate
    auc_over_length: Estimate
    auc_within_length: Estimate | None
    auc_over_length_within: Estimate | None
    thresholds: tuple[AtThreshold, ...]


def ranking(
    labels: Sequence[bool] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    lengths: Sequence[int] | np.ndarray,
    bootstrap: Bootstrap | None = None,
    thresholds: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
) -> Ranking:
    """Of items with `labels` (whether positive), `scores` and `lengths`. Raises ValueError unless there are both kinds,
    and for a score that is no number."""
    how = bootstrap or Bootstrap()
    positive, score = np.asarray(labels, bool), np.asarray(scores, np.float64)
    length = np.asarray(lengths, np.float64)
    if np.isnan(score).any():
        raise ValueError(f"{int(np.isnan(score).sum())} of {len(score)} items have no score: leave them out")
    if positive.all() or not positive.any():
        raise ValueError(f"{int(positive.sum())} of {len(positive)} items are positive: both kinds are needed")
    whole = np.zeros(len(positive), np.int64)
    quintile = strata(length)
    auc, of_length, over = _compared(positive, score, length, whole, how)
    within = _compared(positive, score, length, quintile, how) if _has_pairs(positive, quintile) else None
    return Ranking(
        positives=int(positive.sum()),
        negatives=int((~positive).sum()),
        auc=auc,
        auc_of_length=of_length,
        auc_over_length=over,
        auc_within_length=None if within is None else within[0],
        auc_over_length_within=None if within is None else within[2],
        thresholds=tuple(_at(positive, score, threshold, how) for threshold in thresholds),
    )


def strata(values: np.ndarray, count: int = QUINTILES) -> np.ndarray:
    """The quantile group of each value, int64 from 0: equal values are in one group."""
    edges = np.quantile(values, np.arange(1, count) / count) if len(values) else []
    return np.searchsorted(edges, values, side="left")


def area(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None) -> float:
    """The area under the ROC curve: `labels` bool, `scores` float64; with `groups` of pairs of one group. NaN without
    a pair."""
    order = _Order.of(labels, scores, np.zeros(len(labels), np.int64) if groups is None else groups)
    return order.area(np.ones(len(labels)))


class _Order(NamedTuple):
    """Items by group and score, sorted once: an area of resampled items is then sums over runs of equal scores."""

    order: np.ndarray
    positive: np.ndarray
    runs: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> _Order:
        """`groups`: int64 from 0."""
        order = np.lexsort((scores, groups))
        score, group = scores[order], groups[order]
        starts = np.flatnonzero(np.concatenate([[True], (score[1:] != score[:-1]) | (group[1:] != group[:-1])]))
        return cls(order, labels[order].astype(np.float64), starts, group[starts])

    def area(self, weights: np.ndarray) -> float:
        """The area with so much of each item, float64 [items]."""
        weight = weights[self.order]
        ups = np.add.reduceat(weight * self.positive, self.runs)
        downs = np.add.reduceat(weight * (1 - self.positive), self.runs)
        most = int(self.groups[-1]) + 1
        positives = np.bincount(self.groups, ups, most)
        negatives = np.bincount(self.groups, downs, most)
        before = np.cumsum(downs) - downs - (np.cumsum(negatives) - negatives)[self.groups]
        pairs = float(positives @ negatives)
        return float(ups @ (before + downs / 2)) / pairs if pairs else float("nan")


def _compared(
    labels: np.ndarray, score: np.ndarray, length: np.ndarray, groups: np.ndarray, how: Bootstrap
) -> tuple[Estimate, Estimate, Estimate]:
    """The areas of score and length, and their difference, on the same resampled items."""
    orders = [_Order.of(labels, values, groups) for values in (score, length)]
    rng, items = np.random.default_rng(how.seed), len(labels)
    drawn = np.empty((how.resamples, 2))
    for number in range(how.resamples):
        weights = np.bincount(rng.integers(0, items, items), minlength=items).astype(np.float64)
        drawn[number] = [order.area(weights) for order in orders]
    whole = np.array([order.area(np.ones(items)) for order in orders])
    tail = (1 - how.level) / 2
    columns = [(whole[0], drawn[:, 0]), (whole[1], drawn[:, 1]), (whole[0] - whole[1], drawn[:, 0] - drawn[:, 1])]
    first, second, third = (Estimate(float(value), *_bounds(values, tail)) for value, values in columns)
    return first, second, third


def _bounds(values: np.ndarray, tail: float) -> tuple[float, float]:
    # A resample of items of one kind alone has no area.
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _has_pairs(labels: np.ndarray, groups: np.ndarray) -> bool:
    return bool(set(groups[labels].tolist()) & set(groups[~labels].tolist()))


def _at(labels: np.ndarray, scores: np.ndarray, threshold: float, how: Bootstrap) -> AtThreshold:
    taken = scores >= threshold
    right = (taken & labels).astype(np.float64)
    precision = _share(right, taken.astype(np.float64), how) if taken.any() else None
    return AtThreshold(threshold, float(taken.mean()), precision, _share(right, labels.astype(np.float64), how))


def _share(part: np.ndarray, whole: np.ndarray, how: Bootstrap) -> Estimate:
    """A ratio of sums over items, with its interval."""

    def ratio(sums: np.ndarray) -> np.ndarray:
        return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)

    columns = np.stack([part, whole], axis=1)
    return Estimate(float(part.sum() / whole.sum()), *how.interval(columns, ratio))
