"""The compiled loop of stages/clusters/settle.py: greedy leader clustering of each component, best document first.

Plain functions until `filters.signatures.compiled` compiles them, from a copy of this file named by its content; so
nothing of this project is imported here. A row is a document's place in `values`; a rank is a survivor's place among
those of its component, in the order in which they were kept. The index of a large component is a hash table of chains:
a slot holds the last survivor with a piece (some values of a signature), `before` the one before it. Slots are not
compared by key: what meets in one by chance is a candidate more, and the comparison decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

NONE = np.uint32(0xFFFFFFFF)
UNDECIDED, KEPT, DROPPED = 0, 1, 2  # the states of stages/clusters/settle.py
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplication spreads a key over the high bits
_HIGH = np.uint64(29)


@register_jitable
def _agreement(values: Any, a: Any, b: Any) -> Any:
    """In how many of their values two rows agree: int64."""
    # uint32 additions without a branch, which the compiler turns into vector instructions.
    count = np.uint32(0)
    for i in range(values.shape[1]):
        count += np.uint32(values[a, i] == values[b, i])
    return np.int64(count)


@register_jitable
def _slot(values: Any, row: Any, places: Any, piece: Any, mask: Any) -> Any:
    """Where a row's piece stands in the table: an int64 up to `mask`, which is a power of two minus one."""
    # The number of the piece is hashed in: equal values at other places of a signature are of other hash functions.
    x = np.uint64(piece) * _MIX
    for i in places[piece]:
        if i < 0:  # a piece with fewer values than others
            break
        x = (x ^ np.uint64(values[row, i])) * _MIX
        x ^= x >> _HIGH  # the mask takes the low bits, which a multiplication mixes least
    return np.int64(x & mask)


@register_jitable
def _new_index(members: Any, pieces: Any) -> Any:
    """An empty index of the survivors among so many members: (mask, head, count, before, seen).

    head: the last entry of each slot, `rank * pieces + piece`, or NONE. count: entries that a slot got or would have
    got, up to one more than the cap. before [members, pieces]: the entry before each in its chain. seen [members]: the
    row that a survivor was last compared with, so that two shared pieces cost one comparison.
    """
    slots = 1
    while slots < members * pieces:
        slots *= 2
    mask = np.uint64(slots - 1)
    head, count = np.full(slots, NONE, np.uint32), np.zeros(slots, np.uint8)
    before, seen = np.full((members, pieces), NONE, np.uint32), np.full(members, NONE, np.uint32)
    return mask, head, count, before, seen


@register_jitable
def _enter(values: Any, row: Any, rank: Any, places: Any, index: Any, bucket_cap: Any) -> None:
    """Puts a survivor into the index, under each of its pieces that is not common yet."""
    mask, head, count, before, _ = index
    pieces = before.shape[1]
    for piece in range(pieces):
        slot = _slot(values, row, places, piece, mask)
        if count[slot] < bucket_cap:
            before[rank, piece] = head[slot]
            head[slot] = np.uint32(rank * pieces + piece)
        if count[slot] <= bucket_cap:  # one beyond the cap says "common", and uint8 never overflows
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
def _look_up(values: Any, row: Any, held: Any, need: Any, places: Any, index: Any, bucket_cap: Any) -> Any:
    """(rank, agreement, comparisons): as `_scan`, but of the survivors that share a rare piece with the row alone."""
    mask, head, count, before, seen = index
    best, most, compared = np.int64(-1), np.int64(-1), 0
    pieces = before.shape[1]
    for piece in range(pieces):
        slot = _slot(values, row, places, piece, mask)
        if count[slot] > bucket_cap:
            continue  # common, as a template makes it: to compare with all who have it is what the index is to avoid
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


@register_jitable
def _settle_component(
    values: Any,
    members: Any,
    state: Any,
    twin: Any,
    most_survivors: Any,
    scan_limit: Any,
    places: Any,
    bucket_cap: Any,
    held: Any,
    survivor: Any,
    agreement: Any,
) -> Any:
    """Fills `survivor` and `agreement` of the rows in `members`, the best first; returns the comparisons made."""
    pieces = len(places)
    index = _new_index(0, pieces)  # of nothing: numba wants the type of a variable known before the loop
    # n: survivors so far, held[:n]. need: in how many values a row has to agree with one of them. indexed: how many of
    # them are in the index, which is built when the component outgrows the scan.
    n, need, indexed, compared = 0, 0, 0, 0
    for row in members:
        survivor[row] = NONE
        if state[row] == DROPPED:
            continue
        if state[row] == UNDECIDED:
            other = _kept_twin(twin, survivor, row)
            if other != NONE:  # kept once, however unlike the texts of one record are
                survivor[row] = other
                agreement[row] = _agreement(values, row, other)
                continue
            if n <= scan_limit:
                best, most = _scan(values, row, held, n, need)
                compared += n
            else:
                if indexed == 0:
                    index = _new_index(len(members), pieces)
                while indexed < n:  # all that the scan knew at first, then those that were kept since the last row
                    _enter(values, held[indexed], indexed, places, index, bucket_cap)
                    indexed += 1
                best, most, looked_up = _look_up(values, row, held, need, places, index, bucket_cap)
                compared += looked_up
            if best >= 0:
                survivor[row], agreement[row] = held[best], most
                continue
        survivor[row], agreement[row] = row, values.shape[1]
        held[n] = row
        n += 1
        while most_survivors[need] < n:  # one survivor more to agree with by chance: the line goes up
            need += 1
    return compared


def settle(
    values: Any,
    order: Any,
    starts: Any,
    state: Any,
    twin: Any,
    most_survivors: Any,
    scan_limit: Any,
    places: Any,
    bucket_cap: Any,
    survivor: Any,
    agreement: Any,
) -> Any:
    """Fills survivor (a row; NONE for what was dropped before) and agreement with it. Returns the comparisons made.

    `order[starts[i]:starts[i + 1]]` are the rows of component i, the best first; the rest:
    `stages.clusters.settle.settle`.
    """
    compared = 0
    held = np.empty(len(order), np.uint32)  # rows of a component's survivors, in order; one buffer for all components
    for component in range(len(starts) - 1):
        members = order[starts[component] : starts[component + 1]]
        compared += _settle_component(
            values, members, state, twin, most_survivors, scan_limit, places, bucket_cap, held, survivor, agreement
        )
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
        _array(types.int64, 2),
        types.int64,
        _ROWS,
        _COUNTS,
    )
}
