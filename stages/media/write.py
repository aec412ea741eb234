"""Shards of records with media: the columns of a sample, and their media.

A row group is what a reader has in memory at a time, so it is bounded in bytes and not in rows alone: a record of a
megabyte stands beside fifteen others, a caption without a picture beside thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import media
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.stages.core.records import Chunk, alive_groups
from gristmill.stages.core.shards import Counted, WriteShards

ROW_GROUP_BYTES = 16 << 20


class CountedMedia(Counted):
    """The media of a shard's records: counted as forming noted them, and once more as they lie in the shard."""

    def __init__(self) -> None:
        self.came, self.stored = Tally(), Tally()

    def add(self, rows: pa.Table, shard: pa.Table) -> None:
        """Counts the media of these records."""
        self.came += _tally(rows["id"], rows["digests"].to_pylist())
        self.stored += _tally(shard["id"], self.digests(shard))

    def digests(self, shard: pa.Table) -> list[list[str]]:
        """Of each row of a shard, the sha256 that it holds, in the order in which forming noted them."""
        return digests_of(shard["media"])

    @property
    def children_in(self) -> Tally:
        """Those that forming noted."""
        return self.came

    @property
    def children(self) -> dict[str, Tally]:
        """Those that lie in the shard."""
        return {"stored": self.stored}


class CountedParts(CountedMedia):
    """Media, then the files that some of them are parts of: a column `origins` of structs with a sha256."""

    def digests(self, shard: pa.Table) -> list[list[str]]:
        """Of each row of a shard."""
        columns = (digests_of(shard[name]) for name in ("media", "origins"))
        return [media + files for media, files in zip(*columns, strict=True)]


def digests_of(column: pa.ChunkedArray) -> list[list[str]]:
    """The field `sha256` of the structs in each row of a column of lists of them."""
    lists = [pa.ListArray.from_arrays(part.offsets, pc.struct_field(part.values, "sha256")) for part in column.chunks]
    digests: list[list[str]] = pa.chunked_array(lists, pa.list_(pa.string())).to_pylist()
    return digests


def _tally(ids: pa.ChunkedArray, digests: list[list[str]]) -> Tally:
    """Of records and the digests of their media."""
    pairs = zip(ids.to_pylist(), digests, strict=True)
    return Tally.of(media.key(record, n, sha256) for record, own in pairs for n, sha256 in enumerate(own))


@dataclass(frozen=True)
class WriteMedia(WriteShards):
    """Shards of samples with their media. `target_bytes`: of text and media."""

    measured: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def counted(self) -> CountedMedia:
        """Their media."""
        return CountedMedia()

    def kept(self, store: Store, chunk: Chunk, exclusions: Sequence[ObjectRef]) -> Iterator[pa.Table]:
        """As every such stage; never more in memory than a row group of the content and one of the shard."""
        held, size = list[tuple[int, pa.Table]](), 0
        for block, rows in alive_groups(store, chunk, exclusions):
            if not rows.num_rows:
                continue
            held.append((block, rows))
            size += int(media_bytes(rows).sum())
            if size <= ROW_GROUP_BYTES:  # all of it has room in one group: many rows with little are looked at once
                continue
            whole = list(groups_of(_table(held)))[:-1]  # the last one may have room for more
            yield from whole
            held = _behind(held, sum(group.num_rows for group in whole))
            size = sum(int(media_bytes(left).sum()) for _, left in held)
        if held:
            yield from groups_of(_table(held))

    def groups(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Rows up to ROW_GROUP_BYTES of media, one at least."""
        yield from groups_of(rows)


def _table(held: Sequence[tuple[int, pa.Table]]) -> pa.Table:
    """Rows of numbered blocks in order. The bytes of a row group depend on how its rows are cut into chunks, and must
    not on how they came: of a block all are one chunk."""
    blocks = (pa.concat_tables(rows for _, rows in own) for _, own in groupby(held, key=lambda pair: pair[0]))
    return pa.concat_tables(block.combine_chunks() for block in blocks)


def _behind(held: Sequence[tuple[int, pa.Table]], count: int) -> list[tuple[int, pa.Table]]:
    """Without the first `count` rows."""
    left = list[tuple[int, pa.Table]]()
    for block, rows in held:
        gone = min(count, rows.num_rows)
        count -= gone
        if gone < rows.num_rows:
            left.append((block, rows.slice(gone)))
    return left


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
