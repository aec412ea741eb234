"""The members of components: who they are, how they rank, their signatures, and what an earlier version decided.

A row is a document of some components, in order of its number, so that the old ones stand before the new. Signatures
are one matrix beside the table and are only read where they are compared: 448 bytes a document, half of what a Work
that chooses holds. Rows are read from the row groups that have some; of the earlier clusters a stream passes by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import ObjectRef, iter_batches, open_parquet
from lake.store import Store
from stages.clusters import CLUSTERS
from stages.fates import KEYS
from stages.minhash import signature_values

_INPUT = pa.dictionary(pa.int32(), pa.string())
"""Of the members' `input`: 64 characters a row would be half of the memory."""
_NOBODY = pa.schema(
    [
        ("id", pa.string()),
        ("input", _INPUT),
        *((name, pa.int64()) for name in ("ordinal", "start", "length")),
        ("ranks", pa.list_(pa.float64())),
    ]
).empty_table()


@dataclass(frozen=True)
class Members:
    """rows: keys and `ranks` (a list). root: the component of each, uint32 [rows]. old: how many rows are of earlier
    versions. values: their signatures, uint32 [rows, width]; width is 0 where they were not asked for."""

    rows: pa.Table
    root: np.ndarray
    old: int
    values: np.ndarray

    def tally(self, hit: np.ndarray) -> Tally:
        """Of some rows (bool); `ledger.tally` with one Python string an input instead of one a row."""
        rows = self.rows.filter(pa.array(hit))
        inputs = rows["input"].combine_chunks()
        names = inputs.dictionary.to_pylist()
        return Tally.of_records(map(names.__getitem__, inputs.indices.to_pylist()), rows["ordinal"].to_pylist())


def read_members(
    store: Store, refs: Sequence[ObjectRef], old: int, edges: tuple[np.ndarray, np.ndarray], *, signatures: bool
) -> Members:
    """Every document of the components with these edges (child, root). `old`: how many collections are of earlier
    versions."""
    child, root = edges
    numbers, first = np.unique(np.concatenate([child, root]), return_index=True)
    values = np.empty((len(numbers), _width(store, refs) if signatures else 0), np.uint32)
    parts, start, before = [_NOBODY], 0, 0
    for i, ref in enumerate(refs):
        low, high = np.searchsorted(numbers, [start, start + ref.records])
        if low < high:
            parts.append(_rows_at(store, ref, numbers[low:high].astype(np.int64) - start, values[low:high]))
        start += ref.records
        before = int(high) if i < old else before
    rows = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    return Members(rows, np.concatenate([root, root])[first], before, values)


def _width(store: Store, refs: Sequence[ObjectRef]) -> int:
    """Values of a signature."""
    with open_parquet(store, refs[0]) as file:
        return int(file.schema_arrow.field("signature").type.byte_width) // 4


def _rows_at(store: Store, ref: ObjectRef, positions: np.ndarray, values: np.ndarray) -> pa.Table:
    """Keys and ranks of the rows at these positions (ascending). Their signatures are written to `values`, unless it
    has no columns."""
    parts, start = [], 0
    with open_parquet(store, ref) as file:
        names = [name for name in file.schema_arrow.names if name.startswith("rank_")]
        ranks = sorted(names, key=lambda name: int(name.removeprefix("rank_")))
        columns = [*KEYS, *ranks, *(["signature"] if values.shape[1] else [])]
        for g in range(file.num_row_groups):
            rows = file.metadata.row_group(g).num_rows
            low, high = np.searchsorted(positions, [start, start + rows])
            if low < high:
                group = file.read_row_group(g, columns).take(pa.array(positions[low:high] - start))
                if values.shape[1]:
                    values[low:high] = signature_values(group["signature"], values.shape[1])
                group = group.select([*KEYS, *ranks])
                parts.append(group.set_column(1, "input", pc.cast(group["input"].dictionary_encode(), _INPUT)))
            start += rows
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    numbers = np.column_stack([table[name].to_numpy() for name in ranks]) if ranks else np.empty((table.num_rows, 0))
    offsets = pa.array(np.arange(table.num_rows + 1, dtype=np.int32) * len(ranks))
    lists = pa.ListArray.from_arrays(offsets, pa.array(numbers.ravel(), pa.float64()))
    return table.select(KEYS).append_column("ranks", lists).replace_schema_metadata()


def earlier_survivors(store: Store, clusters: Sequence[ObjectRef], ids: pa.Array) -> pa.Array:
    """In whose favour each of these documents was dropped in an earlier version; null for who was kept."""
    if not len(ids):
        return pa.nulls(0, pa.string())
    parts = [CLUSTERS.empty_table()]
    for ref in clusters:
        for batch in iter_batches(store, ref):
            parts.append(pa.Table.from_batches([batch.filter(pc.is_in(batch.column("id"), ids))], CLUSTERS))
    known = pa.concat_tables(parts).combine_chunks()
    return known["survivor"].combine_chunks().take(pc.index_in(ids, known["id"].combine_chunks()))
