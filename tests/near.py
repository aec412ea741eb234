"""Signatures of documents that never existed, in collections, and increments over them as the web pipeline has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.filters.signatures.minhash import band_hashes
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table, read_table
from gristmill.stages.clusters.clusters import cluster_works
from gristmill.stages.clusters.divergence import current
from gristmill.stages.clusters.select_survivors import Comparisons, SelectSurvivors, survivor_works
from gristmill.stages.near.gather import gather
from gristmill.stages.near.link import link
from gristmill.stages.near.minhash import GatherSignatures, band_names
from gristmill.stages.run.runner import Runner

BANDS, ROWS = 14, 8
WIDTH = BANDS * ROWS
COLLECT = GatherSignatures(BANDS, ROWS)


def edited(random: np.random.Generator, values: np.ndarray, similarity: float, copies: int) -> np.ndarray:
    """Copies of a signature, each of whose values stays with this probability: near duplicates of that similarity."""
    fresh = random.integers(0, 1 << 32, (copies, len(values)), dtype=np.uint32)
    return np.where(random.random(fresh.shape) < similarity, values, fresh).astype(np.uint32)


def texts(random: np.random.Generator, n: int) -> np.ndarray:
    """Signatures of texts that have nothing in common, uint32 [n, 112]."""
    return random.integers(0, 1 << 32, (n, WIDTH), dtype=np.uint32)


def template(random: np.random.Generator, pages: int, similarity: float, shared: float = 143) -> np.ndarray:
    """Signatures of pages with `shared` shingles of a template and as many of their own as make two of them so alike:
    of each hash the template has its least value, a page its own, and the lesser of both counts."""
    own = shared * (1 - similarity) / (2 * similarity)
    least = random.exponential(1 / shared, WIDTH)
    mine = random.exponential(1 / own, (pages, WIDTH)) < least
    return np.where(mine, texts(random, pages), texts(random, 1)).astype(np.uint32)


def collection(
    store: Store, values: np.ndarray, ids: Sequence[str], ranks: Sequence[float], increment: int = 0
) -> ObjectRef:
    """What `GatherSignatures` writes of documents with these signatures."""
    n = len(values)
    data = pa.py_buffer(np.ascontiguousarray(values, "<u4"))
    hashes = band_hashes(np.ascontiguousarray(values, np.uint32), BANDS, ROWS)
    columns: dict[str, Any] = {
        "id": list(ids),
        "input": [f"{increment:064x}"] * n,
        "ordinal": np.arange(n),
        "start": np.arange(n),
        "length": np.ones(n, np.int64),
        "minhash.n_words": np.asarray(ranks, np.int64),
        "signature": pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * WIDTH), n, [None, data]),
        "rank_0": np.asarray(ranks, np.float64),
    }
    columns |= {name: np.ascontiguousarray(hashes[:, i]) for i, name in enumerate(band_names(BANDS))}
    return put_table(store, "signatures", pa.table(columns, schema=COLLECT.schema()))


@dataclass
class Nights:
    """A dataset of signatures that grows, with what a version of it holds. `values`: id -> similarity in the ledger."""

    store: Store
    stage: SelectSurvivors = SelectSurvivors()
    kept: set[str] = field(default_factory=set)
    values: dict[str, str | None] = field(default_factory=dict)
    survivors: dict[str, str] = field(default_factory=dict)
    collections: list[ObjectRef] = field(default_factory=list)
    forest: ObjectRef | None = None
    clusters: list[ObjectRef] = field(default_factory=list)
    divergence: list[ObjectRef] = field(default_factory=list)
    compared: int = 0

    def increment(self, values: np.ndarray, ids: Sequence[str], ranks: Sequence[float], pieces: int = 1) -> None:
        """These documents come in, in collections of equal size."""
        number = len(self.collections)
        cuts = np.array_split(np.arange(len(values)), pieces)
        new = [
            collection(self.store, values[at], [ids[i] for i in at], [ranks[i] for i in at], number + n)
            for n, at in enumerate(cuts)
            if len(at)
        ]
        runner = Runner(self.store, workers=0)
        before = self.collections
        linked = link(runner, BANDS, before, new, self.forest)
        self.forest = linked.forest
        gathered = gather(runner, linked, signatures=self.stage.min_similarity is not None)
        chosen = runner.map("choose", survivor_works(self.stage, linked, gathered, self.clusters, self.divergence))
        sorted_members = runner.map("clusters", cluster_works([r.output("members") for r in chosen]))
        self.clusters = [*self.clusters, *(r.output("clusters") for r in sorted_members)]
        lost = [row for r in chosen for row in read_table(self.store, r.output("fates")).to_pylist()]
        self.values |= {row["id"]: row["value"] for row in lost}
        self.survivors |= {row["id"]: row["survivor"] for row in lost}
        self.kept |= set(ids) - {row["id"] for row in lost}
        self.compared = sum(r.facts_as(Comparisons).compared for r in chosen)
        self.collections = [*before, *new]
        if before:
            divergence, rejudged = (
                [ref for r in chosen for ref in r.outputs if ref.kind == kind] for kind in ("divergence", "rejudged")
            )
            table = current(self.store, self.divergence, rejudged, divergence)
            self.divergence = [put_table(self.store, "divergence", table)]

    @property
    def differences(self) -> list[dict[str, str]]:
        """The rows of its divergence."""
        return [row for ref in self.divergence for row in read_table(self.store, ref).to_pylist()]
