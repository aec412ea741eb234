"""Progress of long work: a bar on a terminal, one line a minute in a log, never both.

Everything goes to stderr: the last line of stdout is the result, and belongs to scripts.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lake.receipt import Receipt

log = logging.getLogger("gristmill")

EVERY = 60.0
"""Seconds between two lines in a log."""


class Progress:
    """`with progress.stage("extract", total=90) as advance: advance(receipt)` for every finished piece.

    What is left is estimated from the pace since the first finished piece: before it, workers start and compile.
    """

    def __init__(
        self, *, terminal: bool | None = None, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.terminal = sys.stderr.isatty() if terminal is None else terminal
        self.every, self.clock = every, clock

    @contextmanager
    def stage(self, title: str, *, total: int, done: int) -> Iterator[Callable[[Receipt], None]]:
        if done == total:
            log.info("%s: %s done before", title, "its only piece was" if total == 1 else f"all {total:,} pieces")
            yield lambda receipt: None
        elif self.terminal:
            with self._bar(title, total, done) as advance:
                yield advance
        else:
            with self._lines(title, total, done) as advance:
                yield advance

    @contextmanager
    def _bar(self, title: str, total: int, done: int) -> Iterator[Callable[[Receipt], None]]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        records = 0
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[records]} records"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, completed=done, records="0")

            def advance(receipt: Receipt) -> None:
                nonlocal records
                records += receipt.came_in.count
                bar.update(task, advance=1, records=f"{records:,}")

            yield advance

    @contextmanager
    def _lines(self, title: str, total: int, done: int) -> Iterator[Callable[[Receipt], None]]:
        started = last = self.clock()
        first = started
        ran = records = 0
        unit = "records now" if done else "records"
        log.info("%s: %s, %d done before", title, "1 piece" if total == 1 else f"{total:,} pieces", done)

        def advance(receipt: Receipt) -> None:
            nonlocal first, last, ran, records
            ran += 1
            records += receipt.came_in.count
            now = self.clock()
            if ran == 1:
                first = now
            if now - last >= self.every:
                last = now
                pace = f", about {(total - done - ran) * (now - first) / (ran - 1):.0f} s left" if ran > 1 else ""
                log.info("%s: %d of %d, %s %s%s", title, done + ran, total, f"{records:,}", unit, pace)

        yield advance
        log.info("%s: %d of %d, %s %s, %.1f s", title, done + ran, total, f"{records:,}", unit, self.clock() - started)
