"""Who repeats whom: paragraphs that many pages of a host have, and the documents that consist of little else.

GatherParagraphs (some chunks: hashed paragraphs, without what was dropped since the filters) -> CountParagraphs (a
range of hashes, with those of earlier versions) -> JudgeParagraphs (a chunk). Two captures of a page are one page: the
first halves of their ids are equal.
Documents are numbered by their place, numbers live for one run; ids go into the version, one row a paragraph and page
of at most `min_documents` pages. Earlier documents keep their fate, though their paragraphs are repeated by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
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
from gristmill.stages.core.exclusions import store_exclusions, without_exclusions
from gristmill.stages.core.fates import KEYS, Fates
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.shards import shard_groups
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.runs import begins, heads

REASON = "paragraphs.repeated"
ROWS_PER_GROUP = ROWS_PER_RANGE = 1 << 20
"""Paragraphs in one gathered table, and in one range of hashes: 230 MB to gather, 360 MB to count (measured)."""
PARAGRAPHS = pa.schema([("paragraph", pa.string()), ("id", pa.string())])
_GATHERED = pa.schema([*PARAGRAPHS, ("document", pa.uint32()), ("bytes", pa.int64())])
_REPEATED = pa.schema([("document", pa.uint32()), ("bytes", pa.int64())])
_URL_HASH = 16  # characters of an id that all records of a URL share


class Hashed(NamedTuple):
    """Of a chunk: its hashed paragraphs, and the keys and sizes of its documents."""

    hashed: ObjectRef
    documents: ObjectRef


@dataclass(frozen=True)
class GatherPayload:
    """Consecutive chunks, the number of their first document, and who is excluded of them (a list object)."""

    chunks: tuple[Hashed, ...]
    first: int
    exclusions: ObjectRef


@dataclass(frozen=True)
class CountPayload:
    """Gathered paragraphs (a list object), those of earlier versions, and the range of hashes, `high` excluded."""

    gathered: ObjectRef
    before: tuple[ObjectRef, ...]
    low: str
    high: str


@dataclass(frozen=True)
class JudgePayload:
    """The documents of a chunk, the number of the first; bytes in repeated paragraphs and exclusions (list objects)."""

    documents: ObjectRef
    first: int
    repeated: ObjectRef
    exclusions: ObjectRef


@dataclass(frozen=True)
class GatherParagraphs(Stage[GatherPayload]):
    """Brings some chunks' paragraphs together by hash, without those of documents that were dropped since."""

    name: ClassVar[str] = "gather_paragraphs"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GatherPayload]) -> Outcome:
        """payload: GatherPayload. Output `gathered`: paragraph, id and number of its document, bytes; by paragraph."""
        payload = work.payload
        exclusions, first = read_refs(store, payload.exclusions), payload.first
        parts = [_GATHERED.empty_table()]
        for chunk in payload.chunks:
            # `row` in the table of paragraphs is the document's place in the chunk, with those that were dropped
            # since: places, and so numbers, are the same in every run, whatever is excluded.
            whole = read_table(store, chunk.documents, ["id", "input", "ordinal"])
            whole = whole.append_column("row", pa.array(np.arange(whole.num_rows, dtype=np.int32)))
            left = without_exclusions(store, whole, exclusions)
            rows = read_table(store, chunk.hashed)
            at = pc.index_in(rows["row"], left["row"].combine_chunks())  # null: the document is excluded
            rows = rows.append_column("id", left["id"].combine_chunks().take(at))
            number = pc.add(pc.cast(rows["row"], pa.int64()), first)
            rows = rows.append_column("document", number).filter(pc.is_valid(at))
            parts.append(rows.select(_GATHERED.names).cast(_GATHERED))
            first += whole.num_rows
        order = [(name, "ascending") for name in ("paragraph", "id", "document")]
        table = pa.concat_tables(parts).sort_by(order)
        return Outcome(outputs=(put_table(store, "gathered", table, sorted_by="paragraph"),), received=Tally())


@dataclass(frozen=True)
class CountFacts:
    """`repeated`: how many paragraphs of a range are."""

    repeated: int


@dataclass(frozen=True)
class CountParagraphs(Stage[CountPayload]):
    """Counts who has each paragraph: which `min_documents` pages have, and how many bytes of each document they are."""

    name: ClassVar[str] = "count_paragraphs"
    VERSION: ClassVar[int] = 1

    min_documents: int

    def run(self, store: Store, work: Work[CountPayload]) -> Outcome:
        """payload: CountPayload. Outputs `paragraphs`: who has each, for later versions, and `repeated`: bytes by
        document, in order of their numbers."""
        payload = work.payload
        low, high = payload.low, payload.high
        hit = (pc.field("paragraph") >= low) & (pc.field("paragraph") < high)

        def near(refs: Sequence[ObjectRef]) -> list[ObjectRef]:
            return [ref for ref in refs if ref.overlaps(low, high)]

        def pages(refs: Sequence[ObjectRef]) -> pa.Table:
            parts = [self._few(read_table(store, ref, PARAGRAPHS.names, hit)) for ref in refs]
            return self._few(pa.concat_tables([PARAGRAPHS.empty_table(), *parts]))

        gathered = near(read_refs(store, payload.gathered))
        new, before = pages(gathered), pages(near(payload.before))
        everyone = self._few(pa.concat_tables([new, before]))
        # Sorted, the n-th row of a paragraph is there just where n pages or more have it.
        is_nth = _rank(everyone["paragraph"]) == self.min_documents - 1
        repeated = everyone["paragraph"].filter(pa.array(is_nth))
        with scratch() as folder:
            path, records = folder / "repeated.parquet", 0
            with table_writer(path, _REPEATED) as writer:
                for ref in gathered:  # consecutive documents each
                    rows = read_table(store, ref, ["paragraph", *_REPEATED.names], hit)
                    rows = rows.filter(pc.is_in(rows["paragraph"], repeated.combine_chunks()))
                    rows = rows.group_by("document", use_threads=False).aggregate([("bytes", "sum")])
                    rows = rows.rename_columns({"bytes_sum": "bytes"}).sort_by("document").cast(_REPEATED)
                    writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
                    records += rows.num_rows
            by_document = put_file(store, "repeated", path, records)
        kept = put_table(store, "paragraphs", new, sorted_by="paragraph")
        return Outcome(outputs=(kept, by_document), received=Tally(), facts=CountFacts(len(repeated)))

    def _few(self, table: pa.Table) -> pa.Table:
        """At most `min_documents` pages a paragraph, a row each: enough to tell, now and with any others added."""
        table = table.replace_schema_metadata().sort_by([(name, "ascending") for name in PARAGRAPHS.names])
        # Sorted by paragraph and id, captures of a page are neighbours: the first row of each (paragraph, page) stays.
        page = pc.utf8_slice_codeunits(table["id"], 0, _URL_HASH)
        table = table.filter(pa.array(begins(table["paragraph"]) | begins(page)))
        return table.filter(pa.array(_rank(table["paragraph"]) < self.min_documents))


def _rank(column: pa.ChunkedArray) -> np.ndarray:
    """How many equal values stand before each of a sorted column."""
    return np.arange(len(column)) - heads(column)


@dataclass(frozen=True)
class JudgeParagraphs(Stage[JudgePayload]):
    """Drops the documents of which a greater share than `max_repeated` is repeated."""

    name: ClassVar[str] = "judge_paragraphs"
    VERSION: ClassVar[int] = 1

    max_repeated: float

    def run(self, store: Store, work: Work[JudgePayload]) -> Outcome:
        """payload: JudgePayload. Outputs exclusions (kind `losers`), fates, and `shares`: the measure, so that a
        threshold can be replayed; null for what is not judged."""
        payload = work.payload
        rows, first = read_table(store, payload.documents), payload.first
        here = (pc.field("document") >= first) & (pc.field("document") < first + rows.num_rows)
        total = np.zeros(rows.num_rows, np.int64)  # a document is in as many tables as ranges have paragraphs of it
        for ref in read_refs(store, payload.repeated):
            part = read_table(store, ref, filters=here)
            total[part["document"].to_numpy() - first] += part["bytes"].to_numpy()
        share = pc.divide(pa.array(total, pa.float64()), pc.cast(rows["bytes"], pa.float64()))
        rows = without_exclusions(store, rows.append_column("share", share), read_refs(store, payload.exclusions))
        hit = pc.fill_null(pc.greater(rows["share"], self.max_repeated), False)
        lost, passed = rows.filter(hit), rows.filter(pc.invert(hit))
        fates = Fates()
        for row in lost.to_pylist():
            fates.add(row, "dropped", REASON, row["share"])
        written, counts = fates.write(store)
        return Outcome(
            outputs=(store_exclusions(store, lost), written, put_table(store, "shares", rows.select([*KEYS, "share"]))),
            received=ledger.tally(rows),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
        )


def gather_works(
    stage: GatherParagraphs, chunks: Sequence[Hashed], first: Sequence[int], exclusions: ObjectRef
) -> list[Work[GatherPayload]]:
    """One Work for consecutive chunks of about ROWS_PER_GROUP paragraphs; the cut depends on counts alone."""
    works = []
    for begin, end in shard_groups([chunk.hashed.records for chunk in chunks], ROWS_PER_GROUP):
        group = tuple(chunks[begin:end])
        inputs = (str(first[begin]), *(ref.sha256 for chunk in group for ref in chunk), exclusions.sha256)
        payload = GatherPayload(group, first[begin], exclusions)
        works.append(Work(stage, inputs, payload, label=f"chunks {begin} to {end}"))
    return works


def count_works(
    stage: CountParagraphs, gathered: ObjectRef, rows: int, before: Sequence[ObjectRef]
) -> list[Work[CountPayload]]:
    """One Work a range of hashes; the number of ranges depends on the number of paragraphs alone."""
    works = []
    for low, high in hash_ranges(rows + sum(ref.records for ref in before), ROWS_PER_RANGE):
        inputs = (low, high, gathered.sha256, *(ref.sha256 for ref in before))
        payload = CountPayload(gathered, tuple(before), low, high)
        works.append(Work(stage, inputs, payload, label=f"range {low or '0'}"))
    return works


def judge_work(
    stage: JudgeParagraphs, documents: ObjectRef, first: int, repeated: ObjectRef, exclusions: ObjectRef
) -> Work[JudgePayload]:
    """The verdict on one chunk's documents, of which `first` is the number of the first."""
    inputs = (documents.sha256, str(first), repeated.sha256, exclusions.sha256)
    return Work(stage, inputs, JudgePayload(documents, first, repeated, exclusions), label=documents.sha256[:12])
