"""Who is shown a run's steps while it runs: a line in the log now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gristmill.model.train.metrics import Progress
    from gristmill.stages.train.folder import RunAbout

log = logging.getLogger("gristmill")

EVERY = 30.0
"""Seconds between two lines."""


@dataclass(frozen=True)
class Report:
    """Where else metrics go. `tensorboard`: a folder; `wandb`: a project; `mlflow`: a tracking address."""

    tensorboard: str | None = None
    wandb: str | None = None
    mlflow: str | None = None


@contextmanager
def reporting(report: Report, about: RunAbout) -> Iterator[Callable[[Progress], None]]:
    """What to hand each step's `Progress` to, on rank 0."""
    last = float("-inf")

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < EVERY and progress.step < progress.steps:
            return
        last = time.monotonic()
        log.info(
            "%s: step %d of %d, loss %.4f, lr %.2e, %.0f tokens/s, about %.0f s left",
            about.stage,
            progress.step,
            progress.steps,
            progress.loss,
            progress.lr,
            progress.tokens_per_second,
            progress.seconds_left,
        )

    yield show
