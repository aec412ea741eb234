"""Signatures of documents that never existed, in collections, and increments of them as the web pipeline runs them."""

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
GATHER_SIGNATURES = GatherSignatures(BANDS, ROWS)


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


def ids_of(random: np.random.Generator, n: int) -> list[str]:
    """Record ids of n documents, in no order."""
    return [f"{value:032x}" for value in random.permutation(n)]


def ranks_of(random: np.random.Generator, n: int) -> list[float]:
    """Measures by which survivors are chosen, many of them equal."""
    return random.integers(100, 130, n).astype(float).tolist()


def world(seed: int) -> tuple[np.ndarray, list[str], list[float]]:
    """Chains, stars, bridges, a template, copies, and texts alone, shuffled; with their ids and measures."""
    random = np.random.default_rng(seed)
    parts = [texts(random, 10), template(random, 20, 0.62)]
    for _ in range(4):
        chain = [texts(random, 1)[0]]
        for _ in range(random.integers(3, 12)):
            chain.append(edited(random, chain[-1], random.choice([0.75, 0.85, 0.95]), 1)[0])
        parts.append(np.array(chain))
    heads = texts(random, 6)
    parts += [edited(random, head, similarity, 6) for head in heads for similarity in (0.7, 0.8, 1.0)]
    bridge = np.where(random.random(WIDTH) < 0.5, heads[0], heads[1])
    values = np.concatenate([*parts, [bridge]])
    order = random.permutation(len(values))
    return values[order], ids_of(random, len(values)), ranks_of(random, len(values))


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
    return put_table(store, "signatures", pa.table(columns, schema=GATHER_SIGNATURES.schema()))


@dataclass
class GrownDataset:
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
        dropped = [row for r in chosen for row in read_table(self.store, r.output("fates")).to_pylist()]
        self.values |= {row["id"]: row["value"] for row in dropped}
        self.survivors |= {row["id"]: row["survivor"] for row in dropped}
        self.kept |= set(ids) - {row["id"] for row in dropped}
        self.compared = sum(r.facts_as(Comparisons).compared for r in chosen)
        self.collections = [*before, *new]
        if before:
            outputs = [ref for r in chosen for ref in r.outputs]
            divergence = [ref for ref in outputs if ref.kind == "divergence"]
            rejudged = [ref for ref in outputs if ref.kind == "rejudged"]
            table = current(self.store, self.divergence, rejudged, divergence)
            self.divergence = [put_table(self.store, "divergence", table)]

    @property
    def differences(self) -> list[dict[str, str]]:
        """The rows of its divergence."""
        return [row for ref in self.divergence for row in read_table(self.store, ref).to_pylist()]
