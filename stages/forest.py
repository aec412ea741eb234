"""Compiled loops of linking: who shares a band hash with whom, and which documents hang together.

Documents are numbers here. `BandTable` meets a band's hashes in order and links each new document to the first one
with the same hash, so what it ships is a spanning forest, never the edges of a bucket: memory goes with the new
documents, however many old ones stream past. `DisjointSets` joins forests; a set is known by its smallest number, so
the result depends on nothing but the edges. Union by smallest with path halving: Tarjan & van Leeuwen 1984.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NONE = np.uint32(0xFFFFFFFF)
MAX_DOCUMENTS = 0xFFFFFFFE
_FULL = 0.75


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
        found, added = _add_new(hashes, documents, self._keys, self._first, child, root)
        self._used += added
        return child[:found].copy(), root[:found].copy()

    def meet_old(self, hashes: np.ndarray, documents: np.ndarray) -> None:
        """Old documents in order of their number: the first with a hash becomes the root of the new ones with it."""
        _meet_old(hashes, documents, self._keys, self._first, self._old)

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
        _rehash(keys, first, self._keys, self._first)
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
        _join(self._parent, a, b)

    def forest(self) -> tuple[np.ndarray, np.ndarray]:
        """(child, root) for every document that is not the smallest of its set, by child; uint32."""
        children = _flatten(self._parent)
        child = np.empty(children, np.uint32)
        _children(self._parent, child)
        return child, self._parent[child]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_new(
    hashes: np.ndarray,
    documents: np.ndarray,
    keys: np.ndarray,
    first: np.ndarray,
    child: np.ndarray,
    root: np.ndarray,
) -> tuple[int, int]:
    mask = np.uint64(len(keys) - 1)
    found = added = 0
    for i in range(len(hashes)):
        key = hashes[i] | np.uint64(1)  # never the mark of an empty slot; costs a bit of 64
        slot = (key >> np.uint64(8)) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == 0:
            keys[slot] = key
            first[slot] = documents[i]
            added += 1
        else:
            child[found] = documents[i]
            root[found] = first[slot]
            found += 1
    return found, added


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _meet_old(hashes: np.ndarray, documents: np.ndarray, keys: np.ndarray, first: np.ndarray, old: np.ndarray) -> None:
    mask = np.uint64(len(keys) - 1)
    for i in range(len(hashes)):
        key = hashes[i] | np.uint64(1)
        slot = (key >> np.uint64(8)) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if keys[slot] == key and old[slot] == NONE:
            old[slot] = documents[i]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _rehash(keys: np.ndarray, first: np.ndarray, new_keys: np.ndarray, new_first: np.ndarray) -> None:
    mask = np.uint64(len(new_keys) - 1)
    for i in range(len(keys)):
        if keys[i] == 0:
            continue
        slot = (keys[i] >> np.uint64(8)) & mask
        while new_keys[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        new_keys[slot] = keys[i]
        new_first[slot] = first[i]


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _join(parent: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    for i in range(len(a)):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _flatten(parent: np.ndarray) -> int:
    """Points every document at its root (a parent is never greater, so one pass does), and counts the others."""
    children = 0
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
        if parent[i] != i:
            children += 1
    return children


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _children(parent: np.ndarray, out: np.ndarray) -> None:
    n = 0
    for i in range(len(parent)):
        if parent[i] != i:
            out[n] = i
            n += 1
