"""Repeated substrings: a document most of whose words stand in runs that an earlier document has, word for word.

HashRuns (a chunk: each `min_tokens` words in a row, hashed) -> GatherRuns (some chunks, without what was dropped since
the filters) -> FindRuns (a range of hashes, with those of earlier versions) -> JudgeRuns (a chunk). Of all documents
with a run the first, in order of the inputs, has it for its own, and so has any of an earlier version: what it says is
repeated by the others. Two stretches that overlap are one, so that a run is as long as it is. Texts are not cut here;
the ranges are in an output of their own, for whoever cuts.
Source: Lee et al. 2021, arXiv 2107.06499, section 4.1 (exact substrings of 50 tokens; theirs by a suffix array). Tokens
are words here (filters/signatures/ngrams.py); equal hashes of 64 bits are taken for equal runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.signatures.ngrams import ngrams, slices
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_refs, put_table, read_refs, read_table
from gristmill.stages.core.exclusions import store_exclusions, without_exclusions
from gristmill.stages.core.fates import KEYS, Fates
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.records import Chunk, Records, alive
from gristmill.stages.core.shards import shard_groups
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.ranges import in_hex, longest_range, ranges_of
from gristmill.stages.dedup.runs import begins
from gristmill.stages.run.runner import Runner

REASON = "substrings.repeated"
ROWS_PER_GROUP = ROWS_PER_RANGE = 1 << 20
"""Runs in one gathered table, and in one range of hashes."""
RUNS = pa.schema([("run", pa.string())])
_HASHED = pa.schema([("run", pa.string()), ("row", pa.int32()), ("at", pa.int32())])
_GATHERED = pa.schema([("run", pa.string()), ("document", pa.uint32()), ("at", pa.int32())])
_REPEATED = pa.schema([("document", pa.uint32()), ("at", pa.int32())])


def kind_of(min_tokens: int) -> str:
    """The kind of the attachments with the runs of a version: those of other lengths are not compared."""
    return f"runs_{min_tokens}"


class Hashed(NamedTuple):
    """Of a chunk: its hashed runs, and the keys and numbers of words of its documents."""

    hashed: ObjectRef
    documents: ObjectRef


@dataclass(frozen=True)
class GatherPayload:
    """Consecutive chunks, the number of their first document, and who is excluded of them (a list object)."""

    chunks: tuple[Hashed, ...]
    first: int
    exclusions: ObjectRef


@dataclass(frozen=True)
class FindPayload:
    """Gathered runs (a list object), those of earlier versions, and the range of hashes, `high` excluded."""

    gathered: ObjectRef
    before: tuple[ObjectRef, ...]
    low: str
    high: str


@dataclass(frozen=True)
class JudgePayload:
    """Documents of a chunk, the number of the first; repeated runs and exclusions (list objects)."""

    documents: ObjectRef
    first: int
    repeated: ObjectRef
    exclusions: ObjectRef


@dataclass(frozen=True)
class Substrings:
    """Drops documents of which more than `max_repeated` of the words stand in runs of at least `min_tokens` words that
    an earlier document has."""

    min_tokens: int = 50
    max_repeated: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= 1024:
            raise ValueError(f"min_tokens={self.min_tokens}: allowed are 1 to 1024 words")
        if not 0 <= self.max_repeated <= 1:
            raise ValueError(f"max_repeated={self.max_repeated}: a share of a document's words, 0 to 1")

    @property
    def stages(self) -> tuple[HashRuns, GatherRuns, FindRuns, JudgeRuns]:
        """In order; each has of these settings what decides its output."""
        return (
            HashRuns(self.min_tokens),
            GatherRuns(),
            FindRuns(self.min_tokens),
            JudgeRuns(self.min_tokens, self.max_repeated),
        )

    def judge(
        self, runner: Runner, records: Records, before: Sequence[ObjectRef]
    ) -> tuple[list[Receipt], list[ObjectRef]]:
        """Judges all records that are in, on top of the runs of earlier versions (`before`).

        Returns receipts with exclusions (kind `losers`), fates and `ranges`; and the runs of these records, for later
        versions.
        """
        store, exclusions = runner.store, records.put_exclusions(runner.store)
        hashing, gathering, finding, judging = self.stages
        works = [Work(hashing, chunk.digests, chunk, chunk.tally, chunk.label) for chunk in records.chunks]
        done = runner.map("hash runs", works)
        chunks = [Hashed(r.output("hashed_runs"), r.output("documents")) for r in done]
        first = np.cumsum([0, *(chunk.documents.records for chunk in chunks)]).tolist()
        done = runner.map("gather runs", _gather_works(gathering, chunks, first, exclusions))
        gathered = put_refs(store, [r.output("gathered_runs") for r in done])
        rows = sum(r.output("gathered_runs").records for r in done)
        done = runner.map("find runs", _find_works(finding, gathered, rows, before))
        repeated = put_refs(store, [r.output("repeated_runs") for r in done])
        numbered = zip(chunks, first, strict=False)  # `first` has the number of all at its end
        judges = [_judge_work(judging, chunk.documents, n, repeated, exclusions) for chunk, n in numbered]
        return runner.map("judge runs", judges), [r.output(kind_of(self.min_tokens)) for r in done]


@dataclass(frozen=True)
class HashRuns(Stage[Chunk]):
    """Hashes the runs of what passed the filters. Its receipts serve every version and every other threshold."""

    name: ClassVar[str] = "hash_runs"
    VERSION: ClassVar[int] = 1

    min_tokens: int

    def run(self, store: Store, work: Work[Chunk]) -> Outcome:
        """payload: Chunk. Outputs `hashed_runs`: a row a run, by hash, and `documents`: keys and words."""
        rows = alive(store, work.payload, [*KEYS, "text"])
        texts = rows["text"].combine_chunks()
        tables, n_words, lengths = [_HASHED.empty_table()], [np.zeros(0, np.int32)], pc.binary_length(texts).to_numpy()
        for run in slices(lengths):
            hashed = ngrams(texts[run], self.min_tokens)
            row = hashed.rows
            starts = np.concatenate([[0], hashed.ends[:-1]]) if len(hashed.ends) else np.zeros(0, np.int64)
            at = np.arange(len(row)) - starts[row]
            columns = [in_hex(hashed.hashes), (row + run.start).astype(np.int32), at.astype(np.int32)]
            tables.append(pa.table(columns, schema=_HASHED))
            n_words.append(hashed.n_words)
        table = pa.concat_tables(tables).sort_by([(name, "ascending") for name in _HASHED.names])
        documents = rows.select(KEYS).append_column("words", pa.array(np.concatenate(n_words)))
        outputs = (
            put_table(store, "hashed_runs", table),
            put_table(store, "documents", documents.replace_schema_metadata()),
        )
        tally = ledger.tally(rows)
        return Outcome(outputs=outputs, passed=tally, received=tally)


@dataclass(frozen=True)
class GatherRuns(Stage[GatherPayload]):
    """Brings some chunks' runs together by hash, without those of documents that were dropped since."""

    name: ClassVar[str] = "gather_runs"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GatherPayload]) -> Outcome:
        """payload: GatherPayload. Output `gathered_runs`: run, number of its document, place in it; by run."""
        payload = work.payload
        exclusions, first, parts = read_refs(store, payload.exclusions), payload.first, [_GATHERED.empty_table()]
        for chunk in payload.chunks:
            # A document's number is its place, with those that were dropped since: the same whatever is excluded.
            whole = read_table(store, chunk.documents, ["input", "ordinal"])
            whole = whole.append_column("row", pa.array(np.arange(whole.num_rows, dtype=np.int32)))
            left = without_exclusions(store, whole, exclusions)
            rows = read_table(store, chunk.hashed)
            rows = rows.filter(pc.is_in(rows["row"], left["row"].combine_chunks()))
            number = pc.add(pc.cast(rows["row"], pa.int64()), first)
            parts.append(rows.append_column("document", number).select(_GATHERED.names).cast(_GATHERED))
            first += whole.num_rows
        table = pa.concat_tables(parts).sort_by([(name, "ascending") for name in _GATHERED.names])
        return Outcome(outputs=(put_table(store, "gathered_runs", table, sorted_by="run"),), received=Tally())


@dataclass(frozen=True)
class FindRuns(Stage[FindPayload]):
    """Which runs of a document an earlier one has."""

    name: ClassVar[str] = "find_runs"
    VERSION: ClassVar[int] = 1

    min_tokens: int

    def run(self, store: Store, work: Work[FindPayload]) -> Outcome:
        """payload: FindPayload. Outputs the new runs (`kind_of`), each once, for later versions, and `repeated_runs`:
        where they begin in documents that are not the first to have them, by document."""
        payload = work.payload
        low, high = payload.low, payload.high
        hit = (pc.field("run") >= low) & (pc.field("run") < high)
        near = [ref for ref in read_refs(store, payload.gathered) if ref.overlaps(low, high)]
        rows = pa.concat_tables([_GATHERED.empty_table(), *(read_table(store, ref, filters=hit) for ref in near)])
        rows = rows.sort_by([(name, "ascending") for name in _GATHERED.names])
        earlier = [read_table(store, ref, ["run"], hit) for ref in payload.before if ref.overlaps(low, high)]
        known = pa.concat_tables([RUNS.empty_table(), *earlier])["run"].combine_chunks()
        is_first = begins(rows["run"])
        documents = rows["document"].to_numpy()
        owner = documents[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
        is_known = pc.is_in(rows["run"], known).to_numpy()
        repeated = rows.filter(pa.array((documents != owner) | is_known)).select(_REPEATED.names)
        new = rows.filter(pa.array(is_first & ~is_known)).select(["run"])
        return Outcome(
            outputs=(
                put_table(store, kind_of(self.min_tokens), new.replace_schema_metadata(), sorted_by="run"),
                put_table(store, "repeated_runs", repeated.sort_by([("document", "ascending"), ("at", "ascending")])),
            ),
            received=Tally(),
        )


@dataclass(frozen=True)
class JudgeRuns(Stage[JudgePayload]):
    """Drops the documents of which a greater share than `max_repeated` is repeated; the value says where the longest
    range lies."""

    name: ClassVar[str] = "judge_runs"
    VERSION: ClassVar[int] = 1

    min_tokens: int
    max_repeated: float

    def run(self, store: Store, work: Work[JudgePayload]) -> Outcome:
        """payload: JudgePayload. Outputs exclusions (kind `losers`), fates, and `ranges`: of each document the share
        and the ranges of its words, whether or not it is dropped."""
        payload = work.payload
        rows, first = read_table(store, payload.documents), payload.first
        here = (pc.field("document") >= first) & (pc.field("document") < first + rows.num_rows)
        parts = [read_table(store, ref, filters=here) for ref in read_refs(store, payload.repeated)]
        repeated = pa.concat_tables([_REPEATED.empty_table(), *parts])
        ranges = ranges_of(repeated["document"].to_numpy() - first, repeated["at"].to_numpy(), self.min_tokens)
        covered = np.bincount(ranges.documents, ranges.ends - ranges.starts, rows.num_rows)
        words = rows["words"].to_numpy()
        share = np.divide(covered, words, out=np.zeros(rows.num_rows), where=words > 0)
        rows = rows.append_column("share", pa.array(share)).append_column("ranges", ranges.lists(rows.num_rows))
        rows = without_exclusions(store, rows, read_refs(store, payload.exclusions))
        hit = pc.greater(rows["share"], self.max_repeated)
        lost, passed = rows.filter(hit), rows.filter(pc.invert(hit))
        fates = Fates()
        for row in lost.to_pylist():
            fates.add(row, "dropped", REASON, longest_range(row))
        written, counts = fates.write(store)
        measured = put_table(store, "ranges", rows.select([*KEYS, "share", "ranges"]))
        return Outcome(
            outputs=(store_exclusions(store, lost), written, measured),
            received=ledger.tally(rows),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
        )


def _gather_works(
    stage: GatherRuns, chunks: Sequence[Hashed], first: Sequence[int], exclusions: ObjectRef
) -> list[Work[GatherPayload]]:
    """One Work for consecutive chunks of about ROWS_PER_GROUP runs; the cut depends on counts alone."""
    works = []
    for begin, end in shard_groups([chunk.hashed.records for chunk in chunks], ROWS_PER_GROUP):
        group = tuple(chunks[begin:end])
        inputs = (str(first[begin]), *(ref.sha256 for chunk in group for ref in chunk), exclusions.sha256)
        payload = GatherPayload(group, first[begin], exclusions)
        works.append(Work(stage, inputs, payload, label=f"chunks {begin} to {end}"))
    return works


def _find_works(
    stage: FindRuns, gathered: ObjectRef, rows: int, before: Sequence[ObjectRef]
) -> list[Work[FindPayload]]:
    """One Work a range of hashes; the number of ranges depends on the number of runs alone."""
    works = []
    for low, high in hash_ranges(rows + sum(ref.records for ref in before), ROWS_PER_RANGE):
        inputs = (low, high, gathered.sha256, *(ref.sha256 for ref in before))
        payload = FindPayload(gathered, tuple(before), low, high)
        works.append(Work(stage, inputs, payload, label=f"range {low or '0'}"))
    return works


def _judge_work(
    stage: JudgeRuns, documents: ObjectRef, first: int, repeated: ObjectRef, exclusions: ObjectRef
) -> Work[JudgePayload]:
    """The verdict on one chunk's documents, of which `first` is the number of the first."""
    inputs = (documents.sha256, str(first), repeated.sha256, exclusions.sha256)
    return Work(stage, inputs, JudgePayload(documents, first, repeated, exclusions), label=documents.sha256[:12])
