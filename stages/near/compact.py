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

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
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
from gristmill.stages.core.ranges import hash_ranges
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.near.minhash import DOCUMENTS_PER_COLLECTION
from gristmill.stages.run.runner import Runner

ROWS_PER_RANGE = 2_000_000
"""Rows of a sorted table that one Work merges."""


@dataclass(frozen=True)
class CompactRange:
    """refs: what is merged; low, high: range of the first key, high excluded."""

    refs: tuple[ObjectRef, ...]
    low: str
    high: str


@dataclass(frozen=True)
class Split:
    """Generations of objects that stay as they are, and those that become one."""

    kept: tuple[ObjectRef, ...]
    merged: tuple[ObjectRef, ...]


@dataclass(frozen=True)
class Compact(Stage[CompactRange]):
    """Merges objects of one kind: sorted by `keys` where there are some, else one after the other. All are tables but
    `refs`, lists of pointers, and `receipts`, a line each."""

    name: ClassVar[str] = "compact"
    VERSION: ClassVar[int] = 1

    kind: str
    keys: tuple[str, ...] = ()

    def split(self, refs: Sequence[ObjectRef]) -> Split:
        """What of these objects is to be merged, by their numbers of rows alone. Of empty ones the first stays, where
        there is no other."""
        refs = [ref for ref in refs if ref.records] or refs[:1]  # one stays, for its columns
        # A generation of a sorted kind is all tables that one increment cut by range; of another, each object is one.
        groups = generations(refs) if self.keys else [[ref] for ref in refs]
        cap = DOCUMENTS_PER_COLLECTION if self.kind == "signatures" else None
        first = trailing([sum(ref.records for ref in group) for group in groups], cap)
        if first >= len(groups) - 1:  # the last generation alone is merged with none
            first = len(groups)
        kept = [ref for group in groups[:first] for ref in group]
        merged = [ref for group in groups[first:] for ref in group if ref.records]
        return Split(tuple(kept), tuple(merged))

    def run(self, store: Store, work: Work[CompactRange]) -> Outcome:
        """Output: one object of the stage's kind."""
        refs = work.payload.refs
        if self.kind == "refs":
            done = put_refs(store, [listed for ref in refs for listed in read_refs(store, ref)])
        elif self.kind == "receipts":
            done = self._lines(store, refs)
        elif self.keys:
            done = self._sorted(store, refs, work.payload.low, work.payload.high)
        else:
            done = self._joined(store, refs)
        return Outcome(outputs=(done,), received=Tally())

    def _sorted(self, store: Store, refs: Sequence[ObjectRef], low: str, high: str) -> ObjectRef:
        hit = (pc.field(self.keys[0]) >= low) & (pc.field(self.keys[0]) < high)
        parts = [read_table(store, ref, filters=hit) for ref in refs if ref.overlaps(low, high)]
        table = pa.concat_tables(parts) if parts else read_table(store, refs[0]).slice(0, 0)
        metadata = table.schema.metadata  # the format number: it has to stay
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
    """These objects, or fewer with the same rows. Sorted ones are cut by range of the first key. Raises as
    `Runner.map`, ValueError where a row was lost."""
    split = stage.split(refs)
    if not split.merged:
        return list(split.kept)
    rows = sum(ref.records for ref in split.merged)
    works = []
    for low, high in hash_ranges(rows, ROWS_PER_RANGE) if stage.keys else [("", "g")]:
        inputs = (low, high, *(ref.sha256 for ref in split.merged))
        works.append(Work(stage, inputs, CompactRange(split.merged, low, high), label=f"{stage.kind} {low}"))
    done = [receipt.output(stage.kind) for receipt in runner.map(f"compact {stage.kind}", works)]
    if sum(ref.records for ref in done) != rows:
        raise ValueError(f"compact {stage.kind}: {rows:,} rows went in, {sum(r.records for r in done):,} came out")
    return [*split.kept, *done]


def trailing(sizes: Sequence[int], cap: int | None = None) -> int:
    """From which generation on they are merged, so that each that is left is twice the size of what follows it.

    With `cap` none grows beyond it, and only the last ones are considered.
    """
    if not sizes:
        return 0
    first = len(sizes) - 1
    # The sizes should at least halve from each to the next, as the levels of a merge tree do: the first pair that does
    # not (an increment that left several, or many that were never merged) is where merging begins.
    if cap is None:
        first = next((i for i in range(len(sizes) - 1) if sizes[i] < 2 * sizes[i + 1]), first)
    size = sum(sizes[first:])
    # The merged one is larger, and may be too large for what stands before it: that is merged as well.
    while first > 0 and sizes[first - 1] < 2 * size and (cap is None or sizes[first - 1] + size <= cap):
        first -= 1
        size += sizes[first]
    return first
