"""Progress of long work: a bar on a terminal; in a log one line a minute while a stage works, and one when it is done.

Several stages may be open at a time: then there are several bars, and each stage has its own lines.

Everything goes to stderr: the last line of stdout is the result, and belongs to scripts.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from gristmill.lake.accounts.receipt import Receipt

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

log = logging.getLogger("gristmill")

EVERY = 60.0
"""Seconds between two lines in a log."""
BEGINS, DONE_BEFORE = "begins", "done before"
"""How the line of a stage's begin starts, and how that of one with nothing to do ends: flows tell stages by both."""


class Advance(Protocol):
    """To be called with the receipt of each piece; `before`: it was done before this run, as was found out late."""

    def __call__(self, receipt: Receipt, before: bool = False) -> None: ...


class Progress:
    """`with progress.stage("extract", total=90, done=0) as advance: advance(receipt)` for every finished piece.

    `total`: None for a stream, whose end nobody knows. `terminal`: None: whether stderr is one, and the log not quiet.
    """

    def __init__(self, *, terminal: bool | None = None, every: float = EVERY) -> None:
        self.terminal = sys.stderr.isatty() and log.isEnabledFor(logging.WARNING) if terminal is None else terminal
        self.every = every
        self._bars: Bars | None = None  # while any is shown: a terminal has one place for them
        self._shown = 0

    @contextmanager
    def stage(self, title: str, *, total: int | None, done: int) -> Iterator[Advance]:
        """The progress of one stage with `total` pieces, `done` of them before this run; call it with each receipt."""
        if done == total:
            what = "its only piece was" if total == 1 else f"all {total:,} pieces"
            log.info("%s: %s %s", title, what, DONE_BEFORE)
            yield lambda receipt, before=False: None
        elif self.terminal:
            with self._bar(title, total, done) as advance:
                yield advance
        else:
            with self._lines(title, total, done) as advance:
                yield advance

    @contextmanager
    def _bar(self, title: str, total: int | None, done: int) -> Iterator[Advance]:
        records = 0
        with self._shared() as bars:
            task = bars.add_task(title, total=total, completed=done, records="0")

            def advance(receipt: Receipt, before: bool = False) -> None:
                nonlocal records
                records += 0 if before else receipt.received.count
                bars.update(task, advance=1, records=f"{records:,}")

            try:
                yield advance
            finally:
                bars.stop_task(task)  # its clock, where others go on

    @contextmanager
    def _shared(self) -> Iterator[Bars]:
        """The bars of all stages that are open, one below the other."""
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        self._shown += 1
        try:
            yield self._bars
        finally:
            self._shown -= 1
            if not self._shown:
                self._bars.stop()
                self._bars = None

    @contextmanager
    def _lines(self, title: str, total: int | None, done: int) -> Iterator[Advance]:
        """A thread says where the stage stands, also while no piece comes to its end."""
        standing, over = Standing(title, total, done), threading.Event()
        log.info("%s", standing.first_line())

        def tell() -> None:
            while not over.wait(self.every):
                log.info("%s", standing.line())

        thread = threading.Thread(target=tell, name=f"progress of {title}", daemon=True)
        thread.start()
        try:
            yield standing.advance
        finally:
            over.set()
            thread.join()
        log.info("%s", standing.last_line())


def _new_bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[records]} records"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=Console(stderr=True))


class Standing:
    """Where a stage stands, in words. What is left is estimated from the pace since the first finished piece: before
    it, workers start and compile."""

    def __init__(self, title: str, total: int | None, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.title, self.total, self.done, self.clock = title, total, done, clock
        self.ran = self.records = 0
        self.started = self.first = self.last = clock()

    def advance(self, receipt: Receipt, before: bool = False) -> None:
        """One piece more was done, now or before."""
        if before:
            self.done += 1
            return
        self.ran += 1
        self.records += receipt.received.count
        self.last = self.clock()
        if self.ran == 1:
            self.first = self.last

    def first_line(self) -> str:
        """When it begins."""
        if self.total is None:
            return f"{self.title}: {BEGINS}"
        before = f", {self.done:,} of them {DONE_BEFORE} now" if self.done else ""
        return f"{self.title}: {BEGINS}, {counted(self.total, 'piece')}{before}"

    def line(self) -> str:
        """While it works."""
        if self.ran < 2 or self.total is None:
            return self._counts()
        # From the first finished piece to the last are ran - 1 of them: pieces before the run took no time of it.
        left = (self.total - self.done - self.ran) * (self.last - self.first) / (self.ran - 1)
        return f"{self._counts()}, about {left:.0f} s left"

    def last_line(self) -> str:
        """When it is done, or ended otherwise: with the seconds that it took."""
        return f"{self._counts()}, {self.clock() - self.started:.1f} s"

    def _counts(self) -> str:
        finished = self.done + self.ran
        pieces = counted(finished if self.total is None else self.total, "piece")
        if self.total is not None and finished < self.total:
            pieces = f"{finished:,} of {pieces}"
        new = " now" if self.done else ""
        records = f", {counted(self.records, 'record')}{new}" if self.records else ""
        return f"{self.title}: {pieces}{records}"


def counted(number: int, noun: str) -> str:
    """`1 piece`, `1,200 pieces`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
