"""Steps that other processes do, shown in this one: their lines in the run's metrics, as they come.

Ranks on Ray are begun again when one of them dies, and their output goes to Ray's logs; who started the run shows it,
and reports it to whatever keeps curves, from one process for as long as it lasts. A step that is done twice, after a
rank died, is shown once. In a lake on S3 metrics come with the checkpoints.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from gristmill.lake.store.base import NotFound, Store
from gristmill.model.train.metrics import Progress, progress_of

PAUSE = 1.0
"""Seconds between two looks."""


class MetricsTail:
    """The lines that were added to a file of metrics in a store since the last look."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._end = self._step = 0  # of what was read, in bytes; of the last line

    def lines(self) -> list[dict[str, Any]]:
        """In order, each step once. A line that is being written comes later. Raises what the store raises."""
        try:
            text = self._read()
        except NotFound:
            return []
        lines: list[dict[str, Any]] = []
        for line in text.splitlines():
            values = json.loads(line)
            if values["step"] > self._step:
                self._step = values["step"]
                lines.append(values)
        return lines

    def _read(self) -> bytes:
        """Whole lines behind what was read; all of them where a run that was begun again cut the file."""
        with self._store.open(self._key) as source:
            before = max(0, self._end - 1)
            source.seek(min(before, source.size()))
            text: bytes = source.read()
            if self._end and text[:1] != b"\n":
                before = 0
                source.seek(0)
                text = source.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._end = before + len(whole)
        return whole.removeprefix(b"\n")


@contextmanager
def followed(store: Store, key: str, show: Callable[[Progress], None]) -> Iterator[None]:
    """Hands each step's `Progress` to `show`, in a thread; those that are left at the end, in this one.

    Raises what `show` raises, at the end.
    """
    tail, over = MetricsTail(store, key), threading.Event()

    def follow() -> None:
        while not over.wait(PAUSE):
            new()

    def new() -> None:
        for values in tail.lines():
            show(progress_of(values))

    with ThreadPoolExecutor(1, thread_name_prefix="metrics") as pool:
        following = pool.submit(follow)
        try:
            yield
        finally:
            over.set()
            following.result()
    new()
