"""The compiled loop of stages/settle.py: documents of components, best first, each kept or given to a survivor.

Plain functions until `filters.compiled` compiles them, from a copy of this file named by its content; so nothing of
ours is imported here. A row is a document's place in `values`; a rank is a survivor's place among those of its
component. The index of a large component is a hash table of chains: a slot holds the last survivor with a piece (some
values of a signature in a row), `before` the one before it. Slots are not compared by key: what meets in one by chance
is a candidate more, and the comparison decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

NONE = np.uint32(0xFFFFFFFF)
GIVEN, KEPT, DROPPED = 0, 1, 2  # the states of stages/settle.py
PIECE = 4
"""Values of a piece: near duplicates share many, and one that a template fills is common and says so."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HIGH = np.uint64(29)


@register_jitable
def _agreement(values: Any, a: Any, b: Any) -> Any:
    """In how many of their values two rows agree."""
    count = np.uint32(0)
    for i in range(values.shape[1]):
        count += np.uint32(values[a, i] == values[b, i])
    return np.int64(count)


@register_jitable
def _slot(values: Any, row: Any, piece: Any, mask: Any) -> Any:
    """Where a row's piece stands in the table."""
    x = np.uint64(piece) * _MIX
    for i in range(piece * PIECE, min((piece + 1) * PIECE, values.shape[1])):
        x = (x ^ np.uint64(values[row, i])) * _MIX
        x ^= x >> _HIGH
    return np.int64(x & mask)


@register_jitable
def _enter(values: Any, row: Any, rank: Any, mask: Any, head: Any, count: Any, before: Any, rare: Any) -> None:
    """Puts a survivor into the index, under each of its pieces that is not common yet."""
    pieces = before.shape[1]
    for piece in range(pieces):
        slot = _slot(values, row, piece, mask)
        if count[slot] < rare:
            before[rank, piece] = head[slot]
            head[slot] = np.uint32(rank * pieces + piece)
        if count[slot] <= rare:
            count[slot] += np.uint8(1)


@register_jitable
def _scan(values: Any, row: Any, held: Any, n: Any, need: Any) -> Any:
    """(rank, agreement) of the first of the n survivors that are most like a row; -1 where none agrees in `need`."""
    best, most = np.int64(-1), np.int64(-1)
    for rank in range(n):
        agreed = _agreement(values, row, held[rank])
        if agreed >= need and agreed > most:
            best, most = np.int64(rank), agreed
    return best, most


@register_jitable
def _look_up(
    values: Any, row: Any, held: Any, need: Any, mask: Any, head: Any, count: Any, before: Any, seen: Any, rare: Any
) -> Any:
    """The same among the survivors that share a rare piece with it, and how many they are."""
    best, most, compared = np.int64(-1), np.int64(-1), 0
    pieces = before.shape[1]
    for piece in range(pieces):
        slot = _slot(values, row, piece, mask)
        if count[slot] > rare:
            continue  # common: what a template put there
        node = head[slot]
        while node != NONE:
            rank = np.int64(node) // pieces
            node = before[rank, np.int64(node) % pieces]
            if seen[rank] == row:
                continue
            seen[rank] = row
            agreed = _agreement(values, row, held[rank])
            compared += 1
            # of equals the first, as in the scan: a chain has another order
            if agreed >= need and (agreed > most or (agreed == most and rank < best)):
                best, most = rank, agreed
    return best, most, compared


@register_jitable
def _kept_twin(twin: Any, survivor: Any, row: Any) -> Any:
    """The row, kept already, of the same record as this one; NONE where there is none."""
    other = twin[row]
    while other != NONE and survivor[other] != other:
        other = twin[other]
    return other


def settle(
    values: Any,
    order: Any,
    starts: Any,
    state: Any,
    twin: Any,
    room: Any,
    scan: Any,
    rare: Any,
    survivor: Any,
    agreement: Any,
) -> Any:
    """Fills survivor (a row; NONE for what was dropped before) and agreement with it. Returns the comparisons made.

    Over 50 lines because the state of a component is a dozen arrays, which numba would have to box to pass on.
    """
    compared = 0
    pieces = (values.shape[1] + PIECE - 1) // PIECE
    held = np.empty(len(order), np.uint32)  # rows of the survivors of a component, in order
    for component in range(len(starts) - 1):
        first, end = starts[component], starts[component + 1]
        n, need, indexed = 0, 0, 0
        mask = np.uint64(0)
        head, count = np.empty(0, np.uint32), np.empty(0, np.uint8)
        before, seen = np.empty((0, pieces), np.uint32), np.empty(0, np.uint32)
        for place in range(first, end):
            row = order[place]
            survivor[row] = NONE
            if state[row] == DROPPED:
                continue
            best, most = np.int64(-1), np.int64(values.shape[1])
            if state[row] == GIVEN:
                other = _kept_twin(twin, survivor, row)
                if other != NONE:  # kept once, however unlike the texts of one record are
                    survivor[row] = other
                    agreement[row] = _agreement(values, row, other)
                    continue
                if n <= scan:
                    best, most = _scan(values, row, held, n, need)
                    compared += n
                else:
                    if indexed == 0:
                        slots = 1024
                        while slots < (end - first) * pieces:
                            slots *= 2
                        mask = np.uint64(slots - 1)
                        head, count = np.full(slots, NONE, np.uint32), np.zeros(slots, np.uint8)
                        before = np.full((end - first, pieces), NONE, np.uint32)
                        seen = np.full(end - first, NONE, np.uint32)
                    while indexed < n:
                        _enter(values, held[indexed], indexed, mask, head, count, before, rare)
                        indexed += 1
                    best, most, looked = _look_up(values, row, held, need, mask, head, count, before, seen, rare)
                    compared += looked
            if best >= 0:
                survivor[row] = held[best]
                agreement[row] = most
                continue
            survivor[row] = row
            agreement[row] = values.shape[1]
            held[n] = row
            n += 1
            while room[need] < n:
                need += 1
    return compared


def _array(dtype: types.Type, dimensions: int = 1) -> types.Array:
    return types.Array(dtype, dimensions, "C")


_ROWS, _COUNTS = _array(types.uint32), _array(types.int64)
# One signature each: numba's cache is free of races only as long as a function has one compiled form.
SIGNATURES = {
    "settle": types.int64(
        _array(types.uint32, 2),
        _ROWS,
        _COUNTS,
        _array(types.uint8),
        _ROWS,
        _COUNTS,
        types.int64,
        types.int64,
        _ROWS,
        _COUNTS,
    )
}
