"""Links: which documents hang together by shared band hashes, as a spanning forest over all that a dataset ever held.

link (a band, a range of its hashes) -> merge (forests, as a tree) -> gather and choose. Documents are numbered by
their place in the list of collections, old ones first. An old document is never linked to another old one: the forest
of the last night has those links, and is merged with tonight's, so that components are whole. Nights only add to the
end of the list; where that does not hold (a takedown took rows out), the forest is made anew. What crosses between
Works are n - 1 links of a bucket of n, not its edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lake.balance import Tally
from lake.objects import ObjectRef, iter_batches, open_parquet, put_file, put_refs, read_refs, scratch, table_writer
from lake.receipt import StageId
from lake.store import Store
from stages.forest import EDGES_PER_ROW_GROUP, FOREST, BandTable, EdgeWriter, UnionFind
from stages.minhash import band_names
from stages.runner import Runner
from stages.work import Outcome, Work, stage_id

DOCUMENTS_PER_RANGE = 8 << 20
"""New documents linked by one Work: about 300 MB."""
FAN_IN = 16
EDGES_PER_CHOICE = 1 << 18
"""Edges of the components that one Work chooses from: about 400 MB, half of it signatures."""
MEMBERS_PER_SHARE = 1 << 18
"""Members of components that one Work gathers."""
COMPONENTS = pa.schema([("document", pa.uint32()), ("root", pa.uint32())], metadata={"gristmill.format": "1"})
FOREST_FORMAT = {"gristmill.format": "1"}
DOCUMENTS = "documents"
"""In the metadata of a merged forest: over how many documents it is."""


@dataclass(frozen=True)
class Link:
    """Links documents with an equal hash of one band: a spanning forest of the new ones and of what they touch."""

    name: ClassVar[str] = "link"
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: collections (a list object), old (how many of them are of earlier versions), band (column), part and
        parts (which of how many ranges of its hashes; a power of two)."""
        p = work.payload
        refs = read_refs(store, ObjectRef(**p["collections"]))
        first = np.cumsum([0, *(ref.records for ref in refs)])
        old, new = int(first[p["old"]]), int(first[-1] - first[p["old"]])
        table = BandTable(-(-new // p["parts"]), grown=bool(old))
        with scratch() as folder:
            path = folder / "forest.parquet"
            with table_writer(path, FOREST) as writer:
                edges = EdgeWriter(writer)
                for number, hashes in _hashes(store, refs[p["old"] :], old, p):
                    edges.add(*table.add_new(hashes, number))
                for number, hashes in _hashes(store, refs[: p["old"]], 0, p):
                    table.meet_old(hashes, number)
                if old:
                    edges.add(*table.to_old())
                edges.flush()
            ref = put_file(store, "forest", path, edges.written)
        return Outcome(outputs=(ref,), came_in=Tally())


def _hashes(
    store: Store, refs: Sequence[ObjectRef], number: int, payload: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(documents, hashes) of one range of a band, in order; documents are numbered from `number`."""
    bits = payload["parts"].bit_length() - 1
    for ref in refs:
        for batch in iter_batches(store, ref, [payload["band"]]):
            hashes = batch.column(0).to_numpy(zero_copy_only=True)
            documents = np.arange(number, number + len(hashes), dtype=np.uint32)
            number += len(hashes)
            if bits:
                here = hashes >> np.uint64(64 - bits) == payload["part"]
                documents, hashes = documents[here], hashes[here]
            yield documents, hashes


@dataclass(frozen=True)
class MergeForests:
    """Joins forests into one. Documents of a component point at its smallest number: the earliest of them."""

    name: ClassVar[str] = "merge_forests"
    VERSION: ClassVar[int] = 3

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: forests (pointers), documents, old (how many of them were there before). Outputs `forest`, and
        `components`: the members of those that have a new document. facts: `cuts`, roots that divide these components
        into equal parts, and `shares`, documents that divide their members so."""
        sets = UnionFind(work.payload["documents"])
        for one in work.payload["forests"]:
            for batch in iter_batches(store, ObjectRef(**one)):
                sets.union(*(batch.column(i).to_numpy(zero_copy_only=True) for i in range(2)))
        child, root = sets.forest()
        del sets
        documents = work.payload["documents"]
        with scratch() as folder:
            path = folder / "forest.parquet"
            with table_writer(path, FOREST.with_metadata({**FOREST_FORMAT, DOCUMENTS: str(documents)})) as writer:
                edges = EdgeWriter(writer)
                for at in range(0, len(child), EDGES_PER_ROW_GROUP):
                    edges.add(child[at : at + EDGES_PER_ROW_GROUP], root[at : at + EDGES_PER_ROW_GROUP])
                edges.flush()
            ref = put_file(store, "forest", path, len(child))
        near = _with_new(child, root, work.payload["old"])
        child, root = child[near], root[near]
        components, shares = _put_components(store, child, root, documents)
        root.sort()
        cuts = np.unique(root[EDGES_PER_CHOICE::EDGES_PER_CHOICE]).tolist()
        facts = {"cuts": [0, *cuts, documents], "shares": [0, *shares, documents]}
        return Outcome(outputs=(ref, components), came_in=Tally(), facts=facts)


def _put_components(store: Store, child: np.ndarray, root: np.ndarray, documents: int) -> tuple[ObjectRef, list[int]]:
    """Every document of the components with these edges, with its root, by number; and where each share but the first
    begins. A share is a row group."""
    root_of = np.arange(documents, dtype=np.uint32)
    root_of[child] = root
    member = np.zeros(documents, bool)
    member[child] = member[root] = True
    document = np.flatnonzero(member).astype(np.uint32)
    with scratch() as folder:
        path = folder / "components.parquet"
        with table_writer(path, COMPONENTS) as writer:
            table = pa.table([document, root_of[document]], schema=COMPONENTS)
            writer.write_table(table, row_group_size=MEMBERS_PER_SHARE)
        ref = put_file(store, "components", path, len(document))
    return ref, document[MEMBERS_PER_SHARE::MEMBERS_PER_SHARE].tolist()


def _with_new(child: np.ndarray, root: np.ndarray, old: int) -> np.ndarray:
    """Which edges are of components with a new document: one numbered `old` or more; bool [edges]. Roots are the
    smallest numbers of their components, so a new one has new children."""
    if not old:
        return np.ones(len(child), bool)
    return np.isin(root, np.unique(root[child >= old]))


@dataclass(frozen=True)
class Linked:
    """What hangs together. collections: a list object. old: documents of earlier versions. cuts and shares: of roots
    for `choose`, of documents for `gather`, from 0 to the number of documents; only 0 if there are none."""

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

    `before`: the forest of the old ones, as the last night returned it. Without it, or if it is of other documents,
    all old ones are linked first.
    """
    if old and not _covers(runner.store, before, old):
        before = link(runner, bands, [], old).forest
    collections = put_refs(runner.store, [*old, *new])
    before_tonight, tonight = (sum(ref.records for ref in refs) for refs in (old, new))
    parts = 1
    while tonight > parts * DOCUMENTS_PER_RANGE:
        parts *= 2
    works = []
    for band in band_names(bands):
        for part in range(parts):
            payload = {"collections": collections.model_dump(), "old": len(old)}
            payload |= {"band": band, "part": part, "parts": parts}
            inputs = (collections.sha256, str(len(old)), band, f"{part}/{parts}")
            works.append(Work(Link(), inputs, payload, label=f"{band} {part + 1}/{parts}"))
    forests = [receipt.output("forest") for receipt in runner.map("link", works)]
    forests = forests if before is None or not old else [before, *forests]
    while True:
        groups = [forests[i : i + FAN_IN] for i in range(0, len(forests), FAN_IN)]
        merged = runner.map("merge", [_merge_work(group, before_tonight, tonight) for group in groups])
        forests = [receipt.output("forest") for receipt in merged]
        if len(merged) == 1:
            cuts, shares = (list(dict.fromkeys(merged[0].facts[name])) for name in ("cuts", "shares"))
            components = merged[0].output("components")
            return Linked(collections, before_tonight, forests[0], components, cuts, shares)


def _covers(store: Store, forest: ObjectRef | None, old: Sequence[ObjectRef]) -> bool:
    """Whether this is the forest of just these documents, and still there. Numbers are places: of as many documents,
    because nights only add to the end."""
    if forest is None or store.info(forest.key) is None:
        return False
    with open_parquet(store, forest) as file:
        documents = (file.schema_arrow.metadata or {}).get(DOCUMENTS.encode(), b"")
    return documents == b"%d" % sum(ref.records for ref in old)


def _merge_work(forests: Sequence[ObjectRef], old: int, new: int) -> Work:
    payload = {"forests": [ref.model_dump() for ref in forests], "documents": old + new, "old": old}
    inputs = (*(ref.sha256 for ref in forests), str(old + new), str(old))
    return Work(MergeForests(), inputs, payload, label=f"{len(forests)} forests")
