"""Curves of a run out of its metrics: the loss smoothed, where it was resumed, which steps were skipped, how it ended.

Numbers only; who draws them decides how. The smoothed loss is a mean of targets over the last steps, weighted by how
many a step had, with exponential weights that are corrected at the start, so that it begins at the first loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.model.train.metrics import Progress

LAST = 0.05
"""The share of a run's steps whose mean loss counts as what it came to."""


class Smoothed:
    """A running mean of what is added to it: `Smoothed(20).add(value, weight)` gives the mean so far, in which a value
    weighs half as much `half_life` values later. Values that are not finite are left out."""

    def __init__(self, half_life: float) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._sum = self._weight = 0.0

    def add(self, value: float, weight: float = 1.0) -> float:
        """One value more. -> The mean with it, NaN before there is any."""
        if math.isfinite(value) and weight > 0:
            self._sum = self._sum * self._decay + value * weight
            self._weight = self._weight * self._decay + weight
        return self.value

    @property
    def value(self) -> float:
        """The mean, NaN before there is any value."""
        return self._sum / self._weight if self._weight else math.nan


@dataclass(frozen=True)
class Curve:
    """A run as it is drawn, lists of equal length by step. `losses` has NaN for steps without a finite one; `resumed`:
    steps that a process went on from; `skipped`: steps that changed nothing; `planned`: how many steps the run has;
    `measures`: what else the objective measured, by name, smoothed as the loss is."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    rates: tuple[float, ...]
    norms: tuple[float, ...]
    skipped: tuple[int, ...]
    resumed: tuple[int, ...]
    planned: int
    final_loss: float
    measures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite is null."""
        lists = {name: [_finite(value) for value in getattr(self, name)] for name in ("losses", "smoothed", "norms")}
        lists |= {name: list(getattr(self, name)) for name in ("steps", "rates", "skipped", "resumed")}
        measures = {name: [_finite(value) for value in values] for name, values in self.measures.items()}
        return {"planned": self.planned, "final_loss": _finite(self.final_loss), **lists, "measures": measures}


def curve_of(metrics: Sequence[Progress]) -> Curve:
    """The curve of a run that has done a step at least. Raises ValueError for none."""
    if not metrics:
        raise ValueError("a run that has done no step has no curve")
    smooth = Smoothed(half_life(metrics[-1].steps))
    return Curve(
        steps=tuple(progress.step for progress in metrics),
        losses=tuple(progress.loss for progress in metrics),
        smoothed=tuple(smooth.add(progress.loss, progress.targets) for progress in metrics),
        rates=tuple(progress.lr for progress in metrics),
        norms=tuple(progress.norm for progress in metrics),
        skipped=tuple(progress.step for progress in metrics if progress.skipped),
        resumed=tuple(sorted({progress.since for progress in metrics} - {0})),
        planned=metrics[-1].steps,
        final_loss=final_loss(metrics),
        measures={name: _smoothed(metrics, name) for name in metrics[-1].measures},
    )


def _smoothed(metrics: Sequence[Progress], name: str) -> tuple[float, ...]:
    smooth = Smoothed(half_life(metrics[-1].steps))
    return tuple(smooth.add(progress.measures.get(name, math.nan), progress.targets) for progress in metrics)


def half_life(steps: int) -> float:
    """Of the smoothing of a run of so many steps: a hundredth of them, 2 to 100."""
    return min(max(steps / 100, 2.0), 100.0)


def final_loss(metrics: Sequence[Progress]) -> float:
    """The mean loss of a target over the last LAST of the steps, one at least; NaN if none of them was finite."""
    if not metrics:
        return math.nan
    first = metrics[-1].step - max(1, round(LAST * metrics[-1].steps))
    return _mean(progress for progress in metrics if progress.step > first)


def _mean(metrics: Iterable[Progress]) -> float:
    """Of the losses that are finite, by targets."""
    whole = [(progress.loss, progress.targets) for progress in metrics if math.isfinite(progress.loss)]
    targets = sum(count for _, count in whole)
    return math.fsum(loss * count for loss, count in whole) / targets if targets else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
