"""Exact duplicates: of all records with one text, the first by id stays and the others name it.

Records are compared by range of content hash, so that equal texts meet in one Work and no Work needs to see more than
a bounded number of them. Of a growing dataset the texts of earlier versions take part by their content
hashes alone, and an earlier record stays whatever its id. A record met again (a file's recompressed copy, an
overlapping crawl) has the same id, and so another reason than a page that copies another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.stages.core.exclusions import store_exclusions
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.records import Records, alive_keys
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.dedup.runs import begins, heads

ROWS_PER_RANGE = 2_000_000
_ORDER = [(name, "ascending") for name in ("content", "id", "input", "ordinal")]
CONTENTS = pa.schema([("content", pa.string()), ("id", pa.string())])


@dataclass(frozen=True)
class ExactPayload:
    """Records by their key tables and exclusions (list objects), texts of earlier versions, and the range of content
    hashes, `high` excluded."""

    keys: ObjectRef
    exclusions: ObjectRef
    contents: tuple[ObjectRef, ...]
    low: str
    high: str


@dataclass(frozen=True)
class ExactFacts:
    """`outranked`: how often an earlier record was kept though one of these has a lower id."""

    outranked: int


@dataclass(frozen=True)
class Exact(Stage[ExactPayload]):
    """Drops all but the first (by id, then input and ordinal) of the records with equal text."""

    name: ClassVar[str] = "exact"
    VERSION: ClassVar[int] = 2

    def run(self, store: Store, work: Work[ExactPayload]) -> Outcome:
        """payload: ExactPayload. Outputs exclusions (kind `losers`), fates, and `contents`: the texts that passed,
        sorted by content hash."""
        payload = work.payload
        low, high = payload.low, payload.high
        hit = (pc.field("content") >= low) & (pc.field("content") < high)
        rows = alive_keys(store, payload.keys, payload.exclusions, hit).sort_by(_ORDER)
        before = [read_table(store, ref, filters=hit) for ref in payload.contents if ref.overlaps(low, high)]
        survivors, outranked = _survivors(rows, pa.concat_tables([CONTENTS.empty_table(), *before]))
        lost, passed = rows.filter(pc.is_valid(survivors)), rows.filter(pc.is_null(survivors))
        survivors = pc.drop_null(survivors)
        same = pc.equal(survivors, lost["id"])
        fates = Fates()
        fates.add_dropped(lost, pc.if_else(same, "exact.same_record", "exact.duplicate"), survivors)
        written, counts = fates.write(store)
        return Outcome(
            outputs=(
                store_exclusions(store, lost),
                written,
                put_table(store, "contents", passed.select(CONTENTS.names), sorted_by="content"),
            ),
            received=ledger.tally(rows),
            passed=ledger.tally(passed),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=ExactFacts(outranked),
        )


def _survivors(rows: pa.Table, before: pa.Table) -> tuple[pa.ChunkedArray, int]:
    """For each sorted row the id that is kept in its place, null where it is itself kept; and how often an earlier
    record was kept though one of these has a lower id: one run over everything would have kept another."""
    first, ids = pa.array(begins(rows["content"])), rows["id"].combine_chunks()
    head = ids.take(pa.array(heads(rows["content"])))  # rows are in order of _ORDER: the head has the lowest id
    at = pc.index_in(rows["content"].combine_chunks(), before["content"].combine_chunks())
    earlier = before["id"].combine_chunks().take(at)
    outranked = pc.sum(pc.and_(first, pc.fill_null(pc.less(ids, earlier), False))).as_py() or 0
    own = pc.if_else(first, pa.scalar(None, pa.string()), head)
    return pc.coalesce(earlier, own), outranked


def exact_works(
    stage: Exact, store: Store, records: Records, contents: Sequence[ObjectRef] = ()
) -> list[Work[ExactPayload]]:
    """One Work a range of content hashes; the number of ranges depends on the number of records alone. `contents`: the
    texts of earlier versions."""
    keys, exclusions = records.put_keys(store), records.put_exclusions(store)
    works = []
    for low, high in hash_ranges(records.tally.count + sum(ref.records for ref in contents), ROWS_PER_RANGE):
        inputs = (low, high, keys.sha256, exclusions.sha256, *(ref.sha256 for ref in contents))
        payload = ExactPayload(keys, exclusions, tuple(contents), low, high)
        works.append(Work(stage, inputs, payload, label=f"range {low or '0'}"))
    return works
