"""The compiled loops of stages/near/union_find.py: tables from hash to document, and union-find.

Plain functions until `filters.signatures.compiled` compiles them, from a copy of this file named by its content; so
nothing of this project is imported here. Arrays that are only read may be read-only, as Arrow's are. Tables have a
power of two of slots and are probed linearly; a quarter of the slots stays empty (stages/near/union_find.py), so that a
probe ends soon.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

NONE = np.uint32(0xFFFFFFFF)
_ONE = np.uint64(1)
_SHIFT = np.uint64(8)
"""Which bits of a hash say the slot: above the lowest, which the keys give up, and below the highest, which are all
equal where a Work takes one range of the hashes (stages/near/link.py)."""


def add_new(hashes: Any, documents: Any, keys: Any, first: Any, child: Any, root: Any) -> Any:
    """Puts hashes [n] into the table (keys, first [slots]); writes a (child, root) for each that was there already.

    A document is linked to the first one of its bucket, not to all of them: n - 1 edges a bucket, which hang together
    just as all n * (n - 1) / 2 do. Returns (edges written, hashes added).
    """
    mask = np.uint64(len(keys) - 1)
    written = added = 0
    for i in range(len(hashes)):
        key = hashes[i] | _ONE  # 0 marks an empty slot, so no key may be 0; costs a bit of 64
        slot = (key >> _SHIFT) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + _ONE) & mask
        if keys[slot] == 0:
            keys[slot] = key
            first[slot] = documents[i]
            added += 1
        else:
            child[written] = documents[i]
            root[written] = first[slot]
            written += 1
    return written, added


def meet_old(hashes: Any, documents: Any, keys: Any, old: Any) -> None:
    """Notes at each hash of the table the first of these earlier documents that has it; adds no hash.

    So memory goes with the new documents, however many earlier ones stream past.
    """
    mask = np.uint64(len(keys) - 1)
    for i in range(len(hashes)):
        key = hashes[i] | _ONE
        slot = (key >> _SHIFT) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + _ONE) & mask
        if keys[slot] == key and old[slot] == NONE:
            old[slot] = documents[i]


def rehash(keys: Any, first: Any, new_keys: Any, new_first: Any) -> None:
    """Copies the entries of a table into a greater, empty one. Keys are distinct, so an empty slot is all it seeks."""
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
    """Unites the sets of a[i] and b[i]. `parent` [documents]: a root is its own parent, and the smallest of its set."""
    for i in range(len(a)):
        x, y = a[i], b[i]
        # Find with path halving: each step points at the grandparent, which keeps trees flat at one write a step.
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        # The smaller root wins, whatever the sizes: the result then depends on the edges alone, not on their order.
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y


def flatten(parent: Any) -> Any:
    """Points every document at its root, and counts those that are no root.

    One pass in ascending order will do: a parent is never greater than its child, so it points at its root already.
    """
    children = 0
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
        if parent[i] != i:
            children += 1
    return children


def children(parent: Any, out: Any) -> None:
    """Writes the documents that are no root to `out` [children], ascending. After `flatten`."""
    written = 0
    for i in range(len(parent)):
        if parent[i] != i:
            out[written] = i
            written += 1


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
