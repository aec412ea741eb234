"""Greedy leader clustering of a component: who of its near duplicates survives, who is dropped in whose favour.

Documents are taken best first. One that is at least `min_similarity` like a survivor before it is dropped; else it
survives itself (Hartigan 1975, ch. 3; CD-HIT and UCLUST cluster sequences so). Similarity is estimated: of 112 values
two signatures agree in a share that scatters by .04 around the Jaccard similarity. So how many values have to agree
grows with the number of survivors there are to agree with by chance (`most_survivors`). A document is compared with
every survivor of its component while these are few; beyond SCAN_LIMIT of them with those alone that share a rare piece
of its signature. Error rates and what the bound costs: docs/decisions/09. The loops: stages/clusters/settle_kernels.py.
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

from gristmill.filters.signatures.compiled import load

SOURCE = Path(__file__).with_name("settle_kernels.py")
NONE = np.uint32(0xFFFFFFFF)
UNDECIDED, KEPT, DROPPED = 0, 1, 2
"""The state of a row: new, a survivor of an earlier version, dropped by an earlier version."""
PIECE = 4
"""Values of a piece: near duplicates share many, and one that a template fills is common and says so."""
SCAN_LIMIT = 1024
"""Survivors of one component that a document is compared with one by one: about 10 us."""
BUCKET_CAP = 32
"""Survivors that may share a piece of a signature before it says nothing: at most 28 * 32 comparisons a document."""
FALSE_DROPS = Fraction(1, 4)
"""How often a document that is just `min_similarity` like all survivors may be dropped."""
_UNBOUNDED = 1 << 62


class Settled(NamedTuple):
    """What became of each row.

    survivor: a row, its own for who survives, NONE for who was dropped before; uint32 [rows]. agreement: in how many
    values of the signature the two agree; int64 [rows]. compared: comparisons made, of all rows.
    """

    survivor: np.ndarray
    agreement: np.ndarray
    compared: int


@lru_cache(maxsize=1)
def kernels() -> dict[str, Callable[..., Any]]:
    """The compiled loops, loaded once a process, from numba's cache if they were compiled before."""
    return load(SOURCE)


@lru_cache(maxsize=8)
def most_survivors(width: int, min_similarity: float) -> tuple[int, ...]:
    """Among how many survivors at most an agreement in 0, 1, ..., `width` values counts as alike.

    If a document's similarity to each of n survivors is `min_similarity`, one of them agrees with it in k values or
    more with a probability of at most n * P(Binomial(width, min_similarity) >= k), by the union bound: that has to
    stay within FALSE_DROPS. Equal signatures are always alike.
    """
    share = Fraction(min_similarity)  # fractions are exact, so the line is the same on every machine
    tail, bounds = Fraction(0), []
    for agreed in range(width, -1, -1):  # from the far end, so that `tail` adds up to P(>= agreed)
        tail += comb(width, agreed) * share**agreed * (1 - share) ** (width - agreed)
        bounds.append(min(int(FALSE_DROPS / tail), _UNBOUNDED) if tail else _UNBOUNDED)
    bounds.reverse()  # now by agreement, from 0 on: the more values agree, the more survivors there may be
    bounds[width] = _UNBOUNDED
    return tuple(bounds)


def _from(width: int, min_similarity: float) -> tuple[int, ...]:
    """The same where similarity is no estimate: any number of survivors from that share of values on."""
    least = Fraction(min_similarity) * width
    return tuple(_UNBOUNDED if agreed >= least else 0 for agreed in range(width + 1))


def settle(
    values: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    state: np.ndarray,
    ids: pa.Array,
    min_similarity: float | None,
    *,
    estimated: bool = True,
    places: np.ndarray | None = None,
) -> Settled:
    """The survivors of some components.

    values: signatures, uint32 [rows, width]. order: rows by component, in each the best first; int [members]. starts:
    where components begin in `order`, and its length; int [components + 1]. state: UNDECIDED | KEPT | DROPPED, uint8
    [rows]; KEPT rows come first in their component. ids: record ids of the rows. With `min_similarity` None all of a
    component are alike, and `values` are not read. Unless it is `estimated`, the share of values that agree is the
    similarity itself, and what is alike does not depend on how many survivors there are. `places`: which values make
    a piece, int64 [pieces, values], filled up with -1; None: each PIECE in a row.
    """
    bounds: tuple[int, ...]
    if min_similarity is None:
        # Signatures of width 0 agree in all of their values: the first of a component is like all others.
        values = np.empty((len(values), 0), np.uint32)
        bounds, scan_limit = (_UNBOUNDED,), _UNBOUNDED
    else:
        width = values.shape[1]
        bounds = most_survivors(width, min_similarity) if estimated else _from(width, min_similarity)
        scan_limit = SCAN_LIMIT
    survivor, agreement = np.full(len(values), NONE, np.uint32), np.zeros(len(values), np.int64)
    compared = kernels()["settle"](
        np.ascontiguousarray(values, np.uint32),
        np.ascontiguousarray(order, np.uint32),
        np.ascontiguousarray(starts, np.int64),
        np.ascontiguousarray(state, np.uint8),
        twins(ids, order, starts),
        np.array(bounds, np.int64),
        scan_limit,
        np.ascontiguousarray(pieces_of(values.shape[1]) if places is None else places, np.int64),
        BUCKET_CAP,
        survivor,
        agreement,
    )
    return Settled(survivor, agreement, int(compared))


def pieces_of(width: int) -> np.ndarray:
    """Each PIECE values in a row of a signature, int64 [pieces, PIECE]; the last piece is filled up with -1."""
    places = np.arange(-(-width // PIECE) * PIECE).reshape(-1, PIECE)
    return np.where(places < width, places, -1)


def twins(ids: pa.Array, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each row the last one before it in its component with the same id, or NONE; uint32 [rows].

    One record has several rows where recipes of several versions extracted other texts from it.
    """
    twin = np.full(len(ids), NONE, np.uint32)
    codes = ids.dictionary_encode().indices.to_numpy()  # equal ids are equal small integers
    repeated = np.bincount(codes[order], minlength=1)[codes] > 1
    last: dict[tuple[int, int], int] = {}  # (component, id) -> the row met last
    for place in np.flatnonzero(repeated[order]).tolist():  # few, so that plain Python will do
        row = int(order[place])
        component = int(np.searchsorted(starts, place, side="right"))
        key = (component, int(codes[row]))
        twin[row] = last.get(key, NONE)
        last[key] = row
    return twin
