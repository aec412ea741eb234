"""Repeated substrings: runs of words that an earlier document has, word for word.

HashRuns (a chunk: each `min_tokens` words in a row, hashed) -> GatherRuns (some chunks, without what was dropped since
the filters) -> FindRuns (a range of hashes, with those of earlier versions) -> JudgeRuns or CutRuns (a chunk). Of all
documents with a run the first, in order of the inputs, has it for its own, and so has any of an earlier version: what
it says is repeated by the others. Two stretches that overlap are one, so that a run is as long as it is.
Source: Lee et al. 2021, arXiv 2107.06499, section 4.1 (exact substrings of 50 tokens; theirs by a suffix array). Tokens
are words here (filters/signatures/ngrams.py); equal hashes of 64 bits are taken for equal runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.signatures.ngrams import ngrams, slices
from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_refs, read_table
from gristmill.stages.core.fates import KEYS
from gristmill.stages.core.records import Chunk, alive
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.judge_runs import CutRuns, JudgeRuns
from gristmill.stages.dedup.pieces import (
    DOCUMENTS,
    GATHERED,
    HASHED,
    REPEATED,
    Comparison,
    GatherPayload,
    RangePayload,
    gathered,
)
from gristmill.stages.dedup.ranges import in_hex
from gristmill.stages.dedup.runs import begins

RUNS = pa.schema([("run", pa.string())])
_HASHED = pa.schema([("run", pa.string()), ("row", pa.int32()), ("at", pa.int32())])
_GATHERED = pa.schema([("run", pa.string()), ("document", pa.uint32()), ("at", pa.int32())])
_REPEATED = pa.schema([("document", pa.uint32()), ("at", pa.int32())])


def kind_of(min_tokens: int) -> str:
    """The kind of the attachments with the runs of a version: those of other lengths are not compared."""
    return f"runs_{min_tokens}"


@dataclass(frozen=True)
class Substrings:
    """Runs of at least `min_tokens` words that an earlier document has.

    `repeated`: `drop`: a document goes of which more than `max_repeated` of the words stand in such runs; `cut`: the
    runs are cut out of each, and it goes where fewer than `min_words` words are left. Raises ValueError for values that
    are not allowed.
    """

    min_tokens: int = 50
    max_repeated: float = 0.5
    repeated: Literal["drop", "cut"] = "drop"
    min_words: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= 1024:
            raise ValueError(f"min_tokens={self.min_tokens}: allowed are 1 to 1024 words")
        if not 0 <= self.max_repeated <= 1:
            raise ValueError(f"max_repeated={self.max_repeated}: a share of a document's words, 0 to 1")
        if self.repeated not in ("drop", "cut"):
            raise ValueError(f"repeated={self.repeated!r}: drop or cut")
        if self.min_words < 0:
            raise ValueError(f"min_words={self.min_words}: words that have to be left of a document, 0 or more")

    @property
    def unused(self) -> tuple[str, ...]:
        """The settings that decide nothing, as the others are."""
        return ("repeated", "min_words") if self.repeated == "drop" else ("max_repeated",)

    @property
    def comparison(self) -> Comparison:
        """The stages; each has of these settings what decides its output."""
        cuts = self.repeated == "cut"
        return Comparison(
            HashRuns(self.min_tokens),
            GatherRuns(),
            FindRuns(self.min_tokens),
            CutRuns(self.min_tokens, self.min_words) if cuts else JudgeRuns(self.min_tokens, self.max_repeated),
            kept=kind_of(self.min_tokens),
            rewrites=cuts,
        )


@dataclass(frozen=True)
class HashRuns(Stage[Chunk]):
    """Hashes the runs of what passed the filters. Its receipts serve every version and every other threshold."""

    name: ClassVar[str] = "hash_runs"
    VERSION: ClassVar[int] = 1

    min_tokens: int

    def run(self, store: Store, work: Work[Chunk]) -> Outcome:
        """payload: Chunk. Outputs `hashed`: a row a run, by hash, and `documents`: keys and words."""
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
            put_table(store, HASHED, table),
            put_table(store, DOCUMENTS, documents.replace_schema_metadata()),
        )
        tally = ledger.tally(rows)
        return Outcome(outputs=outputs, passed=tally, received=tally)


@dataclass(frozen=True)
class GatherRuns(Stage[GatherPayload]):
    """Brings some chunks' runs together by hash, without those of documents that were dropped since."""

    name: ClassVar[str] = "gather_runs"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GatherPayload]) -> Outcome:
        """payload: GatherPayload. Output `gathered`: run, number of its document, place in it; by run."""
        table = gathered(store, work.payload, _GATHERED).sort_by([(name, "ascending") for name in _GATHERED.names])
        return Outcome(outputs=(put_table(store, GATHERED, table, sorted_by="run"),), received=Tally())


@dataclass(frozen=True)
class FindRuns(Stage[RangePayload]):
    """Which runs of a document an earlier one has."""

    name: ClassVar[str] = "find_runs"
    VERSION: ClassVar[int] = 1

    min_tokens: int

    def run(self, store: Store, work: Work[RangePayload]) -> Outcome:
        """payload: RangePayload. Outputs the new runs (`kind_of`), each once, for later versions, and `repeated`:
        where they begin in documents that are not the first to have them, by document."""
        payload = work.payload
        hit, near = payload.hit("run"), payload.near(read_refs(store, payload.gathered))
        rows = pa.concat_tables([_GATHERED.empty_table(), *(read_table(store, ref, filters=hit) for ref in near)])
        rows = rows.sort_by([(name, "ascending") for name in _GATHERED.names])
        earlier = [read_table(store, ref, ["run"], hit) for ref in payload.near(payload.before)]
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
                put_table(store, REPEATED, repeated.sort_by([("document", "ascending"), ("at", "ascending")])),
            ),
            received=Tally(),
        )
