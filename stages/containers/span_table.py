"""Spans: the table that a scan of a container gives, one row a record to be or a stretch of damage (`error` set).

Spans tile the decompressed bytes of the container: they follow one another without a gap, so that no byte is without a
fate. What was lost in the compressed bytes and yielded nothing is a span too, of length 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),  # decompressed bytes
        pa.field("length", pa.int64(), nullable=False),
        pa.field("c_start", pa.int64(), nullable=False),  # bytes as stored, where a reader may start
        pa.field("skip", pa.int64(), nullable=False),  # decompressed bytes from there (Parquet: rows)
        pa.field("error", pa.string()),
    ]
)
FORMAT = b"1"
OpenAt = Callable[[int], BinaryIO]
"""The bytes of a container as stored, from an offset on; the stream can seek where the container needs it."""

EXPANSION, EXPANSION_ANYWAY = 1100, 64 << 20
"""Decompressed bytes per stored byte, and for any file. More than gzip can (1,032); text has 3 to 20."""
RECORDS_ANYWAY = 1 << 20
"""Records that any file may have; beyond that one per stored byte. Lines of text take 30 stored bytes and more."""


class ScanResult(NamedTuple):
    """`sha256`, `size` of the bytes as stored; `spans` as SCHEMA, its metadata naming format and compression."""

    sha256: str
    size: int
    spans: pa.Table


def check_tiles(spans: pa.Table, length: int, *, empty_records: bool = False) -> None:
    """Raise AssertionError unless the spans follow one another from 0 to `length`.

    Only damage may be empty, unless `empty_records`: rows of a column store can take less than a byte each.
    """
    ordinal, start, size = (spans[name].to_numpy() for name in ("ordinal", "start", "length"))
    harmless = spans["error"].is_null().to_numpy()
    ends = np.concatenate([[0], np.cumsum(size)])
    wrong = (ordinal != np.arange(len(size))) | (start != ends[:-1]) | (size < 0)
    if not empty_records:
        wrong |= (size == 0) & harmless
    if wrong.any():
        row = int(wrong.argmax())
        raise AssertionError(f"span {row}, {spans.slice(row, 1).to_pylist()[0]}, does not tile at {ends[row]}")
    if ends[-1] != length:
        raise AssertionError(f"spans end at {ends[-1]}, the data at {length}")
