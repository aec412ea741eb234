"""Linking: who shares a band hash with whom, and which documents hang together (loops: stages/forest_kernels.py).

Documents are numbers here. `BandTable` meets a band's hashes in order and links each new document to the first one
with the same hash, so what it ships is a spanning forest, never the edges of a bucket: memory goes with the new
documents, however many old ones stream past. `DisjointSets` joins forests; a set is known by its smallest number, so
the result depends on nothing but the edges. Union by smallest with path halving: Tarjan & van Leeuwen 1984.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from filters.compiled import load

SOURCE = Path(__file__).with_name("forest_kernels.py")
NONE = np.uint32(0xFFFFFFFF)
MAX_DOCUMENTS = 0xFFFFFFFE
EDGES_PER_ROW_GROUP = 1 << 20
FOREST = pa.schema([("child", pa.uint32()), ("root", pa.uint32())])
_FULL = 0.75


class Kernels(NamedTuple):
    """What they do: stages/forest_kernels.py."""

    add_new: Callable[..., tuple[int, int]]
    meet_old: Callable[..., None]
    rehash: Callable[..., None]
    join: Callable[..., None]
    flatten: Callable[..., int]
    children: Callable[..., None]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The loops of this process, found compiled or compiled at the first call."""
    return Kernels(**load(SOURCE))


class BandTable:
    """Open addressing from hash to the first document that had it. `expected`: distinct hashes of new documents."""

    def __init__(self, expected: int, *, grown: bool = False) -> None:
        """`grown`: earlier documents will follow the new ones (`meet_old`)."""
        slots = 1 << max(10, int(expected / _FULL).bit_length())
        self._keys = np.zeros(slots, np.uint64)  # 0: empty
        self._first = np.full(slots, NONE, np.uint32)
        self._old = np.full(slots if grown else 0, NONE, np.uint32)
        self._used = 0

    def add_new(self, hashes: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(child, root) of each of these new documents whose hash an earlier new one had; uint32."""
        if self._used + len(hashes) > len(self._keys) * _FULL:
            self._grow(self._used + len(hashes))
        child, root = np.empty(len(hashes), np.uint32), np.empty(len(hashes), np.uint32)
        found, added = kernels().add_new(_sealed(hashes), _sealed(documents), self._keys, self._first, child, root)
        self._used += added
        return child[:found].copy(), root[:found].copy()

    def meet_old(self, hashes: np.ndarray, documents: np.ndarray) -> None:
        """Old documents in order of their number: the first with a hash becomes the root of the new ones with it."""
        kernels().meet_old(_sealed(hashes), _sealed(documents), self._keys, self._old)

    def to_old(self) -> tuple[np.ndarray, np.ndarray]:
        """(child, root): the first new document of each hash that an old one had, and the first such old one."""
        hit = np.flatnonzero(self._old != NONE)
        child, root = self._first[hit], self._old[hit]
        order = np.argsort(child, kind="stable")
        return child[order], root[order]

    def _grow(self, needed: int) -> None:
        keys, first = self._keys, self._first
        slots = 1 << int(needed / _FULL).bit_length()
        self._keys, self._first = np.zeros(slots, np.uint64), np.full(slots, NONE, np.uint32)
        kernels().rehash(keys, first, self._keys, self._first)
        if len(self._old):
            self._old = np.full(slots, NONE, np.uint32)


class DisjointSets:
    """Sets of the documents 0 to n-1, each known by its smallest member."""

    def __init__(self, n: int) -> None:
        if n > MAX_DOCUMENTS:
            raise ValueError(
                f"{n:,} documents: at most {MAX_DOCUMENTS:,} can be linked in one dataset; split it by source"
            )
        self._parent = np.arange(n, dtype=np.uint32)

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Joins the sets of a[i] and b[i]; uint32."""
        kernels().join(self._parent, _sealed(a), _sealed(b))

    def forest(self) -> tuple[np.ndarray, np.ndarray]:
        """(child, root) for every document that is not the smallest of its set, by child; uint32."""
        children = kernels().flatten(self._parent)
        child = np.empty(children, np.uint32)
        kernels().children(self._parent, child)
        return child, self._parent[child]


class EdgeWriter:
    """Writes edges as they come, in row groups of some size: one for each batch would be mostly metadata."""

    def __init__(self, writer: Any) -> None:
        self.writer, self.written, self.waiting = writer, 0, 0
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, child: np.ndarray, root: np.ndarray) -> None:
        self.parts.append((child, root))
        self.waiting += len(child)
        if self.waiting >= EDGES_PER_ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
            self.writer.write_table(pa.table(columns, schema=FOREST), row_group_size=EDGES_PER_ROW_GROUP)
        self.written += self.waiting
        self.parts, self.waiting = [], 0


def _sealed(values: np.ndarray) -> np.ndarray:
    """The array, contiguous and read-only, as the kernels' one signature has it: others take a slower way in."""
    array = np.ascontiguousarray(values).view()
    array.flags.writeable = False
    return array
