"""Divergence: which records a dataset that grew by increments keeps or drops otherwise than one run over everything.

Earlier survivors stay, so an increment may keep what one run would have dropped (a later document is better than both,
or joins two components) and drop what one run would have kept. A row names both documents, so that the difference can
be read. A component that grows again is judged anew, and its rows replace those that earlier increments wrote of
it; one table holds what is true of the version. Rows of an earlier format are read as what they meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table
from gristmill.stages.clusters.members import Members
from gristmill.stages.clusters.settle import NONE, Settled

KEPT_HERE, DROPPED_HERE = "kept_here", "dropped_here"
DIVERGENCE = pa.schema(
    [("survivor", pa.string()), ("other", pa.string()), ("what", pa.string())], metadata={"gristmill.format": "2"}
)
"""what: `kept_here` (`survivor` is kept; one run would have dropped it in favour of `other`) | `dropped_here` (`other`
was dropped in favour of `survivor`; one run would have kept it)."""
_ORDER = [(name, "ascending") for name in ("survivor", "other", "what")]


def differences(members: Members, before: pa.Array, grown: Settled, alone: Settled) -> pa.Table:
    """A row of DIVERGENCE for each difference between `grown`, the survivors on top of earlier versions, and `alone`,
    those of one run. before: in whose favour an old row was dropped, null for who was kept; string [members.old]."""
    rows, ids = np.arange(len(members.root), dtype=np.uint32), members.rows["id"].combine_chunks()
    survives_here, survives_there = grown.survivor == rows, alone.survivor == rows
    kept = pa.array(_without_twins(survives_here & ~survives_there, survives_there, members))
    dropped = pa.array(_without_twins(survives_there & ~survives_here, survives_here, members))
    # In whose favour a row is dropped here: of a new one as it was settled; of an old one that was dropped before
    # (NONE, and so null) as its cluster says.
    settled_for = ids.take(pa.array(grown.survivor, mask=grown.survivor == NONE))
    of_old = pa.concat_arrays([before, pa.nulls(len(rows) - members.old, pa.string())])
    favoured_here = pc.coalesce(settled_for, of_old)
    favoured_there = ids.take(pa.array(alone.survivor))
    tables = [
        _differing(ids.filter(kept), favoured_there.filter(kept), KEPT_HERE),
        _differing(favoured_here.filter(dropped), ids.filter(dropped), DROPPED_HERE),
    ]
    return pa.concat_tables(tables).sort_by(_ORDER)


def _differing(survivors: pa.Array, others: pa.Array, what: str) -> pa.Table:
    """Rows of one sort."""
    columns = {"survivor": survivors, "other": others, "what": pa.repeat(what, len(survivors))}
    return pa.table(columns).cast(DIVERGENCE)


def _without_twins(selected: np.ndarray, kept_otherwise: np.ndarray, members: Members) -> np.ndarray:
    """The selected rows (bool [rows]) without records of which the other side keeps another row: one record with two
    texts is kept once on both."""
    if not selected.any():
        return selected
    ids = members.rows["id"].combine_chunks()
    has_twin = pc.is_in(ids, ids.filter(pa.array(kept_otherwise))).to_numpy(zero_copy_only=False)
    return selected & ~has_twin


def touching(store: Store, refs: Iterable[ObjectRef], ids: pa.Array) -> pa.Table:
    """The rows that earlier increments wrote of these documents."""
    table = pa.concat_tables([DIVERGENCE.empty_table(), *(_read(store, ref) for ref in refs)])
    return table.filter(pc.or_(pc.is_in(table["survivor"], ids), pc.is_in(table["other"], ids))).sort_by(_ORDER)


def current(
    store: Store, earlier: Iterable[ObjectRef], rejudged: Sequence[ObjectRef], new: Sequence[ObjectRef]
) -> pa.Table:
    """What is true of a version: the rows of earlier increments that none replaced, and the new ones."""
    replaced = {tuple(row.values()) for ref in rejudged for row in read_table(store, ref).to_pylist()}
    rows = []
    for ref in earlier:
        rows += [row for row in _read(store, ref).to_pylist() if tuple(row.values()) not in replaced]
    for ref in new:
        rows += read_table(store, ref).to_pylist()
    return pa.Table.from_pylist(rows, schema=DIVERGENCE).sort_by(_ORDER)


def _read(store: Store, ref: ObjectRef) -> pa.Table:
    """A table of any format. In format 1 `other` was `joined` (kept beside `survivor`), or had `outranked` it: one run
    would have kept `other` in place of `survivor`."""
    table = read_table(store, ref)
    if (table.schema.metadata or {}).get(b"gristmill.format") == b"2":
        return table.cast(DIVERGENCE)
    rows: set[tuple[str, str, str]] = set()
    for row in table.to_pylist():
        if row["what"] == "joined":
            rows.add((row["other"], row["survivor"], KEPT_HERE))
        else:
            rows |= {(row["survivor"], row["other"], KEPT_HERE), (row["survivor"], row["other"], DROPPED_HERE)}
    as_dicts = [dict(zip(DIVERGENCE.names, row, strict=True)) for row in sorted(rows)]
    return pa.Table.from_pylist(as_dicts, schema=DIVERGENCE)
