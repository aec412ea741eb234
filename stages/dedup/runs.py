"""Runs of equal values in a sorted column: what `exact`, `clusters` and `repeated` all count by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def begins(column: pa.ChunkedArray) -> np.ndarray:
    """Where a value differs from the one before it, bool [rows]; the first row begins a run. No nulls."""
    values = column.combine_chunks()
    differs = np.ones(len(values), dtype=bool)
    if len(values):
        differs[1:] = pc.not_equal(values[1:], values[:-1]).to_numpy(zero_copy_only=False)
    return differs


def heads(column: pa.ChunkedArray) -> np.ndarray:
    """The row that begins the run of each row, int64 [rows]."""
    is_head = begins(column)
    return np.flatnonzero(is_head)[np.cumsum(is_head) - 1]  # the n-th run's head for the rows of the n-th run


def sizes(column: pa.ChunkedArray) -> np.ndarray:
    """How many rows each run has, int64 [runs]."""
    return np.diff(np.flatnonzero(begins(column)), append=len(column))
