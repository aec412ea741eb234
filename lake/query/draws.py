"""Draws from a ledger: a few of its rows that have one fate or reason, without reading all of it.

A draw is a place among all rows, and then the first row from there on that is asked for; after the last row comes the
first. So a row is drawn with the chance of the gap before it. Rows stand in the order of their ids, which are hashes:
nothing that is true of a record has to do with its gap, and the draw is fair. What a frequent fate costs is a row group
a draw; only where a reason is so rare that fewer rows have it than were asked for is all of the ledger looked through.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, open_parquet

Asked = Callable[[pa.Table], pa.ChunkedArray]
"""Which rows of a table with fate and reason are asked for, as booleans; null is no."""
Place = tuple[int, int, int]
"""(object, row group of it, row of that)."""


@dataclass(frozen=True)
class DrawnRows:
    """`rows` in the order in which they stand; `all_there_are`: how many were asked for, where everything was read."""

    rows: list[dict[str, Any]]
    all_there_are: int | None


def scalar(text: str) -> pa.StringScalar:
    """A text to compare a column with, put together from its bytes: whatever converts a Python value makes pyarrow
    import pandas, which takes longer than a draw."""
    data = text.encode()
    ends = np.array([0, len(data)], np.int32)
    return pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(data))[0]


def draw_rows(store: Store, ledgers: Sequence[ObjectRef], asked: Asked, n: int, rng: random.Random) -> DrawnRows:
    """At most `n` different rows. Raises NotFound, DamagedObject."""
    ledgers = [ref for ref in ledgers if ref.records]
    with ExitStack() as stack:
        walk = _Walk(store, ledgers, asked, stack)
        drawn: set[Place] = set()
        for _ in range(n):
            place = walk.next_from(rng.randrange(walk.size), drawn) if walk.size else None
            if place is None:  # there are no more
                break
            drawn.add(place)
        whole = None if len(drawn) == n else len(drawn)
        return DrawnRows([walk.row(place) for place in sorted(drawn)], whole)


class _Walk:
    """The row groups of a ledger, each looked into once at most, from any row on."""

    def __init__(self, store: Store, ledgers: Sequence[ObjectRef], asked: Asked, stack: ExitStack) -> None:
        self._store, self._ledgers, self._asked, self._stack = store, ledgers, asked, stack
        self._ends = list(accumulate(ref.records for ref in ledgers))
        self.size = self._ends[-1] if self._ends else 0
        self._open: tuple[int, pq.ParquetFile] | None = None
        self._known_sizes: dict[int, list[int]] = {}
        self._hits: dict[tuple[int, int], list[int]] = {}

    def next_from(self, at: int, but: set[Place]) -> Place | None:
        """The first row that is asked for from row `at` on, of those that are not in `but`."""
        first = bisect_right(self._ends, at)
        start = at - (self._ends[first - 1] if first else 0)
        for part, group, low in self._groups(first, start):
            for row in self._hits_in(part, group):
                if row >= low and (part, group, row) not in but:
                    return part, group, row
        return None

    def _groups(self, first: int, start: int) -> Iterator[tuple[int, int, int]]:
        """(object, row group, its first row that counts), from row `start` of an object around to it again."""
        before: list[tuple[int, int, int]] = []  # row groups that begin at or before the start, for the end
        for number in range(len(self._ledgers)):
            part = (first + number) % len(self._ledgers)
            begins = 0
            for group, rows in enumerate(self._sizes(part)):
                if number == 0 and begins <= start:
                    before.append((part, group, 0))
                if number or begins + rows > start:
                    yield part, group, 0 if number else max(0, start - begins)
                begins += rows
        yield from before

    def _file(self, part: int) -> pq.ParquetFile:
        """One object at a time: what is read of each is kept as long as it is open."""
        if self._open is None or self._open[0] != part:
            self._stack.close()
            self._open = part, self._stack.enter_context(open_parquet(self._store, self._ledgers[part]))
        return self._open[1]

    def _sizes(self, part: int) -> list[int]:
        if part not in self._known_sizes:
            metadata = self._file(part).metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._known_sizes[part] = sizes
        return self._known_sizes[part]

    def _hits_in(self, part: int, group: int) -> list[int]:
        """The rows of a group that are asked for."""
        if (part, group) not in self._hits:
            hit = self._asked(self._file(part).read_row_group(group, ["fate", "reason"]))
            self._hits[part, group] = pc.indices_nonzero(hit).to_pylist()
        return self._hits[part, group]

    def row(self, place: Place) -> dict[str, Any]:
        """All of a row."""
        part, group, at = place
        (row,) = self._file(part).read_row_group(group).slice(at, 1).to_pylist()
        return dict(row)
