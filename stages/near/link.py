"""Links: which documents hang together by shared band hashes, as a spanning forest over all that a dataset ever held.

Link (a band, a range of its hashes) -> MergeForests (as a tree) -> Gather and SelectSurvivors. Documents are numbered
by their place in the list of collections, those of earlier versions first. An old document is never linked to another
old one: the forest of the earlier versions has those links, and is merged with the new ones, so that components are
whole. An increment only adds to the end of the list; where that does not hold (a takedown took rows out), the forest is
built anew. What crosses between Works are n - 1 edges of a bucket of n, not all of its pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ObjectRef,
    iter_batches,
    open_parquet,
    put_file,
    put_refs,
    read_refs,
    scratch,
    table_writer,
)
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.near.minhash import band_names
from gristmill.stages.near.union_find import EDGES_PER_ROW_GROUP, FOREST, BandTable, EdgeWriter, UnionFind
from gristmill.stages.run.runner import Runner

DOCUMENTS_PER_RANGE = 8 << 20
"""New documents linked by one Work: about 300 MB."""
FAN_IN = 16
"""Forests merged by one Work."""
EDGES_PER_CHOICE = 1 << 18
"""Edges of the components that one Work chooses from: about 400 MB, half of it signatures."""
MEMBERS_PER_SHARE = 1 << 18
"""Members of components that one Work gathers."""
COMPONENTS = pa.schema([("document", pa.uint32()), ("root", pa.uint32())], metadata={"gristmill.format": "1"})
"""Members of components, each with the smallest number of its component."""
FOREST_FORMAT = {"gristmill.format": "1"}
DOCUMENTS = "documents"
"""In the metadata of a merged forest: over how many documents it is."""


@dataclass(frozen=True)
class BandRange:
    """What one Work links. collections: a list object of tables with the hashes of all bands. old: how many of these
    tables, the first ones, are of earlier versions. band: a column. part, parts: which of how many equal ranges of its
    hashes; `parts` is a power of two."""

    collections: ObjectRef
    old: int
    band: str
    part: int
    parts: int


@dataclass(frozen=True)
class Link(Stage[BandRange]):
    """Links documents with an equal hash of one band: a spanning forest of the new ones and of what they touch."""

    name: ClassVar[str] = "link"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[BandRange]) -> Outcome:
        """Output `forest`: (child, root), numbers of documents, uint32."""
        band = work.payload
        refs = read_refs(store, band.collections)
        old_refs, new_refs = refs[: band.old], refs[band.old :]
        old, new = (sum(ref.records for ref in part) for part in (old_refs, new_refs))
        # Hashes are uniform, so a range has its share of them; the table grows where that is too few.
        table = BandTable(-(-new // band.parts), grown=bool(old))
        with scratch() as folder:
            path = folder / "forest.parquet"
            with table_writer(path, FOREST) as writer:
                edges = EdgeWriter(writer)
                for documents, hashes in _hashes(store, new_refs, old, band):
                    edges.add(*table.add_new(hashes, documents))
                # The new ones are in the table; the old ones, of which there are many more, stream past it.
                for documents, hashes in _hashes(store, old_refs, 0, band):
                    table.meet_old(hashes, documents)
                if old:
                    edges.add(*table.to_old())
                edges.flush()
            ref = put_file(store, "forest", path, edges.written)
        return Outcome(outputs=(ref,), received=Tally())


def _hashes(
    store: Store, refs: Sequence[ObjectRef], number: int, band: BandRange
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(documents uint32 [n], hashes uint64 [n]) of one range of a band, in order; documents are numbered from
    `number`."""
    bits = band.parts.bit_length() - 1
    for ref in refs:
        for batch in iter_batches(store, ref, [band.band]):
            hashes = batch.column(0).to_numpy(zero_copy_only=True)
            documents = np.arange(number, number + len(hashes), dtype=np.uint32)
            number += len(hashes)
            if bits:  # equal hashes have equal high bits, so no link crosses two ranges
                in_range = hashes >> np.uint64(64 - bits) == band.part
                documents, hashes = documents[in_range], hashes[in_range]
            yield documents, hashes


@dataclass(frozen=True)
class ForestList:
    """What one Work merges. documents: how many there are in all; old: how many of them are of earlier versions."""

    forests: tuple[ObjectRef, ...]
    documents: int
    old: int


@dataclass(frozen=True)
class Division:
    """How later stages divide the components. cuts: roots, from 0 to the number of documents, between which components
    have about EDGES_PER_CHOICE edges. shares: documents, between which there are MEMBERS_PER_SHARE members."""

    cuts: tuple[int, ...]
    shares: tuple[int, ...]


@dataclass(frozen=True)
class MergeForests(Stage[ForestList]):
    """Merges forests into one. Documents of a component point at its smallest number: the earliest of them."""

    name: ClassVar[str] = "merge_forests"
    VERSION: ClassVar[int] = 3

    def run(self, store: Store, work: Work[ForestList]) -> Outcome:
        """Outputs `forest`, and `components`: the members of those that have a new document. facts: Division."""
        documents = work.payload.documents
        child, root = self._merged(store, work.payload)
        with scratch() as folder:
            path = folder / "forest.parquet"
            with table_writer(path, FOREST.with_metadata({**FOREST_FORMAT, DOCUMENTS: str(documents)})) as writer:
                edges = EdgeWriter(writer)
                for start in range(0, len(child), EDGES_PER_ROW_GROUP):
                    end = start + EDGES_PER_ROW_GROUP
                    edges.add(child[start:end], root[start:end])
                edges.flush()
            forest = put_file(store, "forest", path, len(child))
        # Components of old documents alone were settled before, and nothing about them has changed.
        changed = _with_new(child, root, work.payload.old)
        child, root = child[changed], root[changed]
        components, shares = _put_components(store, child, root, documents)
        # Sorted, a component's edges are neighbours: every EDGES_PER_CHOICE-th root is a fair place to cut, and unique
        # because a component that is larger would be cut at several times.
        root.sort()
        cuts = np.unique(root[EDGES_PER_CHOICE::EDGES_PER_CHOICE]).tolist()
        division = Division(cuts=(0, *cuts, documents), shares=(0, *shares, documents))
        return Outcome(outputs=(forest, components), received=Tally(), facts=division)

    def _merged(self, store: Store, payload: ForestList) -> tuple[np.ndarray, np.ndarray]:
        """(child, root), uint32 [edges] each, by child, of all forests together."""
        sets = UnionFind(payload.documents)
        for forest in payload.forests:
            for batch in iter_batches(store, forest):
                child, root = (batch.column(name).to_numpy(zero_copy_only=True) for name in FOREST.names)
                sets.union(child, root)
        return sets.forest()  # the sets themselves, 4 bytes a document, end here


def _put_components(store: Store, child: np.ndarray, root: np.ndarray, documents: int) -> tuple[ObjectRef, list[int]]:
    """Every document of the components with these edges, with its root, by number; and where each share but the first
    begins. A share is a row group."""
    root_of = np.arange(documents, dtype=np.uint32)  # a root is its own; it is no child of any edge
    root_of[child] = root
    is_member = np.zeros(documents, bool)
    is_member[child] = is_member[root] = True
    members = np.flatnonzero(is_member).astype(np.uint32)
    with scratch() as folder:
        path = folder / "components.parquet"
        with table_writer(path, COMPONENTS) as writer:
            table = pa.table([members, root_of[members]], schema=COMPONENTS)
            writer.write_table(table, row_group_size=MEMBERS_PER_SHARE)
        ref = put_file(store, "components", path, len(members))
    return ref, members[MEMBERS_PER_SHARE::MEMBERS_PER_SHARE].tolist()


def _with_new(child: np.ndarray, root: np.ndarray, old: int) -> np.ndarray:
    """Which edges are of components with a new document: one numbered `old` or more; bool [edges]. Roots are the
    smallest numbers of their components, so a new one has new children."""
    if not old:
        return np.ones(len(child), bool)
    return np.isin(root, np.unique(root[child >= old]))


@dataclass(frozen=True)
class Linked:
    """What hangs together. collections: a list object. old: documents of earlier versions. cuts and shares: of roots
    for SelectSurvivors, of documents for Gather, ascending from 0 to the number of documents; only 0 if there are
    none."""

    collections: ObjectRef
    old: int
    forest: ObjectRef
    components: ObjectRef
    cuts: list[int]
    shares: list[int]


def link(
    runner: Runner, bands: int, old: Sequence[ObjectRef], new: Sequence[ObjectRef], before: ObjectRef | None = None
) -> Linked:
    """New documents among old ones.

    `before`: the forest of the old ones, as the run of the last version returned it. Without it, or if it is of other
    documents, all old ones are linked first. Raises what `Runner.map` does.
    """
    if old and not _covers(runner.store, before, old):
        before = link(runner, bands, [], old).forest
    collections = put_refs(runner.store, [*old, *new])
    n_old, n_new = (sum(ref.records for ref in refs) for refs in (old, new))
    works = _link_works(collections, bands, len(old), n_new)
    forests = [receipt.output("forest") for receipt in runner.map("link", works)]
    if before is not None and old:
        forests.insert(0, before)
    while True:  # a tree: each round merges FAN_IN forests by FAN_IN, until there is one
        groups = [forests[i : i + FAN_IN] for i in range(0, len(forests), FAN_IN)]
        merged = runner.map("merge", [_merge_work(group, n_old, n_new) for group in groups])
        forests = [receipt.output("forest") for receipt in merged]
        if len(merged) == 1:
            break
    (last,) = merged
    division = last.facts_as(Division)
    # Without documents the first bound and the last are one.
    cuts, shares = (list(dict.fromkeys(bounds)) for bounds in (division.cuts, division.shares))
    return Linked(collections, n_old, last.output("forest"), last.output("components"), cuts, shares)


def _link_works(collections: ObjectRef, bands: int, old: int, n_new: int) -> list[Work[BandRange]]:
    """A Work a band, or several where there are many new documents. old: how many collections are."""
    parts = 1
    while n_new > parts * DOCUMENTS_PER_RANGE:
        parts *= 2
    works = []
    for band in band_names(bands):
        for part in range(parts):
            inputs = (collections.sha256, str(old), band, f"{part}/{parts}")
            payload = BandRange(collections, old, band, part, parts)
            works.append(Work(Link(), inputs, payload, label=f"{band} {part + 1}/{parts}"))
    return works


def _covers(store: Store, forest: ObjectRef | None, old: Sequence[ObjectRef]) -> bool:
    """Whether this is the forest of just these documents, and still there. Numbers are places: of as many documents,
    because increments only add to the end."""
    if forest is None or store.info(forest.key) is None:
        return False
    with open_parquet(store, forest) as file:
        documents = (file.schema_arrow.metadata or {}).get(DOCUMENTS.encode(), b"")
    return documents == b"%d" % sum(ref.records for ref in old)


def _merge_work(forests: Sequence[ObjectRef], old: int, new: int) -> Work[ForestList]:
    inputs = (*(ref.sha256 for ref in forests), str(old + new), str(old))
    return Work(MergeForests(), inputs, ForestList(tuple(forests), old + new, old), label=f"{len(forests)} forests")
