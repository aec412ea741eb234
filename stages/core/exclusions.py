"""Exclusions: which records a later stage must leave out, written by the stage that dropped them (kind `losers`).

Stages that compare records of many chunks (repeated paragraphs, exact and near duplicates) do not rewrite texts. Each
says in a small table which (input, ordinal) it dropped, sorted, with the range of inputs in its pointer; whoever reads
a chunk takes those rows out. A chunk is consecutive records of one input, so few of these tables are read for it.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table

SCHEMA = pa.schema([("input", pa.string()), ("ordinal", pa.int64())])


def store_exclusions(store: Store, table: pa.Table) -> ObjectRef:
    """Stores the `input` and `ordinal` of any table as exclusions, an object of kind `losers`."""
    rows = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata()
    return put_table(store, "losers", rows.sort_by([(name, "ascending") for name in SCHEMA.names]), sorted_by="input")


def without_exclusions(store: Store, chunk: pa.Table, exclusions: Iterable[ObjectRef]) -> pa.Table:
    """The rows of a chunk that no exclusion names. `chunk` has `input` (one value) and `ordinal` (ascending)."""
    if not chunk.num_rows:
        return chunk
    digest, low, high = chunk["input"][0].as_py(), chunk["ordinal"][0].as_py(), chunk["ordinal"][-1].as_py()
    here = (pc.field("input") == digest) & (pc.field("ordinal") >= low) & (pc.field("ordinal") <= high)
    near = [ref for ref in exclusions if ref.records and ref.first <= digest <= ref.last]
    ordinals = [read_table(store, ref, ["ordinal"], here)["ordinal"] for ref in near]
    excluded = pa.chunked_array([part for column in ordinals for part in column.chunks], pa.int64())
    return chunk.filter(pc.invert(pc.is_in(chunk["ordinal"], excluded.combine_chunks())))
