"""Settling components: of near duplicates, best first, who stays, and who goes in whose favour (loops: settle_kernels).

A document goes if it is at least `min_similarity` like a survivor that came before it; else it stays, and becomes a
survivor itself. Similarity is estimated: of 112 values two signatures agree in a share that scatters by .04 around the
Jaccard similarity. So how many values have to agree grows with the number of survivors there are to agree with by
chance (`rooms`). A document meets every survivor of its component while these are few; beyond `SCAN` of them those
alone that share a rare piece of its signature. Reasons, error rates and what the bound costs: docs/decisions/09.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from filters.compiled import load

SOURCE = Path(__file__).with_name("settle_kernels.py")
NONE = np.uint32(0xFFFFFFFF)
GIVEN, KEPT, DROPPED = 0, 1, 2
"""To be settled; a survivor of an earlier version; dropped by one."""
SCAN = 1024
"""Survivors of one component that a document is compared with one by one: about 10 us."""
RARE = 32
"""Survivors that may share a piece of a signature before it says nothing: at most 28 * 32 comparisons a document."""
DOUBT = Fraction(1, 4)
"""How often a document that is just `min_similarity` like all survivors may be dropped."""
_EVERYONE = 1 << 62


class Settled(NamedTuple):
    """A row each. `survivor`: a row, its own for who stays, NONE for who was dropped before; uint32. `agreement`: in
    how many values of the signature it agrees with it; int64. `compared`: comparisons made, of all rows."""

    survivor: np.ndarray
    agreement: np.ndarray
    compared: int


@lru_cache(maxsize=1)
def kernels() -> dict[str, Callable[..., Any]]:
    """The loops of this process, found compiled or compiled at the first call."""
    return load(SOURCE)


@lru_cache(maxsize=8)
def rooms(width: int, min_similarity: float) -> tuple[int, ...]:
    """Among how many survivors at most an agreement in 0, 1, ..., `width` values counts as alike.

    If a document's similarity to each of n survivors is `min_similarity`, one of them agrees with it in k values or
    more with a probability of at most n * P(Binomial(width, min_similarity) >= k): that has to stay within `DOUBT`.
    In fractions, so that it is the same on every machine. Equal signatures are always alike.
    """
    share = Fraction(min_similarity)
    tail, found = Fraction(0), []
    for agreed in range(width, -1, -1):
        tail += comb(width, agreed) * share**agreed * (1 - share) ** (width - agreed)
        found.append(min(int(DOUBT / tail), _EVERYONE) if tail else _EVERYONE)
    return (*found[:0:-1], _EVERYONE)


def settle(
    values: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    state: np.ndarray,
    ids: pa.Array,
    min_similarity: float | None,
) -> Settled:
    """values: signatures, uint32 [rows, width]. order: rows by component, in each the best first. starts: where
    components begin in `order`, and its length. state: GIVEN | KEPT | DROPPED, uint8 [rows]. ids: of the rows.

    Without `min_similarity` all of a component are alike, and `values` are not looked at.
    """
    room: tuple[int, ...] = (_EVERYONE,)
    scan = _EVERYONE
    if min_similarity is None:
        values = np.empty((len(values), 0), np.uint32)
    else:
        room, scan = rooms(values.shape[1], min_similarity), SCAN
    survivor, agreement = np.full(len(values), NONE, np.uint32), np.zeros(len(values), np.int64)
    compared = kernels()["settle"](
        np.ascontiguousarray(values, np.uint32),
        np.ascontiguousarray(order, np.uint32),
        np.ascontiguousarray(starts, np.int64),
        np.ascontiguousarray(state, np.uint8),
        twins(ids, order, starts),
        np.array(room, np.int64),
        scan,
        RARE,
        survivor,
        agreement,
    )
    return Settled(survivor, agreement, int(compared))


def twins(ids: pa.Array, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each row the last one before it in its component with the same id, or NONE; uint32 [rows]."""
    twin = np.full(len(ids), NONE, np.uint32)
    codes = ids.dictionary_encode().indices.to_numpy()
    several = np.bincount(codes[order], minlength=1)[codes] > 1
    last: dict[tuple[int, int], int] = {}
    for place in np.flatnonzero(several[order]).tolist():  # a record met again with another text: few
        row = int(order[place])
        key = (int(np.searchsorted(starts, place, side="right")), int(codes[row]))
        twin[row] = last.get(key, NONE)
        last[key] = row
    return twin
