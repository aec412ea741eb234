"""Hands every step to the sinks, each in a thread of its own: a slow one makes no step longer, a dead one ends no run.

What a sink raises is said once, the sink is switched off, and the end of the run says so again with the last step that
it took; the run's own file of metrics has everything. A sink that lags behind is waited for at the end, for so long and
no longer. From that file a sink also gets the steps that it lacks, as those that a killed process never sent.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from gristmill.model.train.metrics import Progress, read_metrics
from gristmill.stages.report.sinks import Sink

log = logging.getLogger("gristmill")

PATIENCE = 60.0
"""Seconds that the end of a run waits for all sinks together."""
HURRY = 10.0
"""The same where the run is broken off: somebody waits for the process to end, or will end it."""
AT_ONCE = 1_000
"""Steps that are handed to a sink together, at most."""


class Reporter:
    """`with Reporter(sinks_of(report, about), metrics) as show: show(progress)` for every step of rank 0.

    `metrics`: the run's file, which has the steps before those of this process. After the end `problems` has a line for
    each sink that did not take everything.
    """

    def __init__(self, sinks: Sequence[Sink], metrics: Path, *, patience: float = PATIENCE) -> None:
        self._feeds = [_Feed(sink, metrics) for sink in sinks]
        self._patience = patience
        self.problems: list[str] = []

    def __call__(self, progress: Progress) -> None:
        """Returns at once."""
        for feed in self._feeds:
            feed.put(progress)

    def __enter__(self) -> Reporter:
        for feed in self._feeds:
            feed.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for feed in self._feeds:
            feed.end(kind is None)
        patience = self._patience if kind is None else min(self._patience, HURRY)
        deadline = time.monotonic() + patience
        for feed in self._feeds:
            feed.join(max(0.0, deadline - time.monotonic()))
            if feed.problem is not None:
                self.problems.append(feed.problem)
                log.warning("%s", feed.problem)


class _Feed:
    """The thread of one sink, and the steps that wait for it."""

    def __init__(self, sink: Sink, metrics: Path) -> None:
        self._sink, self._metrics = sink, metrics
        self._steps: queue.SimpleQueue[Progress | bool] = queue.SimpleQueue()  # a bool ends it: whether the run is done
        self._thread = threading.Thread(target=self._run, name=f"metrics to {sink.name}", daemon=True)
        self._error: BaseException | None = None
        self._last = 0

    def start(self) -> None:
        """Begins to wait for steps."""
        self._thread.start()

    def put(self, progress: Progress) -> None:
        """One step more, unless the sink was switched off."""
        if self._error is None:
            self._steps.put(progress)

    def end(self, done: bool) -> None:
        """No step comes after this."""
        self._steps.put(done)

    def join(self, patience: float) -> None:
        """Waits until the sink took everything, but not longer than so many seconds."""
        self._thread.join(patience)

    @property
    def problem(self) -> str | None:
        """A line about a sink that did not take everything; None if it did."""
        if self._error is not None:
            why = f"it was switched off by {_brief(self._error)}"
        elif self._thread.is_alive():
            why = "it was too slow, and is no longer waited for"
        else:
            return None
        return f"{self._sink.name} has this run's steps up to {self._last} only: {why}"

    def _run(self) -> None:
        try:
            self._feed()
        except (Exception, SystemExit) as error:  # whatever a service's client raises: the training is not about it
            self._error = error
            log.warning("%s is switched off, the training goes on: %s", self._sink.name, _brief(error))

    def _feed(self) -> None:
        first = self._steps.get()
        if isinstance(first, bool):
            return  # the run was at its end before this process
        self._last = self._sink.open(first)
        missed = [step for step in read_metrics(self._metrics) if self._last < step.step < first.step]
        for start in range(0, len(missed), AT_ONCE):
            self._write(missed[start : start + AT_ONCE])
        steps = [first]
        while True:
            done = self._drain(steps)
            self._write([step for step in steps if step.step > self._last])
            if done is not None:
                return self._sink.close(done)
            steps = []

    def _drain(self, steps: list[Progress]) -> bool | None:
        """Adds to `steps` what is waiting, and waits where nothing is. -> At the end, whether the run is done."""
        while len(steps) < AT_ONCE:
            if steps and self._steps.empty():
                return None
            item = self._steps.get()
            if isinstance(item, bool):
                return item
            steps.append(item)
        return None

    def _write(self, steps: Sequence[Progress]) -> None:
        if steps:
            self._sink.write(steps)
            self._last = steps[-1].step


def _brief(error: BaseException) -> str:
    """The first line of an error, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
