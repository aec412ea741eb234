"""Shards and ledger: the last two stages, which write what a version consists of.

Consecutive chunks, in order of input digest and place, are poured into shards of about `target_bytes` of text;
the cut depends on counts alone. A shard's kept records get their fate in the same Work that writes them. The
fates of all stages are then merged by range of id into the sorted ledger, where a record with two fates cannot
hide: keys must strictly increase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    put_file,
    put_table,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from gristmill.stages.core.fates import Fates, count_fates
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.records import Chunk, Records, alive
from gristmill.stages.core.work import Outcome, Stage, Work

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float32()),
        ("date", pa.string()),
        ("source", pa.string()),
    ],
    metadata={"gristmill.format": "1"},
)
LEDGER_ROWS = 1_000_000
LENGTH_BINS = (0, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


@dataclass(frozen=True)
class ShardPayload:
    """Consecutive chunks, and who is excluded of them (a list object)."""

    chunks: tuple[Chunk, ...]
    exclusions: ObjectRef


class Counted:
    """The balance of what the records of a shard have several of: here nothing."""

    @property
    def children_in(self) -> Tally | None:
        """Children that came in with the records; None: they have none."""
        return None

    @property
    def children(self) -> Mapping[str, Tally]:
        """Verdict -> the children that have it."""
        return {}

    def add(self, rows: pa.Table, shard: pa.Table) -> None:
        """The same records, of a chunk: as they came, and as the shard has them."""


@dataclass(frozen=True)
class WriteShards(Stage[ShardPayload]):
    """`target_bytes`: UTF-8 bytes of text after which a shard is closed; a chunk is never divided.

    `schema` is that of the shards. Its columns are those of the content, and `measured`: column -> the measure it has.
    """

    name: ClassVar[str] = "shards"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SCHEMA
    measured: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"language": "language.language", "language_score": "language.language_score"}
    )

    target_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.target_bytes < 1:
            raise ValueError(f"target_bytes={self.target_bytes}: at least 1")

    def run(self, store: Store, work: Work[ShardPayload]) -> Outcome:
        """payload: ShardPayload. Outputs `shard` and the fates of its records; facts: their statistics."""
        payload = work.payload
        exclusions = read_refs(store, payload.exclusions)
        fates, statistics, records = Fates(), Statistics(), 0
        counted = self.counted()
        with scratch() as folder:
            path = folder / "shard.parquet"
            with table_writer(path, self.schema) as writer:
                for rows in (rows for chunk in payload.chunks for rows in self.kept(store, chunk, exclusions)):
                    shard = rows.select(self.schema.names).cast(self.schema)
                    for group in self.groups(shard):
                        writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                    fates.add_kept(rows, values=rows["mark"] if "mark" in rows.schema.names else None)
                    statistics += Statistics.of(shard)
                    counted.add(rows, shard)
                    records += shard.num_rows
            ref = put_file(store, "shard", path, records)
        written, counts = fates.write(store)
        return Outcome(
            outputs=(ref, written),
            received=counts.kept,
            kept=counts.kept,
            facts=statistics,
            children_in=counted.children_in,
            children=counted.children,
        )

    def counted(self) -> Counted:
        """What is counted of a shard's records beside their number."""
        return Counted()

    def groups(self, rows: pa.Table) -> Iterator[pa.Table]:
        """The rows of a chunk in tables that are written one by one, each in row groups of its own."""
        if rows.num_rows:
            yield rows

    def kept(self, store: Store, chunk: Chunk, exclusions: Sequence[ObjectRef]) -> Iterator[pa.Table]:
        """The records of a chunk that are still in, in order of the input, with the columns of the shards, in a table
        or in several that follow each other."""
        names = {measure: column for column, measure in self.measured.items()}
        rows = alive(store, chunk, None, measures=list(names), exclusions=exclusions)
        yield rows.rename_columns([names.get(name, name) for name in rows.schema.names])


@dataclass(frozen=True)
class Statistics:
    """Counts that add up over shards: what a reader of `grist stats` asks first.

    `languages`: records by language, the most frequent first. `bytes_from`: records by length of text in bytes, each
    under the greatest of LENGTH_BINS that it reaches, as a string, because JSON knows no other keys.
    """

    documents: int = 0
    text_bytes: int = 0
    languages: Mapping[str, int] = field(default_factory=dict)
    bytes_from: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, shard: pa.Table) -> Statistics:
        """Of a table with `text` and, if its records have one, `language`."""
        lengths = pc.binary_length(shard["text"]).to_numpy()
        languages = Counter(shard["language"].to_pylist()) if "language" in shard.schema.names else Counter()
        bins = Counter(LENGTH_BINS[i] for i in np.searchsorted(LENGTH_BINS, lengths, side="right") - 1)
        by_length = {str(low): n for low, n in bins.items()}
        return cls() + cls(shard.num_rows, int(lengths.sum()), languages, by_length)  # the sum brings them in order

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Statistics:
        """Those of a version, without what others count of it."""
        return cls(**{own.name: stored[own.name] for own in fields(cls)})

    def __add__(self, other: Statistics) -> Statistics:
        languages = Counter(self.languages) + Counter(other.languages)
        by_length = Counter(self.bytes_from) + Counter(other.bytes_from)
        return Statistics(
            documents=self.documents + other.documents,
            text_bytes=self.text_bytes + other.text_bytes,
            languages=dict(sorted(languages.items(), key=lambda pair: (-pair[1], pair[0]))),
            bytes_from=dict(sorted(by_length.items(), key=lambda pair: int(pair[0]))),
        )


@dataclass(frozen=True)
class LedgerPayload:
    """The fates of all stages (a list object), and the range of ids, `high` excluded."""

    fates: ObjectRef
    low: str
    high: str


@dataclass(frozen=True)
class MergeLedger(Stage[LedgerPayload]):
    """Merges the fates of all stages in one range of ids."""

    name: ClassVar[str] = "ledger"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[LedgerPayload]) -> Outcome:
        """payload: LedgerPayload. Output `ledger`, sorted. Raises ValueError where a record has two fates."""
        payload = work.payload
        low, high = payload.low, payload.high
        hit = (pc.field("id") >= low) & (pc.field("id") < high)
        near = [ref for ref in read_refs(store, payload.fates) if ref.overlaps(low, high)]
        parts = [read_table(store, ref, filters=hit) for ref in near]
        merged = ledger.sort(pa.concat_tables([ledger.empty(), *parts]))
        ledger.check_sorted(merged)
        counts = count_fates(merged)
        return Outcome(
            outputs=(put_table(store, "ledger", merged, sorted_by="id"),),
            received=total(ledger.tally(part) for part in parts),
            kept=counts.kept,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
        )


def ledger_works(fates: ObjectRef, records: int) -> list[Work[LedgerPayload]]:
    """One Work a range of ids; the number of ranges depends on the number of records alone."""
    return [
        Work(MergeLedger(), (low, high, fates.sha256), LedgerPayload(fates, low, high), label=f"ids from {low or '0'}")
        for low, high in hash_ranges(records, LEDGER_ROWS)
    ]


def shard_works(stage: WriteShards, store: Store, records: Records) -> list[Work[ShardPayload]]:
    """One Work a shard of consecutive chunks."""
    exclusions = records.put_exclusions(store)
    works = []
    for n, (first, end) in enumerate(shard_groups([chunk.bytes for chunk in records.chunks], stage.target_bytes)):
        chunks = records.chunks[first:end]
        inputs = (*(digest for chunk in chunks for digest in chunk.digests), exclusions.sha256)
        works.append(Work(stage, inputs, ShardPayload(chunks, exclusions), label=f"shard {n}"))
    return works


def shard_groups(sizes: Sequence[int], target_bytes: int) -> list[tuple[int, int]]:
    """[first, end) of consecutive chunks per shard, closed once their text reaches `target_bytes`; at least one.

    Every chunk is in one: records can be without a text, so what is left of size 0 goes with the last that has some.
    """
    groups, first, size = [], 0, 0
    for i, bytes_of_chunk in enumerate(sizes):
        size += bytes_of_chunk
        if size >= target_bytes:
            groups.append((first, i + 1))
            first, size = i + 1, 0
    if size or not groups:
        return [*groups, (first, len(sizes))]
    return [*groups[:-1], (groups[-1][0], len(sizes))]
