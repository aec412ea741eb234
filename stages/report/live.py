"""The live line of a training run: a bar on a terminal, one line a minute in a log, one more at its end.

Who has the steps hands them over, be it the trainer or who follows the metrics of another process. Loss and speed are
running means, so that the line can be read; the metrics have every number. All of it goes to stderr: the last line of
stdout is the result.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from gristmill.model.runs.curve import Smoothed, half_life
from gristmill.model.train.metrics import Progress
from gristmill.stages.run.progress import EVERY

log = logging.getLogger("gristmill")

REFRESHED = 4
"""Times a second that the bar is drawn anew."""


class LiveLine:
    """`with LiveLine().run("nano.pretrain") as show: show(progress)` for every step.

    `terminal`: None: whether stderr is one, and the log not quiet; `every`: seconds between two lines in a log.
    """

    def __init__(self, *, terminal: bool | None = None, every: float = EVERY) -> None:
        self.terminal = sys.stderr.isatty() and log.isEnabledFor(logging.WARNING) if terminal is None else terminal
        self.every = every

    @contextmanager
    def run(self, title: str) -> Iterator[Callable[[Progress], None]]:
        """What to call with each step: those that were done before, and those that are done anew, too."""
        with (self._bar if self.terminal else self._lines)(Standing(title)) as show:
            yield show

    @contextmanager
    def _bar(self, standing: Standing) -> Iterator[Callable[[Progress], None]]:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        console = Console(stderr=True)
        bar = Bar(*columns, console=console, expand=True, auto_refresh=False)
        task = bar.add_task(standing.title, total=None, left="")

        def drawn() -> Group:
            if (newest := standing.newest) is not None:
                bar.update(task, total=newest.steps, completed=newest.step, left=standing.left())
            return Group(bar, Text(standing.numbers("  ")))

        with Live(get_renderable=drawn, console=console, refresh_per_second=REFRESHED):
            yield standing.add

    @contextmanager
    def _lines(self, standing: Standing) -> Iterator[Callable[[Progress], None]]:
        """A thread says where the run stands, also while a step takes long."""
        over = threading.Event()

        def tell() -> None:
            while not over.wait(self.every):
                log.info("%s", standing.line())

        thread = threading.Thread(target=tell, name=f"progress of {standing.title}", daemon=True)
        thread.start()
        try:
            yield standing.add
        finally:
            over.set()
            thread.join()
            log.info("%s", standing.line())  # also where the run was broken off: how far it is


class Standing:
    """Where a run stands, in words. A step that is not behind the last one was done anew: what came after it, and was
    cut off by a kill, counts no longer."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.newest: Progress | None = None
        self._skipped: set[int] = set()
        self._begin(2.0)

    def _begin(self, half: float) -> None:
        self._loss, self._tokens, self._seconds = Smoothed(half), Smoothed(half), Smoothed(half)

    def add(self, progress: Progress) -> None:
        """One step more."""
        if self.newest is None or progress.step <= self.newest.step:
            self._skipped = {step for step in self._skipped if step < progress.step}
            self._begin(half_life(progress.steps))
        if progress.skipped:
            self._skipped.add(progress.step)
        self._loss.add(progress.loss, progress.targets)
        self._tokens.add(progress.tokens)
        self._seconds.add(progress.seconds)
        self.newest = progress

    def line(self) -> str:
        """All of it: `nano.pretrain: step 120 of 300, loss 2.3145, LR 1.2e-03, ..., 0:03:20 left`; of a run that was
        killed also behind which step, that of its last checkpoint, it went on."""
        newest = self.newest
        if newest is None:
            return f"{self.title}: no step done yet"
        line = f"{self.title}: step {newest.step:,} of {newest.steps:,}, {self.numbers(', ')}, {self.left()}"
        return f"{line}, went on behind step {newest.since:,}" if newest.since else line

    def left(self) -> str:
        """`0:03:20 left`, by the mean speed of the process."""
        return "" if self.newest is None else f"{timedelta(seconds=round(self.newest.seconds_left))} left"

    def numbers(self, between: str) -> str:
        """Of a step: `loss 2.3145, LR 1.20e-03, norm 0.71, 12,300 tok/s, MFU 41%, 3 skipped`; the last two only where
        there are any."""
        newest = self.newest
        if newest is None:
            return ""
        speed = self._tokens.value / self._seconds.value if self._seconds.value > 0 else 0.0
        parts = [
            f"loss {self._loss.value:.4f}",
            f"LR {newest.lr:.2e}",
            f"norm {newest.norm:.2f}",
            f"{speed:,.0f} tok/s",
        ]
        if newest.mfu is not None:
            parts.append(f"MFU {newest.mfu:.0%}")
        if self._skipped:
            parts.append(f"{len(self._skipped):,} skipped")
        return between.join(parts)
