"""Steps that other processes do, shown in this one: their lines in the run's metrics, as they come.

Ranks on Ray are begun again when one of them dies, and their output goes to Ray's logs; who started the run shows it,
and reports it to whatever keeps curves, from one process for as long as it lasts. Where a run goes on from a checkpoint
its file is cut, and its steps are given again from the first. In a lake on S3 metrics come with the checkpoints.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gristmill.lake.store.base import NotFound, Store
from gristmill.model.train.metrics import Progress

log = logging.getLogger("gristmill")

PAUSE = 1.0
"""Seconds between two looks."""


class MetricsTail:
    """The steps that were added to a file of metrics in a store since the last look."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._last, self._end = b"", 0  # the last line that was read, and the bytes up to its end

    def new(self) -> list[Progress]:
        """In order, whole lines only; all of them where the file was cut since. Raises what the store raises, and
        ValueError for a line that is none of metrics."""
        try:
            text = self._read()
        except NotFound:
            return []
        lines = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
        steps = [Progress.from_json(line) for line in lines]
        self._end += sum(map(len, lines))
        self._last = lines[-1] if lines else self._last
        return steps

    def _read(self) -> bytes:
        """What stands behind the last line; the whole file where another one stands in its place."""
        with self._store.open(self._key) as source:
            before = self._end - len(self._last)
            if before <= source.size():
                source.seek(before)
                text: bytes = source.read()
                if text.startswith(self._last):
                    return text[len(self._last) :]
            self._last, self._end = b"", 0
            source.seek(0)
            whole: bytes = source.read()
            return whole


@contextmanager
def followed(store: Store, key: str, show: Callable[[Progress], None], pause: float = PAUSE) -> Iterator[None]:
    """Hands each step to `show`, in a thread, every `pause` seconds what is new and at the end what is left.

    Metrics that cannot be read are said once, and asked for again: only who looks depends on them.
    """
    tail, over = MetricsTail(store, key), threading.Event()

    def follow() -> None:
        complained = False
        while not over.wait(pause):
            complained = _look(tail, show, complained)
        _look(tail, show, complained)

    thread = threading.Thread(target=follow, name="metrics of a run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _look(tail: MetricsTail, show: Callable[[Progress], None], complained: bool) -> bool:
    """Shows what is new. -> Whether it was said, now or before, that the metrics cannot be read."""
    steps: Sequence[Progress] = ()
    try:
        steps = tail.new()
    except Exception as error:  # whatever the client of a store raises
        if not complained:
            log.warning("the metrics of the run cannot be read now, so its steps are not seen: %s", error)
        complained = True
    for progress in steps:
        show(progress)
    return complained
