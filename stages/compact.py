"""Compaction: a dataset that grows every day must not become ten thousand small objects.

Ledgers, content hashes, signatures, clusters, receipts and the like of earlier versions are taken over by pointer, one
generation an increment. Before an increment begins, trailing generations of similar size are merged into one (as the
levels of a log-structured merge tree are), so that their number grows with the logarithm of the increments and each row
is rewritten as seldom. Rows are not changed, and earlier versions keep their own objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    generations,
    iter_batches,
    open_parquet,
    put_file,
    put_refs,
    put_table,
    read_object,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from lake.store import Store
from stages.exact import hash_ranges
from stages.minhash import DOCUMENTS_PER_COLLECTION
from stages.runner import Runner
from stages.work import Outcome, Stage, Work

ROWS_PER_RANGE = 2_000_000
"""Rows of a sorted table that one Work merges."""


@dataclass(frozen=True)
class KeyRange:
    """Objects of one kind, and which of their rows: first keys from `low` to `high`, excluded."""

    refs: tuple[ObjectRef, ...]
    low: str
    high: str


@dataclass(frozen=True)
class Compact(Stage[KeyRange]):
    """Merges objects of one kind: sorted by `keys` where there are some, else one after the other. All are tables but
    `refs`, lists of pointers, and `receipts`, a line each."""

    name: ClassVar[str] = "compact"
    VERSION: ClassVar[int] = 1

    kind: str
    keys: tuple[str, ...] = ()

    def run(self, store: Store, work: Work[KeyRange]) -> Outcome:
        """Output: one object of `kind`."""
        refs = work.payload.refs
        if self.kind == "refs":
            merged = put_refs(store, [listed for ref in refs for listed in read_refs(store, ref)])
        elif self.kind == "receipts":
            merged = self._lines(store, refs)
        elif self.keys:
            merged = self._sorted(store, work.payload)
        else:
            merged = self._joined(store, refs)
        return Outcome(outputs=(merged,), came_in=Tally())

    def _sorted(self, store: Store, payload: KeyRange) -> ObjectRef:
        low, high = payload.low, payload.high
        in_range = (pc.field(self.keys[0]) >= low) & (pc.field(self.keys[0]) < high)
        parts = [read_table(store, ref, filters=in_range) for ref in payload.refs if ref.overlaps(low, high)]
        table = pa.concat_tables(parts) if parts else read_table(store, payload.refs[0]).slice(0, 0)
        metadata = table.schema.metadata
        table = table.sort_by([(key, "ascending") for key in self.keys]).replace_schema_metadata(metadata)
        return put_table(store, self.kind, table, sorted_by=self.keys[0])

    def _joined(self, store: Store, refs: Sequence[ObjectRef]) -> ObjectRef:
        with open_parquet(store, refs[0]) as file:
            schema = file.schema_arrow
        with scratch() as folder:
            path = folder / "table.parquet"
            with table_writer(path, schema) as writer:
                for ref in refs:
                    for batch in iter_batches(store, ref):
                        writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
            return put_file(store, self.kind, path, sum(ref.records for ref in refs))

    def _lines(self, store: Store, refs: Sequence[ObjectRef]) -> ObjectRef:
        with scratch() as folder:
            path = folder / "lines"
            with path.open("wb") as sink:
                for ref in refs:
                    sink.write(read_object(store, ref))
            return put_file(store, self.kind, path, sum(ref.records for ref in refs))


def compacted(runner: Runner, stage: Compact, refs: Sequence[ObjectRef]) -> list[ObjectRef]:
    """These objects, or fewer with the same rows. Sorted ones are cut by range of the first key. Of empty ones the
    first stays, where there is no other. Raises ValueError if a row was lost, and what `Runner.map` does."""
    refs = [ref for ref in refs if ref.records] or refs[:1]
    # A generation of a sorted kind is all tables that one increment cut by range; of another, each object is one.
    groups = generations(refs) if stage.keys else [[ref] for ref in refs]
    cap = DOCUMENTS_PER_COLLECTION if stage.kind == "signatures" else None
    first = trailing([sum(ref.records for ref in group) for group in groups], cap)
    if first >= len(groups) - 1:
        return list(refs)
    to_merge = tuple(ref for group in groups[first:] for ref in group if ref.records)
    rows = sum(ref.records for ref in to_merge)
    ranges = hash_ranges(rows, ROWS_PER_RANGE) if stage.keys else [("", "g")]
    works = []
    for low, high in ranges:
        inputs = (low, high, *(ref.sha256 for ref in to_merge))
        works.append(Work(stage, inputs, KeyRange(to_merge, low, high), label=f"{stage.kind} {low}"))
    merged = [receipt.output(stage.kind) for receipt in runner.map(f"compact {stage.kind}", works)]
    if sum(ref.records for ref in merged) != rows:
        raise ValueError(f"compact {stage.kind}: {rows:,} rows went in, {sum(r.records for r in merged):,} came out")
    return [*(ref for group in groups[:first] for ref in group), *merged]


def trailing(sizes: Sequence[int], cap: int | None = None) -> int:
    """From which generation on they are merged, so that each that is left is twice the size of what follows it.

    With `cap` none grows beyond it, and only the last ones are looked at.
    """
    if not sizes:
        return 0
    first = len(sizes) - 1
    if cap is None:  # an increment that left several, or many that were never merged
        first = next((i for i in range(len(sizes) - 1) if sizes[i] < 2 * sizes[i + 1]), first)
    size = sum(sizes[first:])
    while first > 0 and sizes[first - 1] < 2 * size and (cap is None or sizes[first - 1] + size <= cap):
        first -= 1
        size += sizes[first]
    return first
