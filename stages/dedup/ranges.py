"""Ranges of words that stand in repeated runs, and hashes as sorted tables have them: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


class Ranges(NamedTuple):
    """Ranges of words, in order of documents and places: int64 each, `ends` excluded."""

    documents: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def lists(self, documents: int) -> pa.ListArray:
        """Of each of so many documents: structs of start and end, int32."""
        offsets = np.searchsorted(self.documents, np.arange(documents + 1)).astype(np.int32)
        columns = [pa.array(side.astype(np.int32)) for side in (self.starts, self.ends)]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(columns, names=["start", "end"]))


def ranges_of(documents: np.ndarray, at: np.ndarray, tokens: int) -> Ranges:
    """Where words stand in a run of so many that begins at one of these places; ranges that touch are one."""
    documents, at = documents.astype(np.int64), at.astype(np.int64)
    order = np.lexsort((at, documents))
    documents, at = documents[order], at[order]
    opens = np.ones(len(at), bool)
    opens[1:] = (documents[1:] != documents[:-1]) | (at[1:] > at[:-1] + tokens)
    first = np.flatnonzero(opens)
    last = np.concatenate([first[1:], [len(at)]])[: len(first)] - 1
    return Ranges(documents[first], at[first], at[last] + tokens)


def in_hex(hashes: np.ndarray) -> pa.StringArray:
    """Each of these uint64 in 16 hex digits, in the order of the numbers."""
    octets = hashes.astype(">u8").view(np.uint8)
    digits = np.stack([_HEX[octets >> 4], _HEX[octets & 15]], axis=1)
    offsets = np.arange(0, 16 * len(hashes) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(hashes), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits)))


def longest_range(row: Mapping[str, Any]) -> str:
    """In words, of a row with `share`, `ranges` and `words`: the share, and the longest range, in words from 0."""
    longest = max(row["ranges"], key=lambda part: (part["end"] - part["start"], -part["start"]))
    return f"{row['share']:.4g}; words {longest['start']} to {longest['end']} of {row['words']}"
