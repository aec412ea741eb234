"""Near duplicates: MinHash signatures, linked by band, across everything a dataset ever held.

sign (a chunk) -> collect (some chunks: what neither exact duplicates nor a takedown dropped, with band hashes) ->
link (a band, a range of its hashes) -> merge (spanning forests, as a tree) -> choose and clusters (stages/clusters.py).
Only relations are computed here, so no stage of these assigns a fate. Documents are numbered by their place in the
list of collections, old ones first; numbers live for one run, ids go into the version. An old document is never
linked to another old one: that was settled when the younger of the two came in.
Source: Broder 1997 (MinHash), Leskovec et al. ch. 3 (banding); decisions as datatrove's minhash (any equal band links).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.minhash import MinHash, band_hashes
from lake import ledger
from lake.balance import Tally
from lake.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    iter_batches,
    put_file,
    put_refs,
    put_table,
    read_refs,
    read_table,
    scratch,
    table_writer,
)
from lake.receipt import Receipt, StageId
from lake.store import Store
from stages.forest import EDGES_PER_ROW_GROUP, FOREST, BandTable, DisjointSets, EdgeWriter
from stages.losers import without_losers
from stages.runner import Runner
from stages.screen import passed_rows
from stages.shards import shard_groups
from stages.work import Outcome, Work, stage_id

KEYS = ("id", "input", "ordinal", "start", "length")
N_WORDS = "minhash.n_words"
DOCUMENTS_PER_COLLECTION = 1 << 18
DOCUMENTS_PER_RANGE = 8 << 20
"""New documents linked by one Work: about 300 MB."""
FAN_IN = 16
EDGES_PER_CHOICE = 1 << 19
"""Edges of the components that one Work chooses from: about 500 MB."""


@dataclass(frozen=True)
class Sign:
    """Signs what passed the screen. Its receipts serve every night and every threshold of other stages."""

    name: ClassVar[str] = "sign"
    VERSION: ClassVar[int] = 1

    minhash: MinHash

    def identity(self) -> tuple[StageId, ...]:
        return (StageId(name=self.name, version=self.VERSION, config={}), stage_id(self.minhash))

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: text, screened. Output `signed`: keys, words, signature (null where a text has no n-gram)."""
        text, screened = (ObjectRef(**work.payload[name]) for name in ("text", "screened"))
        rows = passed_rows(store, text, screened, [*KEYS, "text"])
        parts = [self._signed(pa.Table.from_batches([batch])) for batch in rows.to_batches(ROW_GROUP_ROWS)]
        signed = pa.concat_tables(parts) if parts else self._signed(rows)
        tally = ledger.tally(signed)
        return Outcome(outputs=(put_table(store, "signed", signed),), passed=tally, came_in=tally)

    def _signed(self, rows: pa.Table) -> pa.Table:
        found = self.minhash.sign(rows["text"].combine_chunks())
        size = 4 * self.minhash.bands * self.minhash.rows
        data = pa.py_buffer(np.ascontiguousarray(found.values, dtype="<u4"))
        signature = pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), rows.num_rows, [None, data])
        none = pa.scalar(None, signature.type)
        table = rows.select(KEYS).append_column(N_WORDS, pa.array(found.n_words, pa.int64()))
        return table.append_column("signature", pc.if_else(pa.array(found.n_shingles > 0), signature, none))


@dataclass(frozen=True)
class Collect:
    """Brings some chunks' signatures together, without what was dropped since the screen, and hashes their bands.

    `survivor` names the measures that choose the survivor of a cluster, the first that differs decides; the greater
    is better, or the smaller for a name with `-` before it. They travel along as rank_0, rank_1, ...
    """

    name: ClassVar[str] = "collect"
    VERSION: ClassVar[int] = 1

    bands: int
    rows: int
    survivor: tuple[str, ...] = (N_WORDS,)

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: chunks [(signed, screened)], losers (a list object). Output `signatures`: keys, words, signature,
        ranks, and band_00, band_01, ...; a text without an n-gram is in none, and compared with nothing."""
        losers = read_refs(store, ObjectRef(**work.payload["losers"]))
        tally, records = Tally(), 0
        with scratch() as folder:
            path = folder / "signatures.parquet"
            with table_writer(path, self.schema()) as writer:
                for signed, screened in work.payload["chunks"]:
                    rows = self._rows(store, ObjectRef(**signed), ObjectRef(**screened), losers)
                    tally += ledger.tally(rows)
                    hashed = self._hashed(rows.filter(pc.is_valid(rows["signature"])))
                    records += hashed.num_rows
                    if hashed.num_rows:
                        writer.write_table(hashed, row_group_size=ROW_GROUP_ROWS)
            ref = put_file(store, "signatures", path, records)
        return Outcome(outputs=(ref,), passed=tally, came_in=tally)

    def schema(self) -> pa.Schema:
        whole = ("ordinal", "start", "length")
        fields = [(name, pa.int64() if name in whole else pa.string()) for name in KEYS]
        fields += [(N_WORDS, pa.int64()), ("signature", pa.binary(4 * self.bands * self.rows))]
        fields += [(f"rank_{i}", pa.float64()) for i in range(len(self.survivor))]
        fields += [(band, pa.uint64()) for band in band_names(self.bands)]
        return pa.schema(fields, metadata={"gristmill.format": "1"})

    def _rows(self, store: Store, signed: ObjectRef, screened: ObjectRef, losers: list[ObjectRef]) -> pa.Table:
        rows = read_table(store, signed)
        measured = sorted({name.removeprefix("-") for name in self.survivor} - {N_WORDS})
        if measured:
            hit = pc.is_null(pc.field("reason"))
            measures = read_table(store, screened, ["ordinal", *measured], hit).sort_by("ordinal")
            for name in measured:
                rows = rows.append_column(name, measures[name])
        return without_losers(store, rows, losers)

    def _hashed(self, rows: pa.Table) -> pa.Table:
        table = rows.select([*KEYS, N_WORDS, "signature"])
        for i, name in enumerate(self.survivor):
            value = pc.cast(rows[name.removeprefix("-")], pa.float64())
            value = pc.negate(value) if name.startswith("-") else value
            table = table.append_column(f"rank_{i}", pc.fill_null(value, float("-inf")))
        hashes = band_hashes(signature_values(rows["signature"], self.bands * self.rows), self.bands, self.rows)
        for i, name in enumerate(band_names(self.bands)):
            table = table.append_column(name, pa.array(np.ascontiguousarray(hashes[:, i])))
        return table.cast(self.schema())


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
    VERSION: ClassVar[int] = 1

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: forests (pointers), documents. facts: `cuts`, roots that divide the components into equal parts."""
        sets = DisjointSets(work.payload["documents"])
        for one in work.payload["forests"]:
            for batch in iter_batches(store, ObjectRef(**one)):
                sets.join(*(batch.column(i).to_numpy(zero_copy_only=True) for i in range(2)))
        child, root = sets.forest()
        del sets
        with scratch() as folder:
            path = folder / "forest.parquet"
            with table_writer(path, FOREST) as writer:
                edges = EdgeWriter(writer)
                for at in range(0, len(child), EDGES_PER_ROW_GROUP):
                    edges.add(child[at : at + EDGES_PER_ROW_GROUP], root[at : at + EDGES_PER_ROW_GROUP])
                edges.flush()
            ref = put_file(store, "forest", path, len(child))
        root.sort()
        cuts = np.unique(root[EDGES_PER_CHOICE::EDGES_PER_CHOICE]).tolist()
        return Outcome(outputs=(ref,), came_in=Tally(), facts={"cuts": [0, *cuts, work.payload["documents"]]})


def band_names(bands: int) -> list[str]:
    return [f"band_{i:02d}" for i in range(bands)]


def signature_values(signatures: pa.Array | pa.ChunkedArray, size: int) -> np.ndarray:
    """uint32 [rows, size] of a column of signatures, none of them null."""
    column = signatures.combine_chunks() if isinstance(signatures, pa.ChunkedArray) else signatures
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.empty((0, size), np.uint32)
    return np.frombuffer(data, "<u4").reshape(-1, size)[column.offset : column.offset + len(column)]


def sign_work(stage: Sign, text: ObjectRef, screened: ObjectRef, passed: Tally) -> Work:
    payload = {"text": text.model_dump(), "screened": screened.model_dump()}
    return Work(stage, (text.sha256, screened.sha256), payload, passed, text.sha256[:12])


def collect_works(
    stage: Collect, signed: Sequence[Receipt], screened: Sequence[Receipt], losers: ObjectRef
) -> list[Work]:
    """One Work for consecutive chunks of about DOCUMENTS_PER_COLLECTION; the cut depends on counts alone."""
    pairs = [(a.output("signed"), b.output("screened")) for a, b in zip(signed, screened, strict=True)]
    works = []
    for n, (first, end) in enumerate(shard_groups([a.records for a, _ in pairs], DOCUMENTS_PER_COLLECTION)):
        inputs = (*(ref.sha256 for pair in pairs[first:end] for ref in pair), losers.sha256)
        chunks = [(a.model_dump(), b.model_dump()) for a, b in pairs[first:end]]
        works.append(Work(stage, inputs, {"chunks": chunks, "losers": losers.model_dump()}, label=f"collection {n}"))
    return works


def link(
    runner: Runner, bands: int, old: Sequence[ObjectRef], new: Sequence[ObjectRef]
) -> tuple[ObjectRef, ObjectRef, list[int]]:
    """(list object of the collections, forest over them, cuts for `choose`) of new documents among old ones."""
    collections = put_refs(runner.store, [*old, *new])
    documents, parts = sum(ref.records for ref in (*old, *new)), 1
    while sum(ref.records for ref in new) > parts * DOCUMENTS_PER_RANGE:
        parts *= 2
    works = []
    for band in band_names(bands):
        for part in range(parts):
            payload = {"collections": collections.model_dump(), "old": len(old)}
            payload |= {"band": band, "part": part, "parts": parts}
            inputs = (collections.sha256, str(len(old)), band, f"{part}/{parts}")
            works.append(Work(Link(), inputs, payload, label=f"{band} {part + 1}/{parts}"))
    forests = [receipt.output("forest") for receipt in runner.map("link", works)]
    while True:
        groups = [forests[i : i + FAN_IN] for i in range(0, len(forests), FAN_IN)]
        merged = runner.map("merge", [_merge_work(group, documents) for group in groups])
        forests = [receipt.output("forest") for receipt in merged]
        if len(merged) == 1:
            return collections, forests[0], list(dict.fromkeys(merged[0].facts["cuts"]))


def _merge_work(forests: Sequence[ObjectRef], documents: int) -> Work:
    payload = {"forests": [ref.model_dump() for ref in forests], "documents": documents}
    inputs = (*(ref.sha256 for ref in forests), str(documents))
    return Work(MergeForests(), inputs, payload, label=f"{len(forests)} forests")
