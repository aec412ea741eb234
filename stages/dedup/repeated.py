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
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.pieces import (
    GATHERED,
    REPEATED,
    GatherPayload,
    JudgePayload,
    RangePayload,
    gathered,
    judged,
)
from gristmill.stages.dedup.runs import begins, heads

REASON = "paragraphs.repeated"
PARAGRAPHS = pa.schema([("paragraph", pa.string()), ("id", pa.string())])
_GATHERED = pa.schema([*PARAGRAPHS, ("document", pa.uint32()), ("bytes", pa.int64())])
_REPEATED = pa.schema([("document", pa.uint32()), ("bytes", pa.int64())])
_URL_HASH = 16  # characters of an id that all records of a URL share


@dataclass(frozen=True)
class GatherParagraphs(Stage[GatherPayload]):
    """Brings some chunks' paragraphs together by hash, without those of documents that were dropped since."""

    name: ClassVar[str] = "gather_paragraphs"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GatherPayload]) -> Outcome:
        """payload: GatherPayload. Output `gathered`: paragraph, id and number of its document, bytes; by paragraph."""
        order = [(name, "ascending") for name in ("paragraph", "id", "document")]
        table = gathered(store, work.payload, _GATHERED).sort_by(order)
        return Outcome(outputs=(put_table(store, GATHERED, table, sorted_by="paragraph"),), received=Tally())


@dataclass(frozen=True)
class CountFacts:
    """`repeated`: how many paragraphs of a range are."""

    repeated: int


@dataclass(frozen=True)
class CountParagraphs(Stage[RangePayload]):
    """Counts who has each paragraph: which `min_documents` pages have, and how many bytes of each document they are."""

    name: ClassVar[str] = "count_paragraphs"
    VERSION: ClassVar[int] = 1

    min_documents: int

    def run(self, store: Store, work: Work[RangePayload]) -> Outcome:
        """payload: RangePayload. Outputs `paragraphs`: who has each, for later versions, and `repeated`: bytes by
        document, in order of their numbers."""
        payload = work.payload
        hit = payload.hit("paragraph")

        def pages(refs: Sequence[ObjectRef]) -> pa.Table:
            parts = [self._few(read_table(store, ref, PARAGRAPHS.names, hit)) for ref in refs]
            return self._few(pa.concat_tables([PARAGRAPHS.empty_table(), *parts]))

        tables = payload.near(read_refs(store, payload.gathered))
        new, before = pages(tables), pages(payload.near(payload.before))
        everyone = self._few(pa.concat_tables([new, before]))
        # Sorted, the n-th row of a paragraph is there just where n pages or more have it.
        is_nth = _rank(everyone["paragraph"]) == self.min_documents - 1
        repeated = everyone["paragraph"].filter(pa.array(is_nth))
        with scratch() as folder:
            path, records = folder / "repeated.parquet", 0
            with table_writer(path, _REPEATED) as writer:
                for ref in tables:  # consecutive documents each
                    rows = read_table(store, ref, ["paragraph", *_REPEATED.names], hit)
                    rows = rows.filter(pc.is_in(rows["paragraph"], repeated.combine_chunks()))
                    rows = rows.group_by("document", use_threads=False).aggregate([("bytes", "sum")])
                    rows = rows.rename_columns({"bytes_sum": "bytes"}).sort_by("document").cast(_REPEATED)
                    writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
                    records += rows.num_rows
            by_document = put_file(store, REPEATED, path, records)
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
        documents = read_table(store, payload.documents)
        total = np.zeros(documents.num_rows, np.int64)  # a document is in as many tables as ranges have some of it
        for part in payload.read_repeated(store):
            total[part["document"].to_numpy()] += part["bytes"].to_numpy()
        share = pc.divide(pa.array(total, pa.float64()), pc.cast(documents["bytes"], pa.float64()))
        documents = documents.append_column("share", share)
        return judged(
            store, payload, documents, self.max_repeated, REASON, lambda row: row["share"], "shares", ["share"]
        )
