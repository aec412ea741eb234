"""Pieces of documents compared by hash: what repeated paragraphs and repeated substrings share.

hash (a chunk: its pieces, and its documents) -> gather (some chunks, without what was dropped since the filters) ->
find (a range of hashes, with the pieces of earlier versions) -> judge (a chunk). A document's number is its place among
all of the run, with those that were dropped since: the same whatever is excluded. Numbers live for one run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, put_table, read_refs, read_table
from gristmill.stages.core.exclusions import store_exclusions, without_exclusions
from gristmill.stages.core.fates import KEYS, Fates
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.records import Chunk, Records
from gristmill.stages.core.shards import shard_groups
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.run.runner import Runner

ROWS_PER_GROUP = ROWS_PER_RANGE = 1 << 20
"""Pieces in a gathered table, and in a range of hashes: of paragraphs 230 MB to gather, 360 MB to count (measured)."""
HASHED, DOCUMENTS, GATHERED, REPEATED = "hashed", "documents", "gathered", "repeated"
"""Kinds of the outputs on the way: the first two of hashing, then of gathering, then of finding."""


class Hashed(NamedTuple):
    """Of a chunk: its hashed pieces, with the `row` of their document in it, and its documents."""

    hashed: ObjectRef
    documents: ObjectRef


@dataclass(frozen=True)
class GatherPayload:
    """Consecutive chunks, the number of their first document, and who is excluded of them (a list object)."""

    chunks: tuple[Hashed, ...]
    first: int
    exclusions: ObjectRef


@dataclass(frozen=True)
class RangePayload:
    """Gathered pieces (a list object), those of earlier versions, and the range of hashes, `high` excluded."""

    gathered: ObjectRef
    before: tuple[ObjectRef, ...]
    low: str
    high: str

    def hit(self, column: str) -> pc.Expression:
        """Whose hash, in this column, is in the range."""
        return (pc.field(column) >= self.low) & (pc.field(column) < self.high)

    def near(self, refs: Sequence[ObjectRef]) -> list[ObjectRef]:
        """The tables, sorted by hash, that reach into the range."""
        return [ref for ref in refs if ref.overlaps(self.low, self.high)]


@dataclass(frozen=True)
class JudgePayload:
    """The documents of a chunk, the number of the first; what of them is repeated, and exclusions (list objects).
    `chunk`: where their texts are, for who rewrites them."""

    documents: ObjectRef
    first: int
    repeated: ObjectRef
    exclusions: ObjectRef
    chunk: Chunk

    def read_repeated(self, store: Store) -> Iterator[pa.Table]:
        """What is repeated of these documents, in a table a range; `document` is the row in the table of documents."""
        here = (pc.field("document") >= self.first) & (pc.field("document") < self.first + self.documents.records)
        for ref in read_refs(store, self.repeated):
            table = read_table(store, ref, filters=here)
            row = pc.subtract(pc.cast(table["document"], pa.int64()), self.first)
            yield table.set_column(table.schema.get_field_index("document"), "document", row)


@dataclass(frozen=True)
class Comparison:
    """The four stages in order. `kept`: the kind of finding's output with the pieces that later versions compare.
    `rewrites`: whether judging reads texts and rewrites them."""

    hashing: Stage[Chunk]
    gathering: Stage[GatherPayload]
    finding: Stage[RangePayload]
    judging: Stage[JudgePayload]
    kept: str
    rewrites: bool = False

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        """In order."""
        return (self.hashing, self.gathering, self.finding, self.judging)

    def hash_work(self, chunk: Chunk) -> Work[Chunk]:
        """Of all that the chunk's own verdicts leave in: exclusions come later, and differ from run to run."""
        return Work(self.hashing, chunk.digests, chunk, chunk.tally, chunk.label)

    def judge(
        self, runner: Runner, records: Records, hashed: Sequence[Receipt], before: Sequence[ObjectRef]
    ) -> tuple[list[Receipt], list[ObjectRef]]:
        """Judges all records that are in, by what was `hashed` of each chunk, on top of the pieces of earlier versions
        (`before`).

        Returns receipts with exclusions (kind `losers`; or content and verdicts, of a judging that rewrites), fates and
        measures; and the pieces of these records, for later versions.
        """
        store, exclusions = runner.store, records.put_exclusions(runner.store)

        def done(works: list[Work[Any]], stage: Stage[Any]) -> list[Receipt]:
            return runner.map(stage.name.replace("_", " "), works)

        chunks = [Hashed(r.output(HASHED), r.output(DOCUMENTS)) for r in hashed]
        first = np.cumsum([0, *(chunk.documents.records for chunk in chunks)]).tolist()
        tables = [r.output(GATHERED) for r in done(self._gather_works(chunks, first, exclusions), self.gathering)]
        finds = self._find_works(put_refs(store, tables), sum(table.records for table in tables), before)
        ranges = done(finds, self.finding)
        repeated = put_refs(store, [r.output(REPEATED) for r in ranges])
        numbered = zip(records.chunks, chunks, first, strict=False)  # `first` has the number of all at its end
        judges = [
            self._judge_work(JudgePayload(hashed.documents, number, repeated, exclusions, chunk))
            for chunk, hashed, number in numbered
        ]
        return done(judges, self.judging), [r.output(self.kept) for r in ranges]

    def _gather_works(
        self, chunks: Sequence[Hashed], first: Sequence[int], exclusions: ObjectRef
    ) -> list[Work[GatherPayload]]:
        """One Work for consecutive chunks of about ROWS_PER_GROUP pieces; the cut depends on counts alone."""
        works = []
        for begin, end in shard_groups([chunk.hashed.records for chunk in chunks], ROWS_PER_GROUP):
            group = tuple(chunks[begin:end])
            inputs = (str(first[begin]), *(ref.sha256 for chunk in group for ref in chunk), exclusions.sha256)
            payload = GatherPayload(group, first[begin], exclusions)
            works.append(Work(self.gathering, inputs, payload, label=f"chunks {begin} to {end}"))
        return works

    def _find_works(self, gathered: ObjectRef, rows: int, before: Sequence[ObjectRef]) -> list[Work[RangePayload]]:
        """One Work a range of hashes; the number of ranges depends on the number of pieces alone."""
        works = []
        for low, high in hash_ranges(rows + sum(ref.records for ref in before), ROWS_PER_RANGE):
            inputs = (low, high, gathered.sha256, *(ref.sha256 for ref in before))
            payload = RangePayload(gathered, tuple(before), low, high)
            works.append(Work(self.finding, inputs, payload, label=f"range {low or '0'}"))
        return works

    def _judge_work(self, payload: JudgePayload) -> Work[JudgePayload]:
        """The verdict on one chunk's documents."""
        inputs = (payload.documents.sha256, str(payload.first), payload.repeated.sha256, payload.exclusions.sha256)
        texts = payload.chunk.digests if self.rewrites else ()
        return Work(self.judging, (*inputs, *texts), payload, label=payload.documents.sha256[:12])


def gathered(store: Store, payload: GatherPayload, schema: pa.Schema) -> pa.Table:
    """The pieces of some chunks, without those of documents that were dropped since, in no order. `schema`: columns of
    hashed pieces and of documents, and `document`, the number."""
    exclusions, first, parts = read_refs(store, payload.exclusions), payload.first, [schema.empty_table()]
    for chunk in payload.chunks:
        pieces = read_table(store, chunk.hashed)
        of_document = [name for name in schema.names if name not in (*pieces.schema.names, "document")]
        whole = read_table(store, chunk.documents, [*of_document, "input", "ordinal"])
        whole = whole.append_column("row", pa.array(np.arange(whole.num_rows, dtype=np.int32)))
        left = without_exclusions(store, whole, exclusions)
        at = pc.index_in(pieces["row"], left["row"].combine_chunks())  # null: the document is excluded
        for name in of_document:
            pieces = pieces.append_column(name, left[name].combine_chunks().take(at))
        number = pc.add(pc.cast(pieces["row"], pa.int64()), first)
        pieces = pieces.append_column("document", number).filter(pc.is_valid(at))
        parts.append(pieces.select(schema.names).cast(schema))
        first += whole.num_rows
    return pa.concat_tables(parts)


def judged(
    store: Store,
    payload: JudgePayload,
    documents: pa.Table,
    most: float,
    reason: str,
    value: Callable[[dict[str, Any]], Any],
    table: str,
    measures: Sequence[str],
) -> Outcome:
    """Drops the documents whose `share`, a column, is above `most`; null is not judged. `value`: the ledger's, of a
    row. Outputs exclusions (kind `losers`), fates, and a table of this kind with `measures` of all that came."""
    rows = without_exclusions(store, documents, read_refs(store, payload.exclusions))
    hit = pc.fill_null(pc.greater(rows["share"], most), False)
    lost, passed = rows.filter(hit), rows.filter(pc.invert(hit))
    fates = Fates()
    for row in lost.to_pylist():
        fates.add(row, "dropped", reason, value(row))
    written, counts = fates.write(store)
    measured = put_table(store, table, rows.select([*KEYS, *measures]))
    return Outcome(
        outputs=(store_exclusions(store, lost), written, measured),
        received=ledger.tally(rows),
        passed=ledger.tally(passed),
        dropped=counts.dropped,
        reasons=counts.reasons,
    )
