"""Gather: the rows that SelectSurvivors compares, taken out of the collections and laid by component.

A collection is in order of documents, and the members of a component are anywhere. So that selection reads no
collection, each member of a component with something new is read once, by a Work for a range of documents that has its
share of them, and is written by ranges of roots, those that SelectSurvivors takes: no row group is of two ranges, and
statistics of `root` say of which it is. Within a range rows ascend by document. No version holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    open_parquet,
    put_file,
    put_refs,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from gristmill.stages.core.fates import KEYS
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.near.link import Linked
from gristmill.stages.near.minhash import signature_values
from gristmill.stages.run.runner import Runner

INPUT = pa.dictionary(pa.int32(), pa.string())
"""Of the members' `input`, in memory: 64 characters a row would be half of what a row without signature takes."""
SHARES_WITHOUT_SIGNATURES = 4
"""Shares of the members (stages/near/link.py) that one Work gathers where they are a quarter of the size."""


@dataclass(frozen=True)
class DocumentRange:
    """What one Work gathers. components: members of components (link.COMPONENTS). collections: a list object. cuts:
    the ranges of roots by which rows are laid. low, high: documents, `high` excluded."""

    components: ObjectRef
    collections: ObjectRef
    cuts: tuple[int, ...]
    low: int
    high: int


@dataclass(frozen=True)
class Gather(Stage[DocumentRange]):
    """Gathers the members of components, with or without their signatures."""

    name: ClassVar[str] = "gather"
    VERSION: ClassVar[int] = 1

    signatures: bool

    def run(self, store: Store, work: Work[DocumentRange]) -> Outcome:
        """Output `gathered`: keys, ranks, root, document (numbers, uint32) and, where they are asked for, signature."""
        p = work.payload
        refs = read_refs(store, p.collections)
        in_range = (pc.field("document") >= p.low) & (pc.field("document") < p.high)
        components = read_table(store, p.components, filters=in_range)
        schema = self._schema(store, refs[0])
        rows, values = self._members(store, refs, components, schema)
        with scratch() as folder:
            path = folder / "gathered.parquet"
            with table_writer(path, schema) as writer:
                for positions in _by_range(components["root"].to_numpy(), p.cuts):
                    table = _laid_out(rows, values, positions, schema)
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            ref = put_file(store, "gathered", path, rows.num_rows)
        return Outcome(outputs=(ref,), received=Tally())

    def _schema(self, store: Store, ref: ObjectRef) -> pa.Schema:
        """Of what is written, after the columns of a collection: as many ranks as its recipe has measures."""
        with open_parquet(store, ref) as file:
            collection = file.schema_arrow
        ranks = [name for name in collection.names if name.startswith("rank_")]
        ranks.sort(key=lambda name: int(name.removeprefix("rank_")))
        fields = [collection.field(name) for name in (*KEYS, *ranks)]
        fields += [pa.field("root", pa.uint32()), pa.field("document", pa.uint32())]
        if self.signatures:
            fields.append(collection.field("signature"))
        return pa.schema(fields, metadata={"gristmill.format": "1"})

    def _members(
        self, store: Store, refs: Sequence[ObjectRef], components: pa.Table, schema: pa.Schema
    ) -> tuple[pa.Table, np.ndarray]:
        """Everything but the signatures of these documents, in their order, and their signatures: uint32 [rows, width],
        of width 0 where they are not asked for."""
        documents = components["document"].to_numpy().astype(np.int64)
        width = schema.field("signature").type.byte_width // 4 if self.signatures else 0
        values = np.empty((len(documents), width), np.uint32)
        columns = [name for name in schema.names if name not in ("signature", *components.column_names)]
        fields = [pa.field(name, INPUT if name == "input" else schema.field(name).type) for name in columns]
        parts = [pa.schema(fields).empty_table()]  # for the columns, where there are no rows
        start = 0  # the number of the collection's first document
        for ref in refs:
            low, high = np.searchsorted(documents, [start, start + ref.records])
            if low < high:
                parts += _rows_at(store, ref, documents[low:high] - start, columns, values[low:high])
            start += ref.records
        rows = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
        for name in ("root", "document"):
            rows = rows.append_column(name, components[name].combine_chunks())
        return rows, values


def _rows_at(
    store: Store, ref: ObjectRef, positions: np.ndarray, columns: Sequence[str], values: np.ndarray
) -> Iterator[pa.Table]:
    """The rows at these positions (ascending, int64 [rows]), from the row groups that have any of them. Their
    signatures are written to `values`, uint32 [rows, width], unless it has no columns."""
    width = values.shape[1]
    read = [*columns, "signature"] if width else list(columns)
    start = 0  # the row group's first row
    with open_parquet(store, ref) as file:
        for g in range(file.num_row_groups):
            end = start + file.metadata.row_group(g).num_rows
            low, high = np.searchsorted(positions, [start, end])
            if low < high:
                group = file.read_row_group(g, read).take(pa.array(positions[low:high] - start))
                if width:
                    values[low:high] = signature_values(group["signature"], width)
                yield with_short_inputs(group.select(columns))
            start = end


def with_short_inputs(rows: pa.Table) -> pa.Table:
    """The rows with `input` as a number into a dictionary; without metadata, as parts of one table have to be."""
    short = pc.cast(rows["input"].dictionary_encode(), INPUT)
    return rows.set_column(rows.column_names.index("input"), "input", short).replace_schema_metadata()


def _by_range(root: np.ndarray, cuts: Sequence[int]) -> list[np.ndarray]:
    """The positions of the rows of each range between two cuts, in order; ranges without rows are left out."""
    place = np.searchsorted(cuts, root, side="right")
    order = np.argsort(place, kind="stable")  # stable: within a range rows stay in order of their documents
    boundaries = np.flatnonzero(np.diff(place[order])) + 1
    return [positions for positions in np.split(order, boundaries) if len(positions)]


def _laid_out(rows: pa.Table, values: np.ndarray, positions: np.ndarray, schema: pa.Schema) -> pa.Table:
    """The rows at these positions, as they are written."""
    table = rows.take(pa.array(positions))
    if values.shape[1]:
        data = pa.py_buffer(values[positions].astype("<u4", copy=False))
        kind = schema.field("signature").type
        signatures = pa.FixedSizeBinaryArray.from_buffers(kind, len(positions), [None, data])
        table = table.append_column("signature", signatures)
    return table.cast(schema)


def gather(runner: Runner, linked: Linked, *, signatures: bool) -> ObjectRef:
    """Runs Gather over the members of linked components: a list object of its tables. One Work a range of documents.
    signatures: whether they will be compared."""
    bounds = linked.shares
    if not signatures:
        bounds = [*linked.shares[:-1:SHARES_WITHOUT_SIGNATURES], linked.shares[-1]]
    cuts = ",".join(map(str, linked.cuts))
    works = []
    for low, high in pairwise(bounds):
        payload = DocumentRange(linked.components, linked.collections, tuple(linked.cuts), low, high)
        inputs = (linked.components.sha256, linked.collections.sha256, cuts, f"{low}:{high}")
        works.append(Work(Gather(signatures), inputs, payload, label=f"documents from {low}"))
    return put_refs(runner.store, [receipt.output("gathered") for receipt in runner.map("gather", works)])
