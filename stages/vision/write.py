"""Shards of records with images: the columns of a sample, and their media.

A row group is what a reader has in memory at a time, so it is bounded in bytes and not in rows alone: a record of a
megabyte stands beside fifteen others, a caption without a picture beside thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.stages.core.shards import WriteShards
from gristmill.stages.text.instruct import SHARD as SAMPLE
from gristmill.stages.vision.form import SCHEMA

ROW_GROUP_BYTES = 16 << 20
SHARD = pa.schema([*SAMPLE, SCHEMA.field("media")], metadata={"gristmill.format": "1"})


@dataclass(frozen=True)
class WriteImages(WriteShards):
    """Shards of samples with their media. `target_bytes`: of both."""

    name: ClassVar[str] = "image_shards"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SHARD
    measured: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def groups(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Rows up to ROW_GROUP_BYTES of media, one at least."""
        yield from groups_of(rows)


def groups_of(rows: pa.Table) -> Iterator[pa.Table]:
    """Consecutive rows with a column `media`, as many as have ROW_GROUP_BYTES together, one at least."""
    upto = np.cumsum(media_bytes(rows))
    first = 0
    while first < rows.num_rows:
        before = int(upto[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(upto, before + ROW_GROUP_BYTES, side="right")))
        yield rows.slice(first, end - first)
        first = end


def media_bytes(rows: pa.Table) -> np.ndarray:
    """Bytes of the media of each row, int64 [rows]."""
    sizes = np.zeros(rows.num_rows, np.int64)
    first = 0
    for chunk in rows["media"].chunks:
        data = pc.struct_field(pc.list_flatten(chunk), "data")
        of_rows = pc.list_parent_indices(chunk).to_numpy()
        np.add.at(sizes, first + of_rows, pc.fill_null(pc.binary_length(data), 0).to_numpy(zero_copy_only=False))
        first += len(chunk)
    return sizes
