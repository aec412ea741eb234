"""Connected components: who shares a band hash with whom, by hash table and union-find (union_find_kernels.py).

Documents are numbers here, up to MAX_DOCUMENTS. `BandTable` reads a band's hashes in order and links each new document
to the first one with the same hash, so what it gives is a spanning forest, never the edges of a bucket: memory goes
with the new documents, however many old ones stream past. `UnionFind` merges forests; a set is known by its smallest
number, so the result depends on nothing but the edges. Union by index, find with path halving: Tarjan & van Leeuwen
1984, "Worst-case Analysis of Set Union Algorithms".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.filters.signatures.compiled import load

SOURCE = Path(__file__).with_name("union_find_kernels.py")
NONE = np.uint32(0xFFFFFFFF)
MAX_DOCUMENTS = 0xFFFFFFFE
"""Numbers are uint32, and the greatest says "no document"."""
EDGES_PER_ROW_GROUP = 1 << 20
FOREST = pa.schema([("child", pa.uint32()), ("root", pa.uint32())])
"""Edges of a spanning forest: a document, and an earlier one that it hangs together with."""
_MAX_LOAD = 0.75
"""Share of a table's slots that are taken at most: beyond it linear probing takes many steps."""


class Kernels(NamedTuple):
    """What they do: stages/near/union_find_kernels.py."""

    add_new: Callable[..., tuple[int, int]]
    meet_old: Callable[..., None]
    rehash: Callable[..., None]
    join: Callable[..., None]
    flatten: Callable[..., int]
    children: Callable[..., None]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The compiled loops, loaded once a process, from numba's cache if they were compiled before."""
    return Kernels(**load(SOURCE))


class BandTable:
    """A hash table of one band, open addressing: hash -> the first new document with it, the first earlier one."""

    def __init__(self, expected: int, *, grown: bool = False) -> None:
        """expected: distinct hashes of new documents; it grows where there are more. grown: earlier documents will
        follow the new ones (`meet_old`)."""
        slots = 1 << max(10, int(expected / _MAX_LOAD).bit_length())
        self._keys = np.zeros(slots, np.uint64)  # 0: empty
        self._first = np.full(slots, NONE, np.uint32)
        self._old = np.full(slots if grown else 0, NONE, np.uint32)
        self._used = 0

    def add_new(self, hashes: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """hashes uint64 [n], documents uint32 [n] -> (child, root), uint32 [m]: each of these documents whose hash
        another new one had before it, and the first that had it."""
        if self._used + len(hashes) > len(self._keys) * _MAX_LOAD:
            self._grow(self._used + len(hashes))
        child, root = np.empty(len(hashes), np.uint32), np.empty(len(hashes), np.uint32)
        edges, added = kernels().add_new(
            _read_only(hashes), _read_only(documents), self._keys, self._first, child, root
        )
        self._used += added
        return child[:edges].copy(), root[:edges].copy()  # copies: a view would keep the room for all n alive

    def meet_old(self, hashes: np.ndarray, documents: np.ndarray) -> None:
        """Earlier documents in order of their number, when all new ones are in: the first with a hash becomes the root
        of the new ones with it. hashes uint64 [n], documents uint32 [n]."""
        kernels().meet_old(_read_only(hashes), _read_only(documents), self._keys, self._old)

    def to_old(self) -> tuple[np.ndarray, np.ndarray]:
        """(child, root), uint32 [m]: the first new document of each hash that an earlier one had, and the first
        earlier one."""
        hit = np.flatnonzero(self._old != NONE)
        child, root = self._first[hit], self._old[hit]
        order = np.argsort(child, kind="stable")  # slots are in order of the hashes and of when the table grew
        return child[order], root[order]

    def _grow(self, needed: int) -> None:
        keys, first = self._keys, self._first
        slots = 1 << int(needed / _MAX_LOAD).bit_length()
        self._keys, self._first = np.zeros(slots, np.uint64), np.full(slots, NONE, np.uint32)
        kernels().rehash(keys, first, self._keys, self._first)
        if len(self._old):  # still without entries: all new documents come before the earlier ones
            self._old = np.full(slots, NONE, np.uint32)


class UnionFind:
    """Disjoint sets of the documents 0 to n-1, each known by its smallest member; 4 bytes a document."""

    def __init__(self, n: int) -> None:
        """Raises ValueError beyond MAX_DOCUMENTS."""
        if n > MAX_DOCUMENTS:
            raise ValueError(
                f"{n:,} documents: at most {MAX_DOCUMENTS:,} can be linked in one dataset; split it by source"
            )
        self._parent = np.arange(n, dtype=np.uint32)

    def union(self, a: np.ndarray, b: np.ndarray) -> None:
        """Unites the sets of a[i] and b[i]; uint32 [edges] each."""
        kernels().join(self._parent, _read_only(a), _read_only(b))

    def forest(self) -> tuple[np.ndarray, np.ndarray]:
        """(child, root) for every document that is not the smallest of its set, by child; uint32 [children] each."""
        children = kernels().flatten(self._parent)
        child = np.empty(children, np.uint32)
        kernels().children(self._parent, child)
        return child, self._parent[child]


class EdgeWriter:
    """Writes edges as they come, in row groups of a million: one for each small batch would be mostly metadata.

    `written` counts the edges after the last `flush`.
    """

    def __init__(self, writer: Any) -> None:
        """writer: a Parquet writer of the schema FOREST (lake.store.objects.table_writer)."""
        self.writer, self.written, self.waiting = writer, 0, 0
        self.parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, child: np.ndarray, root: np.ndarray) -> None:
        """Edges, uint32 [n] each; written when there are enough for a row group."""
        self.parts.append((child, root))
        self.waiting += len(child)
        if self.waiting >= EDGES_PER_ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. To be called once more at the end."""
        if self.waiting:
            children, roots = zip(*self.parts, strict=True)
            table = pa.table([np.concatenate(children), np.concatenate(roots)], schema=FOREST)
            self.writer.write_table(table, row_group_size=EDGES_PER_ROW_GROUP)
        self.written += self.waiting
        self.parts, self.waiting = [], 0


def _read_only(values: np.ndarray) -> np.ndarray:
    """The array, contiguous and read-only, as the kernels' one signature has it: others take a slower way in."""
    array = np.ascontiguousarray(values).view()
    array.flags.writeable = False
    return array
