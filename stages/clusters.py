"""Clusters of near duplicates: who survives, who is dropped in whose favour, and how large clusters are.

`choose` sees whole components: of new documents the best by measure survives, then the lowest id; where an earlier
version's document is among them, its survivor stays, because versions are immutable. What one run over everything
would have done otherwise (joined two survivors, kept another one) is written down as `divergence`. `clusters` merges
the members of all nights into one table sorted by survivor, which `grist why` looks up and sizes are counted from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.balance import Tally
from lake.objects import ObjectRef, iter_batches, open_parquet, put_table, read_refs, read_table
from lake.receipt import StageId
from lake.store import Store
from stages import runs
from stages.exact import hash_ranges
from stages.fates import KEYS, Fates
from stages.losers import put_losers
from stages.work import Outcome, Work, stage_id

MEMBERS_PER_RANGE = 2_000_000
SIZE_BINS = (2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 513, 1025)
"""Lower edges of the histogram of cluster sizes; the survivor counts."""
CLUSTERS = pa.schema(
    [("survivor", pa.string()), ("id", pa.string()), ("ranks", pa.list_(pa.float64()))],
    metadata={"gristmill.format": "1"},
)
"""`ranks` are the survivor's: with them a later night can say whether one of its documents would have been better."""
DIVERGENCE = pa.schema([("survivor", pa.string()), ("other", pa.string()), ("what", pa.string())])
"""what: `joined` (two survivors that one run would have put in one cluster) | `outranked` (`other` is the better)."""


@dataclass(frozen=True)
class Choose:
    """Chooses the survivors of some components."""

    name: ClassVar[str] = "choose"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: forest, collections (a list object), old (how many of them), clusters (pointers, of earlier
        versions), low, high (range of roots). Outputs `losers`, fates, `members`, `divergence`."""
        p = work.payload
        hit = (pc.field("root") >= p["low"]) & (pc.field("root") < p["high"])
        edges = read_table(store, ObjectRef(**p["forest"]), filters=hit)
        refs = read_refs(store, ObjectRef(**p["collections"]))
        old, new = _members(store, refs, p["old"], edges)
        earlier = _earlier(store, [ObjectRef(**ref) for ref in p["clusters"]], old)
        came_in = _tally(new)
        survivors = _survivors(new, earlier)
        del edges, new, old
        lost_mask = pc.invert(survivors["chosen"])
        passed = _tally(survivors.filter(pc.invert(lost_mask)))
        divergence = _divergence(earlier, survivors)
        lost = survivors.filter(lost_mask)
        del survivors, earlier, lost_mask
        again = pc.equal(lost["survivor"], lost["id"])  # a record met again, whose text another recipe made
        members = lost.filter(pc.invert(again)).select(CLUSTERS.names).cast(CLUSTERS).sort_by(_ORDER)
        members = put_table(store, "members", members, sorted_by="survivor")
        lost = lost.drop_columns(["ranks", "own_ranks"])
        losers = put_losers(store, lost)
        fates = Fates()
        why = pc.if_else(again, "minhash.same_record", "minhash.duplicate")
        fates.add_dropped(lost, why, lost["survivor"].combine_chunks())
        del lost
        written, counts = fates.write(store)
        return Outcome(
            outputs=(losers, written, members, put_table(store, "divergence", divergence)),
            came_in=came_in,
            passed=passed,
            dropped=counts.dropped,
            reasons=counts.reasons,
        )


_ORDER = [("survivor", "ascending"), ("id", "ascending")]


def _members(store: Store, refs: Sequence[ObjectRef], old: int, edges: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Every document of these components, the old and the new: keys, ranks (a list), root (its component)."""
    child, root = (edges[name].to_numpy() for name in ("child", "root"))
    numbers, first = np.unique(np.concatenate([child, root]), return_index=True)
    roots = np.concatenate([root, root])[first]
    parts: tuple[list[pa.Table], list[pa.Table]] = ([], [])
    start = 0
    for i, ref in enumerate(refs):
        low, high = np.searchsorted(numbers, [start, start + ref.records])
        if low < high:
            rows = _rows_at(store, ref, numbers[low:high].astype(np.int64) - start)
            parts[i >= old].append(rows.append_column("root", pa.array(roots[low:high])))
        start += ref.records
    before, now = (pa.concat_tables([_NOBODY, *some]).unify_dictionaries().combine_chunks() for some in parts)
    return before, now


_INPUT = pa.dictionary(pa.int32(), pa.string())
"""Of the members' `input`: 64 characters a row would be half of the memory."""
_NOBODY = pa.schema(
    [
        ("id", pa.string()),
        ("input", _INPUT),
        *((name, pa.int64()) for name in ("ordinal", "start", "length")),
        ("ranks", pa.list_(pa.float64())),
        ("root", pa.uint32()),
    ]
).empty_table()


def _rows_at(store: Store, ref: ObjectRef, positions: np.ndarray) -> pa.Table:
    """Keys and ranks of the rows at these positions (ascending), from the row groups that hold some."""
    parts, start = [], 0
    with open_parquet(store, ref) as file:
        ranks = sorted(
            (n for n in file.schema_arrow.names if n.startswith("rank_")), key=lambda n: int(n[len("rank_") :])
        )
        for g in range(file.num_row_groups):
            rows = file.metadata.row_group(g).num_rows
            low, high = np.searchsorted(positions, [start, start + rows])
            if low < high:
                group = file.read_row_group(g, [*KEYS, *ranks]).take(pa.array(positions[low:high] - start))
                parts.append(group.set_column(1, "input", pc.cast(group["input"].dictionary_encode(), _INPUT)))
            start += rows
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    values = np.column_stack([table[name].to_numpy() for name in ranks]) if ranks else np.empty((table.num_rows, 0))
    offsets = pa.array(np.arange(table.num_rows + 1, dtype=np.int32) * len(ranks))
    lists = pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), pa.float64()))
    return table.select(KEYS).append_column("ranks", lists).replace_schema_metadata()


def _tally(rows: pa.Table) -> Tally:
    """`ledger.tally` of members, with one Python string an input instead of one a row."""
    inputs = rows["input"].combine_chunks()
    names = inputs.dictionary.to_pylist()
    return Tally.of_records(map(names.__getitem__, inputs.indices.to_pylist()), rows["ordinal"].to_pylist())


def _earlier(store: Store, clusters: Sequence[ObjectRef], old: pa.Table) -> pa.Table:
    """For each old document its survivor in the earlier version (itself, if it was kept): root, survivor, ranks."""
    if not old.num_rows:
        return pa.table({"root": _NOBODY["root"], "survivor": _NOBODY["id"], "ranks": _NOBODY["ranks"]})
    ids = old["id"].combine_chunks()
    found = [CLUSTERS.empty_table()]
    for ref in clusters:
        for batch in iter_batches(store, ref):
            found.append(pa.Table.from_batches([batch.filter(pc.is_in(batch.column("id"), ids))], CLUSTERS))
    known = pa.concat_tables(found).combine_chunks()
    at = pc.index_in(ids, known["id"].combine_chunks())
    kept = pc.is_null(at)
    survivor = pc.coalesce(known["survivor"].take(at).combine_chunks(), ids)
    ranks = pc.if_else(kept, old["ranks"].combine_chunks(), known["ranks"].take(at).combine_chunks())
    return pa.table({"root": old["root"], "survivor": survivor, "ranks": ranks})


def _survivors(new: pa.Table, earlier: pa.Table) -> pa.Table:
    """The new documents with `survivor` and its `ranks`. Of several earlier survivors the root's own speaks: the root
    is the earliest document of its component."""
    ordered = _best_first(new)
    head, first = runs.begins(ordered["root"]), pa.array(runs.heads(ordered["root"]))
    # earlier rows stand in order of document number, so that the first with a root is the root itself
    at = pc.index_in(ordered["root"].combine_chunks(), earlier["root"].combine_chunks())
    mine = {name: ordered[column].combine_chunks().take(first) for name, column in _SPEAKER.items()}
    theirs = {name: earlier[name].combine_chunks().take(at) for name in _SPEAKER}
    table = ordered.drop_columns(["ranks"]).append_column("own_ranks", ordered["ranks"])
    for name in _SPEAKER:
        table = table.append_column(name, pc.if_else(pc.is_null(at), mine[name], theirs[name]))
    return table.append_column("first", pa.array(head)).append_column("chosen", pc.and_(pa.array(head), pc.is_null(at)))


_SPEAKER = {"survivor": "id", "ranks": "ranks"}


def _best_first(rows: pa.Table) -> pa.Table:
    """By component; within it the best measures first, then the lowest id."""
    rows = rows.combine_chunks()
    values = pc.list_flatten(rows["ranks"]).to_numpy()
    width = len(values) // rows.num_rows if rows.num_rows else 0
    keys = {f"key_{i}": pa.array(values[i::width]) for i in range(width)}
    order = [("root", "ascending"), *((name, "descending") for name in keys), ("id", "ascending")]
    sorting = pa.table({"root": rows["root"], "id": rows["id"], **keys})
    return rows.take(pc.sort_indices(sorting, order)).combine_chunks()


def _divergence(earlier: pa.Table, survivors: pa.Table) -> pa.Table:
    """What one run over everything would have done otherwise with these components."""
    speaker: dict[int, str] = {}
    joined = set()
    for root, survivor in zip(earlier["root"].to_pylist(), earlier["survivor"].to_pylist(), strict=True):
        if speaker.setdefault(root, survivor) != survivor:
            joined.add((speaker[root], survivor, "joined"))
    best = survivors.filter(pc.and_(survivors["first"], pc.not_equal(survivors["survivor"], survivors["id"])))
    outranked = set()
    for row in best.select(["id", "own_ranks", "survivor", "ranks"]).to_pylist():
        if ([-r for r in row["own_ranks"]], row["id"]) < ([-r for r in row["ranks"]], row["survivor"]):
            outranked.add((row["survivor"], row["id"], "outranked"))
    rows = [dict(zip(DIVERGENCE.names, one, strict=True)) for one in sorted(joined | outranked)]
    return pa.Table.from_pylist(rows, schema=DIVERGENCE)


@dataclass(frozen=True)
class Clusters:
    """Merges the clusters of earlier versions with new members, for one range of survivors, and counts sizes."""

    name: ClassVar[str] = "clusters"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: members (pointers), low, high. Output `clusters`; facts: sizes (lower edge -> clusters)."""
        low, high = work.payload["low"], work.payload["high"]
        hit = (pc.field("survivor") >= low) & (pc.field("survivor") < high)
        refs = [ObjectRef(**ref) for ref in work.payload["members"]]
        parts = [read_table(store, ref, filters=hit) for ref in refs if ref.overlaps(low, high)]
        table = pa.concat_tables([CLUSTERS.empty_table(), *parts])
        table = table.cast(CLUSTERS).sort_by(_ORDER)
        sizes = runs.sizes(table["survivor"]) + 1
        bins = np.searchsorted(SIZE_BINS, sizes, side="right") - 1
        histogram = {str(SIZE_BINS[i]): int(n) for i, n in sorted(Counter(bins.tolist()).items())}
        largest = int(sizes.max()) if len(sizes) else 0
        return Outcome(
            outputs=(put_table(store, "clusters", table, sorted_by="survivor"),),
            came_in=Tally(),
            facts={"sizes": histogram, "largest": largest, "clusters": len(sizes)},
        )


def choose_works(
    forest: ObjectRef, collections: ObjectRef, old: int, clusters: Sequence[ObjectRef], cuts: Sequence[int]
) -> list[Work]:
    """One Work a range of components."""
    works = []
    for low, high in pairwise(cuts):
        inputs = (forest.sha256, collections.sha256, str(old), f"{low}:{high}", *(ref.sha256 for ref in clusters))
        payload: dict[str, Any] = {"forest": forest.model_dump(), "collections": collections.model_dump(), "old": old}
        payload |= {"clusters": [ref.model_dump() for ref in clusters], "low": low, "high": high}
        works.append(Work(Choose(), inputs, payload, label=f"components from {low}"))
    return works


def cluster_works(earlier: Sequence[ObjectRef], members: Sequence[ObjectRef]) -> list[Work]:
    """One Work a range of survivors' ids."""
    refs = [ref for ref in (*earlier, *members) if ref.records]
    works = []
    for low, high in hash_ranges(sum(ref.records for ref in refs), MEMBERS_PER_RANGE):
        payload = {"members": [ref.model_dump() for ref in refs], "low": low, "high": high}
        inputs = (low, high, *(ref.sha256 for ref in refs))
        works.append(Work(Clusters(), inputs, payload, label=f"survivors from {low or '0'}"))
    return works
