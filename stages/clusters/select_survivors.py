"""Survivor selection: of each component of near duplicates, who survives, who is dropped in whose favour, how like it.

It sees whole components. Survivors of earlier versions come first, because versions are immutable; then the new
documents, best by measure, then by id. Each is dropped in favour of the survivor that it is most like, if that is at
least `min_similarity` (stages/clusters/settle.py), else it survives. The same documents are settled once more as if
none had been there before: where that comes out otherwise, one run over everything would have differed, and the
difference is written down as `divergence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_refs
from gristmill.stages.clusters.clusters import CLUSTERS, CLUSTERS_ORDER
from gristmill.stages.clusters.divergence import differences, touching
from gristmill.stages.clusters.members import Members, earlier_survivors, read_members
from gristmill.stages.clusters.settle import DROPPED, KEPT, UNDECIDED, Settled, settle
from gristmill.stages.core.exclusions import store_exclusions
from gristmill.stages.core.fates import KEYS, Fates
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.near.link import Linked


@dataclass(frozen=True)
class ComponentRange:
    """The components that one Work settles. gathered: a list object (stages/near/gather.py). low, high: roots, `high`
    excluded. old: documents of earlier versions. clusters, divergence: tables of those versions."""

    gathered: ObjectRef
    low: int
    high: int
    old: int
    clusters: tuple[ObjectRef, ...] = ()
    divergence: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True)
class Comparisons:
    """facts: `compared`, how many pairs of signatures were compared."""

    compared: int


@dataclass(frozen=True)
class SelectSurvivors(Stage[ComponentRange]):
    """Selects the survivors of some components.

    `min_similarity`: estimated Jaccard similarity of word n-grams, above 0 up to 1; with None all of a component are
    alike, and one survives. Raises ValueError for another.
    """

    name: ClassVar[str] = "choose"
    VERSION: ClassVar[int] = 2
    decider: ClassVar[str] = "minhash"
    """What its reasons begin with."""
    estimated: ClassVar[bool] = True
    """Whether the share of values that agree estimates a similarity, or is one."""

    min_similarity: float | None = 0.7

    @property
    def places(self) -> np.ndarray | None:
        """Of the values of a signature, those by which a document of a large component finds survivors to be compared
        with, int64 [pieces, values]; None: each four in a row."""
        return None

    def __post_init__(self) -> None:
        if self.min_similarity is not None and not 0 < self.min_similarity <= 1:
            raise ValueError(
                f"min_similarity is {self.min_similarity}; give a Jaccard similarity above 0 up to 1, or null, with"
                " which everything that hangs together by shared bands has one survivor"
            )

    def run(self, store: Store, work: Work[ComponentRange]) -> Outcome:
        """Outputs: `exclusions` and `fates` of the new documents that are dropped, `members` (rows for `clusters`), and
        where earlier versions take part `divergence`, and `rejudged`: what of their divergence it replaces."""
        p = work.payload
        members = read_members(store, read_refs(store, p.gathered), p.low, p.high, p.old)
        old_ids = members.rows["id"].slice(0, members.old).combine_chunks()
        dropped_for = earlier_survivors(store, p.clusters, old_ids)
        settled = self.settled(members, dropped_for)
        fates, exclusions, cluster_members = self._dropped(store, members, settled)
        written, counts = fates.write(store)
        outputs = [exclusions, written, cluster_members]
        if members.old:
            divergence = differences(members, dropped_for, settled, self.alone(members))
            outputs.append(put_table(store, "divergence", divergence))
            outputs.append(put_table(store, "rejudged", touching(store, p.divergence, old_ids)))
        rows = np.arange(len(members.root), dtype=np.uint32)
        is_new, survives = rows >= members.old, settled.survivor == rows
        return Outcome(
            outputs=tuple(outputs),
            received=members.tally(is_new),
            passed=members.tally(is_new & survives),
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts=Comparisons(settled.compared),
        )

    def settled(self, members: Members, dropped_for: pa.Array) -> Settled:
        """The survivors on top of earlier versions, whose own survivors stay and come first. dropped_for: in whose
        favour each old row was dropped, null for who was kept; string [members.old]."""
        state = np.full(len(members.root), UNDECIDED, np.uint8)
        state[: members.old] = np.where(pc.is_null(dropped_for).to_numpy(zero_copy_only=False), KEPT, DROPPED)
        return self._settled(members, state)

    def alone(self, members: Members) -> Settled:
        """The survivors if all had come in one run."""
        return self._settled(members, np.full(len(members.root), UNDECIDED, np.uint8))

    def _settled(self, members: Members, state: np.ndarray) -> Settled:
        order, starts = _in_order(members, first=state == KEPT)
        ids = members.rows["id"].combine_chunks()
        return settle(
            members.values,
            order,
            starts,
            state,
            ids,
            self.min_similarity,
            estimated=self.estimated,
            places=self.places,
        )

    def _dropped(self, store: Store, members: Members, settled: Settled) -> tuple[Fates, ObjectRef, ObjectRef]:
        """Fates, exclusions and members (rows for `clusters`) of the new documents that do not survive."""
        rows = np.arange(len(members.root), dtype=np.uint32)
        is_dropped = (rows >= members.old) & (settled.survivor != rows)
        dropped = members.rows.filter(pa.array(is_dropped))
        survivors = members.rows.select(["id", "ranks"]).take(pa.array(settled.survivor[is_dropped])).combine_chunks()
        # A record met again, with another text because another recipe extracted it, is dropped in favour of itself: it
        # is no member of a cluster.
        again = pc.equal(survivors["id"], dropped["id"])
        table = pa.table({"survivor": survivors["id"], "id": dropped["id"], "ranks": survivors["ranks"]}).cast(CLUSTERS)
        cluster_members = table.filter(pc.invert(again)).sort_by(CLUSTERS_ORDER)
        fates = Fates()
        fates.add_dropped(
            dropped.select(KEYS),
            pc.if_else(again, f"{self.decider}.same_record", f"{self.decider}.duplicate").combine_chunks(),
            survivors["id"].combine_chunks(),
            self._similarities(members, settled.agreement[is_dropped]),
        )
        ref = put_table(store, "members", cluster_members, sorted_by="survivor")
        return fates, store_exclusions(store, dropped), ref

    def _similarities(self, members: Members, agreement: np.ndarray) -> pa.Array | None:
        """As the ledger has them: the share of values that agree, two decimals, never rounded up to 1."""
        if self.min_similarity is None:
            return None
        width = members.values.shape[1]
        shown = [f"{np.floor(100 * k / width) / 100:.2f}" for k in range(width + 1)]
        return pa.array(shown, pa.string()).take(pa.array(agreement))


def _in_order(members: Members, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows by component, int64 [rows]; where components begin, and the end, int64 [components + 1]).

    In each component those of `first` (bool [rows]) come first; then, and among them, the best measures, then the
    lowest id, then of one record's rows the earliest. Nothing else decides: not the order in which files came in.
    """
    values = pc.list_flatten(members.rows["ranks"]).to_numpy()  # row by row, each with as many measures
    measures = len(values) // len(first) if len(first) else 0
    ranks = {f"rank_{i}": values[i::measures] for i in range(measures)}
    keys = {"root": members.root, "later": ~first, **ranks, "id": members.rows["id"], "row": np.arange(len(first))}
    directions = [(name, "descending" if name in ranks else "ascending") for name in keys]
    order = pc.sort_indices(pa.table(keys), directions).to_numpy()
    starts = np.flatnonzero(np.diff(members.root[order], prepend=-1, append=-1))
    return order, starts


def survivor_works(
    stage: SelectSurvivors,
    linked: Linked,
    gathered: ObjectRef,
    clusters: Sequence[ObjectRef] = (),
    divergence: Sequence[ObjectRef] = (),
) -> list[Work[ComponentRange]]:
    """One Work a range of components. `gathered`: their members (stages/near/gather.py), with signatures if the stage
    compares them. clusters, divergence: of earlier versions."""
    works = []
    for low, high in pairwise(linked.cuts):
        earlier = [ref.sha256 for ref in (*clusters, *divergence)]
        inputs = (gathered.sha256, str(linked.old), f"{low}:{high}", *earlier)
        payload = ComponentRange(gathered, low, high, linked.old, tuple(clusters), tuple(divergence))
        works.append(Work(stage, inputs, payload, label=f"components from {low}"))
    return works
