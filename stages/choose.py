"""Choose: of each component of near duplicates, who survives, who is dropped, in whose favour, and how like it is.

It sees whole components. Survivors of earlier versions come first, because versions are immutable; then the new
documents, best by measure, then by id. Each is dropped in favour of the survivor that it is most like, if that is at
least `min_similarity` (stages/settle.py), else it survives. What one run over everything would have done otherwise is
found by settling the same documents once more as if none had been there before, and written down as `divergence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.objects import ObjectRef, put_table, read_refs
from lake.receipt import StageId
from lake.store import Store
from stages.clusters import CLUSTERS, CLUSTERS_ORDER
from stages.divergence import differences, touching
from stages.fates import KEYS, Fates
from stages.link import Linked
from stages.losers import put_losers
from stages.members import Members, earlier_survivors, read_members
from stages.settle import DROPPED, KEPT, UNDECIDED, Settled, settle
from stages.work import Outcome, Work, stage_id


@dataclass(frozen=True)
class Choose:
    """Chooses the survivors of some components. `min_similarity`: of word n-grams, above 0 up to 1; with None all of a
    component are alike, and one survives."""

    name: ClassVar[str] = "choose"
    VERSION: ClassVar[int] = 2

    min_similarity: float | None = 0.7

    def __post_init__(self) -> None:
        if self.min_similarity is not None and not 0 < self.min_similarity <= 1:
            raise ValueError(
                f"min_similarity is {self.min_similarity}; give a Jaccard similarity above 0 up to 1, or null, with"
                " which everything that hangs together by shared bands has one survivor"
            )

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: gathered (a list object), old (documents of earlier versions), clusters and divergence (pointers,
        of earlier versions), low, high (range of roots). Outputs `losers`, fates, `members`, `divergence`, and
        `rejudged`: what of the earlier divergence it replaces."""
        p = work.payload
        clusters, said = ([ObjectRef(**ref) for ref in p[name]] for name in ("clusters", "divergence"))
        members = read_members(store, read_refs(store, ObjectRef(**p["gathered"])), p["low"], p["high"], p["old"])
        old_ids = members.rows["id"].slice(0, members.old).combine_chunks()
        before = earlier_survivors(store, clusters, old_ids)
        settled = self.settled(members, before)
        divergence = differences(members, before, settled, self.alone(members)) if members.old else None
        fates, losers, favour = self._dropped(store, members, settled)
        written, counts = fates.write(store)
        new = np.arange(len(members.root)) >= members.old
        stay = settled.survivor == np.arange(len(members.root), dtype=np.uint32)
        return Outcome(
            outputs=(losers, written, favour, *_told(store, divergence, said, old_ids)),
            came_in=members.tally(new),
            passed=members.tally(new & stay),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts={"compared": settled.compared},
        )

    def settled(self, members: Members, before: pa.Array) -> Settled:
        """The survivors on top of earlier versions, whose own survivors stay and come first."""
        state = np.full(len(members.root), UNDECIDED, np.uint8)
        state[: members.old] = np.where(pc.is_null(before).to_numpy(zero_copy_only=False), KEPT, DROPPED)
        order, starts = _in_order(members, first=state == KEPT)
        ids = members.rows["id"].combine_chunks()
        return settle(members.values, order, starts, state, ids, self.min_similarity)

    def alone(self, members: Members) -> Settled:
        """The survivors if all had come in one run."""
        order, starts = _in_order(members, first=np.zeros(len(members.root), bool))
        state = np.full(len(members.root), UNDECIDED, np.uint8)
        return settle(members.values, order, starts, state, members.rows["id"].combine_chunks(), self.min_similarity)

    def _dropped(self, store: Store, members: Members, settled: Settled) -> tuple[Fates, ObjectRef, ObjectRef]:
        """Fates, losers and members (rows for `clusters`) of the new documents that do not survive."""
        rows = np.arange(len(members.root), dtype=np.uint32)
        hit = (rows >= members.old) & (settled.survivor != rows)
        lost, at = members.rows.filter(pa.array(hit)), pa.array(settled.survivor[hit])
        survivors = members.rows.select(["id", "ranks"]).take(at).combine_chunks()
        again = pc.equal(survivors["id"], lost["id"])  # a record met again, whose text another recipe made
        table = pa.table({"survivor": survivors["id"], "id": lost["id"], "ranks": survivors["ranks"]}).cast(CLUSTERS)
        favour = table.filter(pc.invert(again)).sort_by(CLUSTERS_ORDER)
        fates = Fates()
        fates.add_dropped(
            lost.select(KEYS),
            pc.if_else(again, "minhash.same_record", "minhash.duplicate").combine_chunks(),
            survivors["id"].combine_chunks(),
            self._similarities(members, settled.agreement[hit]),
        )
        return fates, put_losers(store, lost), put_table(store, "members", favour, sorted_by="survivor")

    def _similarities(self, members: Members, agreement: np.ndarray) -> pa.Array | None:
        """As the ledger has them: the share of values that agree, two decimals, never rounded up to 1."""
        if self.min_similarity is None:
            return None
        width = members.values.shape[1]
        shown = [f"{np.floor(100 * k / width) / 100:.2f}" for k in range(width + 1)]
        return pa.array(shown, pa.string()).take(pa.array(agreement))


def _in_order(members: Members, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows by component, where components begin). In each those of `first` (bool) come first; then, and among them,
    the best measures, then the lowest id, then of one record's rows the earliest."""
    values = pc.list_flatten(members.rows["ranks"]).to_numpy()
    width = len(values) // len(first) if len(first) else 0
    keys = {f"key_{i}": values[i::width] for i in range(width)}
    last = {"id": members.rows["id"], "row": np.arange(len(first))}
    table = pa.table({"root": members.root, "later": ~first, **keys, **last})
    order = [("root", "ascending"), ("later", "ascending"), *((name, "descending") for name in keys)]
    at = pc.sort_indices(table, [*order, *((name, "ascending") for name in last)]).to_numpy()
    starts = np.flatnonzero(np.diff(members.root[at], prepend=-1, append=-1))
    return at, starts


def _told(
    store: Store, divergence: pa.Table | None, earlier: Sequence[ObjectRef], ids: pa.Array
) -> tuple[ObjectRef, ...]:
    """The objects `divergence` and `rejudged`; nothing where no earlier version takes part."""
    if divergence is None:
        return ()
    return (put_table(store, "divergence", divergence), put_table(store, "rejudged", touching(store, earlier, ids)))


def choose_works(
    stage: Choose,
    linked: Linked,
    gathered: ObjectRef,
    clusters: Sequence[ObjectRef] = (),
    divergence: Sequence[ObjectRef] = (),
) -> list[Work]:
    """One Work a range of components. `gathered`: of what is linked (stages/gather.py), with signatures if the stage
    compares them."""
    works = []
    for low, high in pairwise(linked.cuts):
        earlier = [ref.sha256 for ref in (*clusters, *divergence)]
        inputs = (gathered.sha256, str(linked.old), f"{low}:{high}", *earlier)
        payload: dict[str, Any] = {"gathered": gathered.model_dump(), "old": linked.old}
        payload |= {"clusters": [ref.model_dump() for ref in clusters], "low": low, "high": high}
        payload |= {"divergence": [ref.model_dump() for ref in divergence]}
        works.append(Work(stage, inputs, payload, label=f"components from {low}"))
    return works
