"""Fitting: which records of an object of tokens can be drawn, by lengths and crops alone, and in which order of keys.

Plan, account and pack each ask this of the same tables, so that they speak of the same records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa


class Fitting(NamedTuple):
    """The records of one object of tokens that can be drawn. row: in the table, int64; key: mixed with the seed,
    uint64; tokens, crops: int64. All of one length."""

    row: np.ndarray
    key: np.ndarray
    tokens: np.ndarray
    crops: np.ndarray


def mixed(keys: np.ndarray, seed: int) -> np.ndarray:
    """Keys in an order of the seed's own: the finaliser of SplitMix64 (Steele et al. 2014), uint64 [rows].

    It is a bijection: other keys stay other keys, and any part of their order is as good as a draw.
    """
    x = keys + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fitting(lengths: pa.Table, window: int, samples: bool, seed: int, max_crops: int | None = None) -> Fitting:
    """The rows of a table of lengths (`stages.mix.tokenize.LENGTHS`) that can be drawn: all documents, since they may
    be cut, and the samples that fit a `window` of tokens and of `max_crops`."""
    key, tokens, crops = lengths["key"].to_numpy(), lengths["tokens"].to_numpy(), crops_of(lengths)
    fits = tokens <= window if samples else np.ones(len(tokens), bool)
    if max_crops is not None:
        fits &= crops <= max_crops
    rows = np.flatnonzero(fits)
    return Fitting(rows, mixed(key[rows], seed), tokens[rows].astype(np.int64), crops[rows])


def crops_of(table: pa.Table) -> np.ndarray:
    """The crops of each row of a table of tokens or of lengths, int64 [rows]: 0 where none have images."""
    if "crops" not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    return table["crops"].to_numpy().astype(np.int64)
