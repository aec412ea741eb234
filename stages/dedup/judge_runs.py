"""What becomes of repeated substrings: a document that consists of them is dropped, or they are cut out of it.

JudgeRuns and CutRuns are the last stage of `substrings`, one or the other. A cut is an edit (stages/text/edit.py): the
record keeps its key, its content hash is that of the text that is left, and its mark says which words went.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.edits.cut import Cut, without_ranges
from gristmill.filters.signatures.ngrams import slices, word_spans
from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table, read_refs, read_table
from gristmill.stages.core.exclusions import without_exclusions
from gristmill.stages.core.fates import KEYS as RECORD_KEYS
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.records import CONTENT, KEYS, KEYS_SCHEMA, Edited, alive, put_verdicts
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.pieces import JudgePayload, judged
from gristmill.stages.dedup.ranges import longest_range, ranges_of
from gristmill.stages.text.edit import rewritten

NAME, REPEATED, NOTHING_LEFT, TOO_FEW = (
    "substrings",
    "substrings.repeated",
    "substrings.nothing_left",
    "substrings.too_few_words",
)
MEASURED = ("share", "ranges")
"""Of each document the share of its words that is repeated, and the ranges of these words."""
CUT_MEASURES = ("substrings.ranges", "substrings.words")
"""Of each document how many ranges were cut out, and how many words."""
RANGES_SHOWN = 4
_PLACES = pa.schema([("document", pa.int64()), ("at", pa.int32())])
_VERDICTS = pa.schema(
    [*KEYS_SCHEMA, *(pa.field(name, pa.int64()) for name in CUT_MEASURES), pa.field("reason", pa.string())]
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
        documents = _measured(store, work.payload, self.min_tokens)
        return judged(
            store, work.payload, documents, self.max_repeated, REPEATED, longest_range, "ranges", list(MEASURED)
        )


@dataclass(frozen=True)
class CutRuns(Stage[JudgePayload]):
    """Cuts the repeated ranges out of each document, and drops one of which fewer than `min_words` words are left."""

    name: ClassVar[str] = "cut_runs"
    VERSION: ClassVar[int] = 1
    facts: ClassVar[type[Any]] = Edited

    min_tokens: int
    min_words: int

    def run(self, store: Store, work: Work[JudgePayload]) -> Outcome:
        """payload: JudgePayload. Outputs `text`, the content of what is left; `screened`: keys, reason and what was cut
        of all that came; fates; and `ranges` as JudgeRuns has them. Raises ValueError where content and documents are
        not of the same records."""
        exclusions = read_refs(store, work.payload.exclusions)
        rows = alive(store, work.payload.chunk, None, exclusions=exclusions)
        documents = without_exclusions(store, _measured(store, work.payload, self.min_tokens), exclusions)
        if not rows["ordinal"].equals(documents["ordinal"]):
            raise ValueError(f"content {work.payload.chunk.label} and its runs name other records")
        fates, contents, verdicts = Fates(), [rows.slice(0, 0)], [_VERDICTS.empty_table()]
        for part in slices(pc.binary_length(rows["text"]).to_numpy()):
            # slices of a table have no step, so that a range of its rows is one
            count = part.stop - part.start
            content, judgements = self._cut(rows.slice(part.start, count), documents.slice(part.start, count), fates)
            contents.append(content)
            verdicts.append(judgements)
        content, table = pa.concat_tables(contents), pa.concat_tables(verdicts)
        written, counts = fates.write(store)
        passed = table.filter(pc.is_null(table["reason"]))
        return Outcome(
            outputs=(
                put_table(store, CONTENT, content),
                put_verdicts(store, table),
                written,
                put_table(store, "ranges", documents.select([*RECORD_KEYS, *MEASURED])),
            ),
            received=ledger.tally(rows),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Edited(
                pc.sum(pc.binary_length(content["text"])).as_py() or 0,
                {name: pc.sum(passed[name]).as_py() or 0 for name in CUT_MEASURES},
            ),
        )

    def _cut(self, rows: pa.Table, documents: pa.Table, fates: Fates) -> tuple[pa.Table, pa.Table]:
        """What is left of these records, with texts, hashes and marks; and the verdicts on all of them."""
        texts, marks = rows["text"].to_pylist(), rows["mark"].to_pylist()
        reasons: list[str | None] = [None] * rows.num_rows
        counts = {name: np.zeros(rows.num_rows, np.int64) for name in CUT_MEASURES}
        for row, cut in _cuts(rows["text"], documents):
            words = documents["words"][row].as_py()
            texts[row] = cut.text
            marks[row] = "; ".join(part for part in (marks[row], _mark(cut, words)) if part)
            reasons[row] = self._reason(words - cut.words)
            for name, count in zip(CUT_MEASURES, (len(cut.ranges), cut.words), strict=True):
                counts[name][row] = count
        content = rewritten(rows, pa.array(texts, pa.string()), pa.array(marks, pa.string()))
        reason = pa.array(reasons, pa.string())
        keys = {name: content[name] for name in KEYS}
        dropped = documents.filter(pc.is_valid(reason))
        values = pa.array([longest_range(row) for row in dropped.to_pylist()], pa.string())
        fates.add_dropped(dropped, reason.drop_null(), values=values)
        verdicts = pa.table({**keys, **{name: pa.array(n) for name, n in counts.items()}, "reason": reason})
        return content.filter(pc.is_null(reason)), verdicts.cast(_VERDICTS)

    def _reason(self, words: int) -> str | None:
        """Why a document is dropped of which so many words are left; None: it is not."""
        if not words:
            return NOTHING_LEFT
        return TOO_FEW if words < self.min_words else None


def _measured(store: Store, payload: JudgePayload, min_tokens: int) -> pa.Table:
    """The documents of a chunk with MEASURED, those that were dropped since too."""
    documents = read_table(store, payload.documents)
    repeated = pa.concat_tables([_PLACES.empty_table(), *payload.read_repeated(store)])
    ranges = ranges_of(repeated["document"].to_numpy(), repeated["at"].to_numpy(), min_tokens)
    covered = np.bincount(ranges.documents, ranges.ends - ranges.starts, documents.num_rows)
    words = documents["words"].to_numpy()
    share = np.divide(covered, words, out=np.zeros(documents.num_rows), where=words > 0)
    documents = documents.append_column("share", pa.array(share))
    return documents.append_column("ranges", ranges.lists(documents.num_rows))


def _cuts(texts: pa.ChunkedArray, documents: pa.Table) -> Iterator[tuple[int, Cut]]:
    """(row, what its text becomes) of the documents of which something is cut out."""
    hit = np.flatnonzero(pc.greater(pc.list_value_length(documents["ranges"]), 0).to_numpy())
    taken = texts.take(pa.array(hit)).combine_chunks()
    spans = word_spans(taken, documents["words"].to_numpy()[hit])
    ranges = documents["ranges"].take(pa.array(hit)).to_pylist()
    for number, (row, text) in enumerate(zip(hit.tolist(), taken.to_pylist(), strict=True)):
        own = slice(spans.first[number], spans.first[number + 1])
        repeated = [(part["start"], part["end"]) for part in ranges[number]]
        cut = without_ranges(text, spans.starts[own], spans.ends[own], repeated)
        if cut.ranges:
            yield row, cut


def _mark(cut: Cut, words: int) -> str:
    """What the mark of a record says of a cut: `substrings: ranges 2, words 340 (12 to 340, 361 to 373 of 395)`."""
    shown = ", ".join(f"{start} to {end}" for start, end in cut.ranges[:RANGES_SHOWN])
    more = f" and {len(cut.ranges) - RANGES_SHOWN} more" if len(cut.ranges) > RANGES_SHOWN else ""
    return f"{NAME}: ranges {len(cut.ranges)}, words {cut.words} ({shown}{more} of {words})"
