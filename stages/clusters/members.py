"""The members of components: who they are, how they rank, their signatures, and what an earlier version decided.

A row is a document of some components, in order of its number, so that old ones stand before new ones. Signatures
are one matrix beside the table and are only read where they are compared: 448 bytes a document, half of what a Work of
SelectSurvivors holds. Of the gathered tables (stages/near/gather.py) only the row groups of its own range are read; of
the earlier clusters a stream passes by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, groups_between, iter_batches, open_parquet
from gristmill.stages.clusters.clusters import CLUSTERS
from gristmill.stages.core.fates import KEYS
from gristmill.stages.near.gather import with_short_inputs
from gristmill.stages.near.minhash import signature_values


@dataclass(frozen=True)
class Members:
    """Members of some components, in order of their numbers.

    rows: keys and `ranks` (a list). root: the component of each, uint32 [rows]. old: how many rows, the first ones, are
    of earlier versions. values: signatures, uint32 [rows, width]; width is 0 where they were not asked for.
    """

    rows: pa.Table
    root: np.ndarray
    old: int
    values: np.ndarray

    def tally(self, selected: np.ndarray) -> Tally:
        """Of the selected rows (bool [rows]); `ledger.tally` with one Python string an input instead of one a row."""
        rows = self.rows.filter(pa.array(selected))
        inputs = rows["input"].combine_chunks()
        names = inputs.dictionary.to_pylist()
        return Tally.of_records(map(names.__getitem__, inputs.indices.to_pylist()), rows["ordinal"].to_pylist())


def read_members(store: Store, gathered: Sequence[ObjectRef], low: int, high: int, old: int) -> Members:
    """Every gathered document of the components with roots from `low` to `high` (excluded), one of the ranges that they
    are laid by. `old`: documents of earlier versions."""
    parts, signatures = [], []
    for ref in gathered:  # each is of later documents than the one before
        for group in _row_groups(store, ref, low, high):
            if "signature" in group.column_names:
                signatures.append(group["signature"])
                group = group.drop_columns("signature")
            parts.append(with_short_inputs(group))
    rows = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    del parts
    root, document = (rows[name].to_numpy() for name in ("root", "document"))
    return Members(_ranked(rows), root, int((document < old).sum()), _stacked(signatures, len(root)))


def _row_groups(store: Store, ref: ObjectRef, low: int, high: int) -> Iterator[pa.Table]:
    """A table without rows, for its columns, and the row groups of a range of roots: each is of one range alone."""
    with open_parquet(store, ref) as file:
        yield file.schema_arrow.empty_table()
        for g in groups_between(file, "root", low, high):
            yield file.read_row_group(g)


def _ranked(rows: pa.Table) -> pa.Table:
    """Keys, and the columns of ranks as one of lists."""
    ranks = [name for name in rows.column_names if name.startswith("rank_")]
    values = np.column_stack([rows[name].to_numpy() for name in ranks]) if ranks else np.empty((rows.num_rows, 0))
    offsets = pa.array(np.arange(rows.num_rows + 1, dtype=np.int32) * len(ranks))
    lists = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float64()))
    return rows.select(KEYS).append_column("ranks", lists)


def _stacked(signatures: list[pa.ChunkedArray], rows: int) -> np.ndarray:
    """uint32 [rows, width]. Takes the parts off the list, so that little is held twice: it is most of the memory."""
    width = signatures[0].type.byte_width // 4 if signatures else 0
    values = np.empty((rows, width), np.uint32)
    end = rows
    while signatures:  # from the last to the first
        part = signatures.pop()
        start = end - len(part)
        values[start:end] = signature_values(part, width)
        end = start
    return values


def earlier_survivors(store: Store, clusters: Sequence[ObjectRef], ids: pa.Array) -> pa.Array:
    """In whose favour each of these documents (string [n]) was dropped in an earlier version; null for who was kept."""
    if not len(ids):
        return pa.nulls(0, pa.string())
    parts = [CLUSTERS.empty_table()]
    for ref in clusters:
        # Clusters lie in order of the survivor and are asked by member, so all of them pass by, a batch at a time.
        for batch in iter_batches(store, ref):
            asked = batch.filter(pc.is_in(batch.column("id"), ids))
            parts.append(pa.Table.from_batches([asked], CLUSTERS))
    known = pa.concat_tables(parts).combine_chunks()
    return known["survivor"].combine_chunks().take(pc.index_in(ids, known["id"].combine_chunks()))
