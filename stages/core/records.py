"""Records on their way between stages, and the one place that says which of them are still in.

A chunk is consecutive records of one input. Its content is written by the stage that reads; filters write verdicts
beside it, and stages that compare records of many chunks write exclusions (stages/core/exclusions.py). `alive` joins
the three, so a stage that takes its records from here may stand anywhere after the reading. A verdict table has a row
for each record that came to its filters: the last one alone says who passed. An edit (stages/text/edit.py;
stages/dedup/judge_runs.py) alone rewrites texts: it writes the content anew, of what it leaves in, and verdicts beside
it like a filter. A record keeps its key, so the measures that were taken before are still its own; its content hash is
that of the text that it has now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally, check_balance, total
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    iter_batches,
    open_parquet,
    put_refs,
    put_table,
    read_refs,
    read_table,
)
from gristmill.stages.core.exclusions import SCHEMA as EXCLUSIONS
from gristmill.stages.core.exclusions import without_exclusions
from gristmill.stages.core.fates import KEYS as RECORD_KEYS

KEYS = (*RECORD_KEYS, "content")
"""Columns of every content and every verdict table: who a record is, where it stands, and the hash of its content."""
KEYS_SCHEMA = pa.schema(
    [(name, pa.int64() if name in ("ordinal", "start", "length") else pa.string()) for name in KEYS]
)
CONTENT, VERDICTS, EXCLUDED = "text", "screened", "losers"
"""Kinds of the objects that a chunk consists of, and of those that stages write of whom they dropped."""
_PASSED = pc.is_null(pc.field("reason"))


@dataclass(frozen=True)
class Passed:
    """Facts of a stage that writes verdicts: bytes of the content that passed, UTF-8."""

    passed_bytes: int


@dataclass(frozen=True)
class Edited(Passed):
    """Facts of a stage that rewrote what passed. `edits`: `pii.email` -> how many, in the texts that passed."""

    edits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdicts:
    """A table of verdicts, keys and reason (null: passed), and the names of the measures that it has beside them."""

    table: ObjectRef
    measures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of one input.

    `tally`: of those that its own verdicts leave in; exclusions are not taken away. `bytes`: of their content, UTF-8;
    of a content that no stage has judged yet, as it is stored.
    """

    content: ObjectRef
    tally: Tally
    bytes: int
    verdicts: tuple[Verdicts, ...] = ()

    @classmethod
    def read(cls, receipt: Receipt, text_bytes: int) -> Chunk:
        """As a stage that reads left it.

        Such a stage may write verdicts as well, of records that all pass: sorted by content hash, they are the smaller
        table to compare texts by, and texts need not be read for it.
        """
        tables = tuple(Verdicts(ref) for ref in receipt.outputs if ref.kind == VERDICTS)
        return cls(receipt.output(CONTENT), receipt.passed, text_bytes, tables)

    def judged(self, receipt: Receipt, measures: Sequence[str]) -> Chunk:
        """After a stage that wrote verdicts on the records that were in, and where it edits their content anew."""
        rewritten = any(ref.kind == CONTENT for ref in receipt.outputs)
        return replace(
            self,
            content=receipt.output(CONTENT) if rewritten else self.content,
            tally=receipt.passed,
            bytes=receipt.facts_as(Edited if rewritten else Passed).passed_bytes,
            verdicts=(*self.verdicts, Verdicts(receipt.output(VERDICTS), tuple(measures))),
        )

    @property
    def keys(self) -> ObjectRef:
        """The smallest table with the keys of all that are in: the last verdicts, else the content."""
        return self.verdicts[-1].table if self.verdicts else self.content

    @property
    def digests(self) -> tuple[str, ...]:
        """What a stage that reads this chunk depends on, exclusions aside."""
        return (self.content.sha256, *(verdicts.table.sha256 for verdicts in self.verdicts))

    @property
    def label(self) -> str:
        """What a piece of work on it is called: by its content, which the runner traces to a file."""
        return self.content.sha256[:12]


@dataclass(frozen=True)
class Records:
    """All records of a run: `tally` is of those that are in, `exclusions` are tables of those that are not, though the
    verdicts of their chunk leave them in."""

    chunks: tuple[Chunk, ...]
    tally: Tally
    exclusions: tuple[ObjectRef, ...] = ()

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> Records:
        """All that these chunks' own verdicts leave in."""
        chunks = tuple(chunks)
        return cls(chunks, total(chunk.tally for chunk in chunks))

    def judged(self, title: str, receipts: Sequence[Receipt], measures: Sequence[str]) -> Records:
        """After verdicts on each chunk. Raises BalanceError unless just these records were judged."""
        self.check(title, receipts)
        pairs = zip(self.chunks, receipts, strict=True)
        chunks = tuple(chunk.judged(receipt, measures) for chunk, receipt in pairs)
        return replace(self, chunks=chunks, tally=total(r.passed for r in receipts))

    def compared(self, receipts: Sequence[Receipt]) -> Records:
        """Without what these receipts dropped, of which their exclusions are the list."""
        tables = [receipt.output(EXCLUDED) for receipt in receipts]
        dropped = total(receipt.dropped for receipt in receipts)
        exclusions = (*self.exclusions, *(ref for ref in tables if ref.records))
        return replace(self, exclusions=exclusions, tally=self.tally - dropped)

    def check(self, title: str, receipts: Iterable[Receipt]) -> None:
        """Raises BalanceError unless what came in to this work is what is in."""
        check_balance(title, self.tally, {"seen": total(receipt.received for receipt in receipts)})

    def put_exclusions(self, store: Store) -> ObjectRef:
        """The exclusions as a list object, for the payload of work."""
        return put_refs(store, self.exclusions)

    def put_keys(self, store: Store) -> ObjectRef:
        """The key tables of all chunks as a list object, for `alive_keys`."""
        return put_refs(store, [chunk.keys for chunk in self.chunks])


def alive(
    store: Store,
    chunk: Chunk,
    columns: Sequence[str] | None,
    *,
    measures: Sequence[str] = (),
    exclusions: Iterable[ObjectRef] = (),
) -> pa.Table:
    """The records of a chunk that are in, in order of the input: `columns` of the content (None: all; else with
    `input` and `ordinal`), and `measures` by their names in the verdicts.

    Without `exclusions` it goes by the chunk's own verdicts: what is worked out then serves whatever is excluded later.
    Raises ValueError where verdicts are on records that the content does not have, or no verdicts have a measure.
    """
    rows = read_table(store, chunk.content, None if columns is None else list(columns))
    if chunk.verdicts:
        passed = _passed(store, chunk, measures)
        # A chunk is of one input, so the ordinal is its key. Both sides ascend by it, which makes the join a filter
        # that has to come out equal, and measures can be put beside the rows as they are.
        rows = rows.filter(pc.is_in(rows["ordinal"], passed["ordinal"]))
        if not rows["ordinal"].equals(passed["ordinal"]):
            raise ValueError(
                f"content {chunk.content.sha256[:12]} and its verdicts {chunk.keys.sha256[:12]} name other records"
            )
        for name in measures:
            rows = rows.append_column(name, passed[name])
    elif measures:
        raise _no_measure(chunk, measures)
    return without_exclusions(store, rows, exclusions)


def alive_batches(
    store: Store, chunk: Chunk, columns: Sequence[str], exclusions: Iterable[ObjectRef] = ()
) -> Iterator[pa.RecordBatch]:
    """As `alive`, a batch at a time: the content is never in memory as a whole. Batches may be empty."""
    exclusions = tuple(exclusions)
    if not chunk.verdicts and not exclusions:
        yield from iter_batches(store, chunk.content, list(columns))
        return
    wanted, seen = _wanted(store, chunk, exclusions), 0
    for batch in iter_batches(store, chunk.content, list(columns)):
        batch = batch.filter(pc.is_in(batch["ordinal"], wanted))
        seen += batch.num_rows
        yield batch
    _check_seen(chunk, seen, len(wanted))


def alive_groups(store: Store, chunk: Chunk, exclusions: Iterable[ObjectRef] = ()) -> Iterator[tuple[int, pa.Table]]:
    """As `alive` with all columns, a row group of the content at a time: (its number among those of ROW_GROUP_ROWS that
    the content would have by its rows alone, rows)."""
    wanted, seen, first = _wanted(store, chunk, exclusions), 0, 0
    with open_parquet(store, chunk.content) as file:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            at = 0
            while at < group.num_rows:
                block = (first + at) // ROW_GROUP_ROWS
                rows = group.slice(at, (block + 1) * ROW_GROUP_ROWS - first - at)
                at += rows.num_rows
                rows = rows.filter(pc.is_in(rows["ordinal"], wanted))
                seen += rows.num_rows
                yield block, rows
            first += group.num_rows
    _check_seen(chunk, seen, len(wanted))


def _wanted(store: Store, chunk: Chunk, exclusions: Iterable[ObjectRef]) -> pa.Array:
    """Ordinals of the records that are in."""
    keys = _passed(store, chunk) if chunk.verdicts else read_table(store, chunk.content, ["input", "ordinal"])
    return without_exclusions(store, keys, exclusions)["ordinal"].combine_chunks()


def _check_seen(chunk: Chunk, seen: int, wanted: int) -> None:
    """Raises ValueError where the content has not all records that its verdicts leave in."""
    if seen != wanted:
        raise ValueError(
            f"content {chunk.content.sha256[:12]} has {seen} of the {wanted} records that its verdicts"
            f" {chunk.keys.sha256[:12]} leave in"
        )


def alive_measures(store: Store, chunk: Chunk, measures: Sequence[str]) -> pa.Table:
    """`ordinal` and the measures of what a chunk's verdicts leave in, in order of the input."""
    if not chunk.verdicts:
        raise _no_measure(chunk, measures)
    return _passed(store, chunk, measures)


def alive_keys(store: Store, keys: ObjectRef, exclusions: ObjectRef, hit: pc.Expression) -> pa.Table:
    """The keys of all records that are in and that `hit` holds for, of whatever chunk.

    `keys`, `exclusions`: list objects, as `Records` puts them. Rows are in no order.
    """
    parts = [KEYS_SCHEMA.empty_table()]
    for ref in read_refs(store, keys):
        is_wanted = hit & _PASSED if ref.kind == VERDICTS else hit  # a content has no reasons: all of it is in
        parts.append(read_table(store, ref, list(KEYS), is_wanted))
    rows = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    excluded = [read_table(store, ref) for ref in read_refs(store, exclusions) if ref.records]
    if excluded:
        rows = rows.join(pa.concat_tables(excluded), EXCLUSIONS.names, join_type="left anti")
    return rows


def put_verdicts(store: Store, table: pa.Table) -> ObjectRef:
    """Stores a table of verdicts, by content hash: so a range of hashes is read from few row groups."""
    return put_table(store, VERDICTS, table.sort_by([(name, "ascending") for name in ("content", "input", "ordinal")]))


def _passed(store: Store, chunk: Chunk, measures: Sequence[str] = ()) -> pa.Table:
    """`input`, `ordinal` and measures of what the last verdicts leave in, in order of the input. A measure of earlier
    filters is looked up in their table."""
    # Only the last verdicts know who passed: whoever an earlier filter dropped is not in them. Their tables are joined
    # by ordinal, since each is in order of content hashes and has fewer rows than the one before.
    last, *earlier = reversed(chunk.verdicts)
    here = [name for name in measures if name in last.measures]
    rows = read_table(store, last.table, ["input", "ordinal", *here], _PASSED).sort_by("ordinal")
    missing = [name for name in measures if name not in last.measures]
    for verdicts in earlier:
        there = [name for name in missing if name in verdicts.measures]
        if there:
            table = read_table(store, verdicts.table, ["ordinal", *there])
            at = pc.index_in(rows["ordinal"], table["ordinal"].combine_chunks())
            for name in there:
                rows = rows.append_column(name, table[name].take(at))
        missing = [name for name in missing if name not in there]
    if missing:
        raise _no_measure(chunk, missing)
    return rows


def _no_measure(chunk: Chunk, names: Sequence[str]) -> ValueError:
    known = [name for verdicts in chunk.verdicts for name in verdicts.measures]
    return ValueError(f"no filter before measures {', '.join(names)}; there are {', '.join(known) or 'none'}")
