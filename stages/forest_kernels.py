"""The compiled loops of stages/forest.py: tables from hash to document, and disjoint sets.

Plain functions until `filters.compiled` compiles them, from a copy of this file named by its content; so nothing of
ours is imported here. Arrays that are only read may be read-only, as Arrow's are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

NONE = np.uint32(0xFFFFFFFF)
_ONE, _SHIFT = np.uint64(1), np.uint64(8)


def add_new(hashes: Any, documents: Any, keys: Any, first: Any, child: Any, root: Any) -> Any:
    """Puts hashes into the table; writes a (child, root) for each that was there. Returns (written, added)."""
    mask = np.uint64(len(keys) - 1)
    found = added = 0
    for i in range(len(hashes)):
        key = hashes[i] | _ONE  # never the mark of an empty slot; costs a bit of 64
        slot = (key >> _SHIFT) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + _ONE) & mask
        if keys[slot] == 0:
            keys[slot] = key
            first[slot] = documents[i]
            added += 1
        else:
            child[found] = documents[i]
            root[found] = first[slot]
            found += 1
    return found, added


def meet_old(hashes: Any, documents: Any, keys: Any, old: Any) -> None:
    """Notes at each hash of the table the first of these documents that has it."""
    mask = np.uint64(len(keys) - 1)
    for i in range(len(hashes)):
        key = hashes[i] | _ONE
        slot = (key >> _SHIFT) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + _ONE) & mask
        if keys[slot] == key and old[slot] == NONE:
            old[slot] = documents[i]


def rehash(keys: Any, first: Any, new_keys: Any, new_first: Any) -> None:
    """Copies the entries of a table into a greater, empty one."""
    mask = np.uint64(len(new_keys) - 1)
    for i in range(len(keys)):
        if keys[i] == 0:
            continue
        slot = (keys[i] >> _SHIFT) & mask
        while new_keys[slot] != 0:
            slot = (slot + _ONE) & mask
        new_keys[slot] = keys[i]
        new_first[slot] = first[i]


def join(parent: Any, a: Any, b: Any) -> None:
    """Joins the sets of a[i] and b[i]; a parent is never greater than its child."""
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


def flatten(parent: Any) -> Any:
    """Points every document at its root (a parent is never greater, so one pass does), and counts the others."""
    children = 0
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
        if parent[i] != i:
            children += 1
    return children


def children(parent: Any, out: Any) -> None:
    """The documents that are not their own root, in order, to `out`."""
    n = 0
    for i in range(len(parent)):
        if parent[i] != i:
            out[n] = i
            n += 1


def _array(dtype: types.Type, readonly: bool = False) -> types.Array:
    return types.Array(dtype, 1, "C", readonly=readonly)


_HASHES, _DOCUMENTS = _array(types.uint64, True), _array(types.uint32, True)
_KEYS, _NUMBERS = _array(types.uint64), _array(types.uint32)
# One signature each: numba's cache is free of races only as long as a function has one compiled form.
SIGNATURES = {
    "add_new": types.UniTuple(types.int64, 2)(_HASHES, _DOCUMENTS, _KEYS, _NUMBERS, _NUMBERS, _NUMBERS),
    "meet_old": types.void(_HASHES, _DOCUMENTS, _KEYS, _NUMBERS),
    "rehash": types.void(_KEYS, _NUMBERS, _KEYS, _NUMBERS),
    "join": types.void(_NUMBERS, _DOCUMENTS, _DOCUMENTS),
    "flatten": types.int64(_NUMBERS),
    "children": types.void(_NUMBERS, _NUMBERS),
}
