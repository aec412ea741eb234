"""Divergence: which records a dataset that grew night by night keeps or drops otherwise than one run over everything.

Earlier survivors stay, so a night may keep what one run would have dropped (a later document is better than both, or
joins two components) and drop what one run would have kept. A row names both documents, so that the difference can be
looked at. A component that grows again is judged anew, and its rows replace what earlier nights said of it; one table
holds what is true of the version. Rows of an earlier format are read as what they meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.objects import ObjectRef, read_table
from lake.store import Store
from stages.members import Members
from stages.settle import NONE, Settled

KEPT_HERE, DROPPED_HERE = "kept_here", "dropped_here"
DIVERGENCE = pa.schema(
    [("survivor", pa.string()), ("other", pa.string()), ("what", pa.string())], metadata={"gristmill.format": "2"}
)
"""what: `kept_here` (`survivor` is kept; one run would have dropped it in favour of `other`) | `dropped_here` (`other`
was dropped in favour of `survivor`; one run would have kept it)."""
_ORDER = [(name, "ascending") for name in ("survivor", "other", "what")]


def differences(members: Members, before: pa.Array, grown: Settled, alone: Settled) -> pa.Table:
    """Between the survivors on top of earlier versions and those of one run. `before`: in whose favour an old row was
    dropped; null for who was kept."""
    rows, ids = np.arange(len(members.root), dtype=np.uint32), members.rows["id"].combine_chunks()
    here, there = grown.survivor == rows, alone.survivor == rows
    kept = pa.array(_without_twins(here & ~there, there, members))
    dropped = pa.array(_without_twins(there & ~here, here, members))
    known = pa.array(grown.survivor, mask=grown.survivor == NONE)
    favour = pc.coalesce(ids.take(known), pa.concat_arrays([before, pa.nulls(len(rows) - members.old, pa.string())]))
    parts = [
        (ids.filter(kept), ids.take(pa.array(alone.survivor)).filter(kept), KEPT_HERE),
        (favour.filter(dropped), ids.filter(dropped), DROPPED_HERE),
    ]
    tables = [
        pa.table({"survivor": a, "other": b, "what": pa.repeat(what, len(a))}).cast(DIVERGENCE) for a, b, what in parts
    ]
    return pa.concat_tables(tables).sort_by(_ORDER)


def _without_twins(hit: np.ndarray, others: np.ndarray, members: Members) -> np.ndarray:
    """Without records of which the other side keeps another row: one record with two texts is kept once on both."""
    if not hit.any():
        return hit
    ids = members.rows["id"].combine_chunks()
    return hit & ~pc.is_in(ids, ids.filter(pa.array(others))).to_numpy(zero_copy_only=False)


def touching(store: Store, refs: Iterable[ObjectRef], ids: pa.Array) -> pa.Table:
    """The rows of earlier nights about these documents."""
    table = pa.concat_tables([DIVERGENCE.empty_table(), *(_read(store, ref) for ref in refs)])
    return table.filter(pc.or_(pc.is_in(table["survivor"], ids), pc.is_in(table["other"], ids))).sort_by(_ORDER)


def current(
    store: Store, earlier: Iterable[ObjectRef], rejudged: Sequence[ObjectRef], new: Sequence[ObjectRef]
) -> pa.Table:
    """What is true of a version: what earlier nights said and nobody said anew, and what is said tonight."""
    gone = {tuple(row.values()) for ref in rejudged for row in read_table(store, ref).to_pylist()}
    said = [row for ref in earlier for row in _read(store, ref).to_pylist() if tuple(row.values()) not in gone]
    said += [row for ref in new for row in read_table(store, ref).to_pylist()]
    return pa.Table.from_pylist(said, schema=DIVERGENCE).sort_by(_ORDER)


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
    read = [dict(zip(DIVERGENCE.names, row, strict=True)) for row in sorted(rows)]
    return pa.Table.from_pylist(read, schema=DIVERGENCE)
