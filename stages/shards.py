"""Shards and ledger: the last two stages, which write what a version consists of.

Consecutive chunks, in order of input digest and place, are poured into shards of about `target_bytes` of text;
the cut depends on counts alone. A shard's kept records get their fate in the same Work that writes them. The
fates of all stages are then merged by range of id into the sorted ledger, where a record with two fates cannot
hide: keys must strictly increase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake import ledger
from lake.balance import Tally
from lake.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    put_file,
    put_table,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from lake.receipt import Receipt, StageId
from lake.store import Store
from stages.exact import hash_ranges
from stages.fates import Fates, count_fates
from stages.losers import without_losers
from stages.screen import passed_rows
from stages.work import Outcome, Work, stage_id

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
class WriteShards:
    """`target_bytes`: UTF-8 bytes of text after which a shard is closed; a chunk is never divided."""

    name: ClassVar[str] = "shards"
    VERSION: ClassVar[int] = 1

    target_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.target_bytes < 1:
            raise ValueError(f"target_bytes={self.target_bytes}: at least 1")

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: chunks [(text, screened)], losers (a list object). Outputs `shard` and the fates of its records."""
        return pour(store, work, SCHEMA, _kept)


Kept = Callable[[Store, ObjectRef, ObjectRef, list[ObjectRef]], pa.Table]


def pour(store: Store, work: Work, schema: pa.Schema, kept: Kept) -> Outcome:
    """Chunks into one shard of `schema`. `kept` gives the records of a chunk that stay, with their keys."""
    losers = read_refs(store, ObjectRef(**work.payload["losers"]))
    fates, stats = Fates(), Statistics()
    records = 0
    with scratch() as folder:
        path = folder / "shard.parquet"
        with table_writer(path, schema) as writer:
            for text_ref, screened_ref in work.payload["chunks"]:
                rows = kept(store, ObjectRef(**text_ref), ObjectRef(**screened_ref), losers)
                shard = rows.select(schema.names).cast(schema)
                if shard.num_rows:
                    writer.write_table(shard, row_group_size=ROW_GROUP_ROWS)
                fates.add_kept(rows, values=rows["mark"] if "mark" in rows.schema.names else None)
                stats.add(shard)
                records += shard.num_rows
        ref = put_file(store, "shard", path, records)
    written, counts = fates.write(store)
    return Outcome(outputs=(ref, written), came_in=counts.kept, kept=counts.kept, facts=stats.facts())


def _kept(store: Store, text_ref: ObjectRef, screened_ref: ObjectRef, losers: list[ObjectRef]) -> pa.Table:
    """The texts of one chunk that passed every filter and lost to no other record, in order of the input."""
    measures = ["language.language", "language.language_score"]
    table = passed_rows(store, text_ref, screened_ref, None, measures)
    return without_losers(store, table.rename_columns([*table.schema.names[:-2], "language", "language_score"]), losers)


class Statistics:
    """Counts that add up over shards: what a reader of `grist stats` asks first."""

    def __init__(self) -> None:
        self.documents = self.bytes = 0
        self.languages: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()

    def add(self, shard: pa.Table) -> None:
        lengths = pc.binary_length(shard["text"]).to_numpy()
        self.documents += shard.num_rows
        self.bytes += int(lengths.sum())
        if "language" in shard.schema.names:
            self.languages.update(shard["language"].to_pylist())
        bins = np.searchsorted(LENGTH_BINS, lengths, side="right") - 1
        self.lengths.update(LENGTH_BINS[i] for i in bins)

    def facts(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "text_bytes": self.bytes,
            "languages": dict(sorted(self.languages.items(), key=lambda kv: (-kv[1], kv[0]))),
            "bytes_from": {str(k): n for k, n in sorted(self.lengths.items())},
        }

    @classmethod
    def merged(cls, facts: Iterable[dict[str, Any]]) -> dict[str, Any]:
        self = cls()
        for one in facts:
            self.documents += one["documents"]
            self.bytes += one["text_bytes"]
            self.languages.update(one["languages"])
            self.lengths.update({int(k): n for k, n in one["bytes_from"].items()})
        return self.facts()


@dataclass(frozen=True)
class MergeLedger:
    """Merges the fates of all stages in one range of ids."""

    name: ClassVar[str] = "ledger"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: fates (a list object), low, high (range of ids, high excluded)."""
        low, high = work.payload["low"], work.payload["high"]
        hit = (pc.field("id") >= low) & (pc.field("id") < high)
        parts = [
            read_table(store, ref, filters=hit)
            for ref in read_refs(store, ObjectRef(**work.payload["fates"]))
            if ref.overlaps(low, high)
        ]
        came_in = sum((ledger.tally(part) for part in parts), Tally())
        merged = ledger.sort(pa.concat_tables([ledger.empty(), *parts]))
        ledger.check_sorted(merged)
        counts = count_fates(merged)
        return Outcome(
            outputs=(put_table(store, "ledger", merged, sorted_by="id"),),
            came_in=came_in,
            kept=counts.kept,
            dropped=counts.dropped,
            quarantined=counts.quarantined,
            reasons=counts.reasons,
            errors=counts.errors,
        )


def ledger_works(fates: ObjectRef, records: int) -> list[Work]:
    """One Work a range of ids; the number of ranges depends on the number of records alone."""
    return [
        Work(
            stage=MergeLedger(),
            inputs=(low, high, fates.sha256),
            payload={"fates": fates.model_dump(), "low": low, "high": high},
            label=f"ids from {low or '0'}",
        )
        for low, high in hash_ranges(records, LEDGER_ROWS)
    ]


def shard_works(
    stage: Any, pairs: Sequence[tuple[ObjectRef, ObjectRef]], screened: Sequence[Receipt], losers: ObjectRef
) -> list[Work]:
    """One Work a shard of consecutive chunks (text, verdicts). `stage`: WriteShards, or one like it."""
    groups = shard_groups([r.facts["passed_bytes"] for r in screened], stage.target_bytes)
    works = []
    for n, (first, end) in enumerate(groups):
        inputs = (*(ref.sha256 for pair in pairs[first:end] for ref in pair), losers.sha256)
        chunks = [(text.model_dump(), verdicts.model_dump()) for text, verdicts in pairs[first:end]]
        payload = {"chunks": chunks, "losers": losers.model_dump()}
        works.append(Work(stage, inputs, payload, label=f"shard {n}"))
    return works


def shard_groups(sizes: Sequence[int], target_bytes: int) -> list[tuple[int, int]]:
    """[first, end) of consecutive chunks per shard, closed once their text reaches `target_bytes`; at least one."""
    groups, first, size = [], 0, 0
    for i, one in enumerate(sizes):
        size += one
        if size >= target_bytes:
            groups.append((first, i + 1))
            first, size = i + 1, 0
    if size or not groups:
        groups.append((first, len(sizes)))
    return groups
