"""The index of a shard: where each sample lies in the tar, what its crc32 is and what decides its cost, and which tar
it belongs to.

A Parquet file of fixed settings. Before a reader takes a sample it knows that index and tar are those that the manifest
names: training on other data has no other symptom. Format 1 had no counts but tokens: they are null when it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.model.shards.counts import Counts

FORMAT = 2
COUNTS = Counts._fields[1:]
"""Columns that format 1 had not."""
_KINDS = {"key": pa.string(), "offset": pa.int64(), "length": pa.int64(), "crc32": pa.uint32(), "tokens": pa.int64()}
_KINDS |= dict.fromkeys(COUNTS, pa.int64())
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _KINDS.items()])
"""The index, a row a sample in the tar's order. offset, length: bytes of its members with headers and padding; the last
five are `Counts`, of which `tokens` is what the writer was told.

Its metadata: gristmill.format, tar.bytes and tar.sha256 of the tar it belongs to, index.crc32 of its own columns.
"""
_SCHEMA_1 = pa.schema([field for field in SCHEMA if field.name not in COUNTS])
_READ = pa.schema([field.with_nullable(field.name in COUNTS) for field in SCHEMA])


class DamagedShard(OSError):
    """A shard whose bytes are not those that were written; names it, what is wrong, and the way out."""


@dataclass(frozen=True)
class ShardFile:
    """A shard by the names to give to `open`, and what its manifest says of the tar."""

    tar: str
    index: str
    samples: int
    bytes: int
    sha256: str


def damaged(shard: ShardFile, what: str) -> DamagedShard:
    """What to raise for a shard: its names, what is wrong, and the way out."""
    return DamagedShard(
        f"shard {shard.tar} (index {shard.index}): {what}. Put back the tar with sha256 {shard.sha256} and the index"
        " written with it, or write the shard again; a run then goes on from the position it had reached"
    )


@contextmanager
def named(shard: ShardFile) -> Iterator[None]:
    """Around what `open` and its streams do. Only absence is damage; a network that fails is not, but gets the name."""
    try:
        yield
    except (FileNotFoundError, KeyError) as error:
        raise damaged(shard, f"is missing ({error})") from error
    except Exception as error:
        error.add_note(f"while reading shard {shard.tar} (index {shard.index})")
        raise


def write_index(path: Path, rows: Sequence[tuple[object, ...]], tar_bytes: int, tar_sha256: str) -> None:
    """Writes the index of a tar; each of `rows` has the fields of SCHEMA."""
    columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    metadata = {"gristmill.format": str(FORMAT), "tar.bytes": str(tar_bytes), "tar.sha256": tar_sha256}
    pq.write_table(
        table.replace_schema_metadata(metadata | {"index.crc32": str(_content_crc32(table))}),
        path,
        row_group_size=1 << 16,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="2.0",
        write_page_checksum=True,
    )


def parse_index(shard: ShardFile, data: bytes) -> pa.Table:
    """The index as a table; COUNTS are null in one of format 1. Raises DamagedShard, and ValueError for a format that a
    later release wrote."""
    try:
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        version = int(metadata["gristmill.format"])
        recorded = (int(metadata["tar.bytes"]), metadata["tar.sha256"], table.num_rows)
        crc32 = int(metadata["index.crc32"])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise damaged(shard, f"its index cannot be read ({error})") from error
    if version > FORMAT:
        raise ValueError(
            f"shard {shard.tar} (index {shard.index}) has format {version}, this release reads up to {FORMAT}: upgrade"
            " gristmill, or write the shard again with this release"
        )
    if recorded != (expected := (shard.bytes, shard.sha256, shard.samples)):
        raise damaged(shard, f"its index is of another tar: bytes, sha256, samples are {recorded}, not {expected}")
    if not table.schema.equals(SCHEMA if version > 1 else _SCHEMA_1):
        raise damaged(shard, f"its index has the columns {table.schema.names} of other types or names")
    if _content_crc32(table) != crc32:
        raise damaged(shard, "its index does not say what was written")
    known = {name: table[name] for name in table.schema.names}
    columns = [known.get(field.name, pa.nulls(table.num_rows, field.type)) for field in _READ]
    return pa.Table.from_arrays(columns, schema=_READ)


def _content_crc32(table: pa.Table) -> int:
    """Of an index's columns. Parquet's checksums leave page headers out: one changed bit there made all tokens 0."""
    keys = table["key"].combine_chunks()
    crc32 = zlib.crc32(pc.binary_join(pa.ListArray.from_arrays([0, len(keys)], keys), "\n")[0].as_buffer())
    for name in table.schema.names[1:]:
        crc32 = zlib.crc32(table[name].to_numpy().tobytes(), crc32)
    return crc32
