"""Fitting: which records of an object of tokens can be drawn, by lengths and media alone, and in which order of keys.

Plan, account and pack each ask this of the same tables, so that they speak of the same records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

UNITS = ("crops", "frames")
"""What encoders take of media: crops of images, global views included, and frames of clips. Columns of tables of
tokens and of lengths, in this order wherever numbers of each stand beside each other."""
Bounds = Sequence[int | None]
"""How much of each unit a window may have; None: as much as its tokens have room for."""
NO_BOUNDS: Bounds = (None,) * len(UNITS)


class Fitting(NamedTuple):
    """The records of one object of tokens that can be drawn. row: in the table, int64; key: mixed with the seed,
    uint64; tokens: int64; taken: of each unit, int64 [rows, units]. All of one length."""

    row: np.ndarray
    key: np.ndarray
    tokens: np.ndarray
    taken: np.ndarray


def mixed(keys: np.ndarray, seed: int) -> np.ndarray:
    """Keys in an order of the seed's own: the finaliser of SplitMix64 (Steele et al. 2014), uint64 [rows].

    It is a bijection: other keys stay other keys, and any part of their order is as good as a draw.
    """
    x = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fitting(lengths: pa.Table, window: int, samples: bool, seed: int, bounds: Bounds = NO_BOUNDS) -> Fitting:
    """The rows of a table of lengths (`stages.mix.tokenize.LENGTHS`) that can be drawn: all documents, since they may
    be cut, and the samples that fit a `window` of tokens and of what `bounds` allow."""
    key, tokens, taken = lengths["key"].to_numpy(), lengths["tokens"].to_numpy(), taken_of(lengths)
    fits = tokens <= window if samples else np.ones(len(tokens), bool)
    rows = np.flatnonzero(fits & within(taken, bounds))
    return Fitting(rows, mixed(key[rows], seed), tokens[rows].astype(np.int64), taken[rows])


def within(taken: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Which rows take no more of any unit than it is allowed, bool [rows]."""
    return np.logical_and.reduce(
        [np.ones(len(taken), bool), *(taken[:, at] <= most for at, most in enumerate(bounds) if most is not None)]
    )


def beyond(taken: np.ndarray, bounds: Bounds) -> int:
    """The first unit of which a record, int64 [units], takes more than it is allowed."""
    return next(at for at, most in enumerate(bounds) if most is not None and taken[at] > most)


def taken_of(table: pa.Table) -> np.ndarray:
    """What the rows of a table of tokens or of lengths take of each unit, int64 [rows, units]: 0 where there are no
    media."""
    taken = np.zeros((table.num_rows, len(UNITS)), np.int64)
    for at, unit in enumerate(UNITS):
        if unit in table.column_names:
            taken[:, at] = table[unit].to_numpy()
    return taken
