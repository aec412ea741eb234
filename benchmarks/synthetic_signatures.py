"""Collections of signatures as `GatherSignatures` writes them, of millions of documents that never existed, and the
truth.

A share of the documents stands in clusters whose sizes follow a power law up to 1,000, spread over all collections.
A member has each of its cluster's band hashes with a probability of its own, .1 to .9, so that members are linked by
some bands, in chains, or by none, which splits clusters as it does on real text; all other hashes are random. Columns
that linking never reads are simple, ids random; a signature is its band hashes, each four times, so that two members
agree in as many values as in bands. Written collection by collection.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ROW_GROUP_ROWS, ObjectRef, put_file, read_table, scratch, table_writer
from gristmill.lake.store.opening import open_store
from gristmill.stages.near.minhash import DOCUMENTS_PER_COLLECTION, GatherSignatures, band_names

COLLECT = GatherSignatures(bands=14, rows=8)
IN_CLUSTERS = 0.3
LARGEST, EXPONENT = 1000, 2.5
PER_INPUT = 40_000


class Truth(NamedTuple):
    """The forest that linking has to find: (child, root) of every document that is not the first of its component."""

    child: np.ndarray
    root: np.ndarray


class Written(NamedTuple):
    """Collections, and where their truth is."""

    refs: list[ObjectRef]
    truth: Path  # of a .npz file, for `read_truth`


def read_truth(path: Path) -> Truth:
    """The forest that `write` left."""
    with np.load(path) as arrays:
        return Truth(arrays["child"], arrays["root"])


def write(uri: str, documents: int, truth: Path) -> Written:
    """Runs in a process of its own: it needs more memory than what is measured."""
    rng = np.random.default_rng(0)
    store = open_store(uri)
    cluster, tied = _clusters(rng, documents)
    shared = rng.integers(0, 1 << 64, (int(cluster.max()) + 1, COLLECT.bands), dtype=np.uint64)
    refs, agree = [], np.empty((documents, COLLECT.bands), bool)
    for first in range(0, documents, DOCUMENTS_PER_COLLECTION):
        here = slice(first, min(first + DOCUMENTS_PER_COLLECTION, documents))
        agree[here] = rng.random((here.stop - first, COLLECT.bands), np.float32) < tied[here, None]
        hashes = rng.integers(0, 1 << 64, agree[here].shape, dtype=np.uint64)
        np.copyto(hashes, shared[cluster[here]], where=agree[here])
        refs.append(_put(store, rng, first, hashes))
    np.savez(truth, **_forest(cluster, agree)._asdict())
    return Written(refs, truth)


def _clusters(rng: np.random.Generator, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each document (of one alone, any), and with which probability it has each of its hashes."""
    wanted = int(documents * IN_CLUSTERS)
    sizes = np.arange(2, LARGEST + 1)
    weights = sizes**-EXPONENT
    drawn = rng.choice(sizes, wanted // 2, p=weights / weights.sum())
    drawn = drawn[np.cumsum(drawn) <= wanted]
    members = rng.permutation(documents)[: drawn.sum()]
    cluster, tied = np.zeros(documents, np.int32), np.zeros(documents, np.float32)
    cluster[members] = np.repeat(np.arange(len(drawn), dtype=np.int32), drawn)
    tied[members] = rng.uniform(0.1, 0.9, len(members))
    return cluster, tied


def _put(store: Store, rng: np.random.Generator, first: int, hashes: np.ndarray) -> ObjectRef:
    n = len(hashes)
    numbers = np.arange(first, first + n)
    words = rng.lognormal(5.7, 0.8, n).astype(np.int64)
    digests = [hashlib.sha256(b"input %d" % i).hexdigest() for i in range(numbers[-1] // PER_INPUT + 1)]
    columns = {
        "id": _random_ids(rng, n),
        "input": pa.array(digests).take(pa.array(numbers // PER_INPUT)),
        "ordinal": pa.array(numbers % PER_INPUT),
        "start": pa.array(numbers % PER_INPUT * 20_000),
        "length": pa.array(words * 40),
        "minhash.n_words": pa.array(words),
        "signature": _signatures(hashes),
        "rank_0": pa.array(words.astype(np.float64)),
    }
    columns |= {name: pa.array(np.ascontiguousarray(hashes[:, i])) for i, name in enumerate(band_names(COLLECT.bands))}
    with scratch() as folder:
        path = folder / "signatures.parquet"
        with table_writer(path, COLLECT.schema()) as writer:
            writer.write_table(pa.table(columns, schema=COLLECT.schema()), row_group_size=ROW_GROUP_ROWS)
        return put_file(store, "signatures", path, n)


def _signatures(hashes: np.ndarray) -> pa.Array:
    data = np.ascontiguousarray(np.repeat(hashes, COLLECT.rows // 2, axis=1))
    kind = COLLECT.schema().field("signature").type
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(hashes), [None, pa.py_buffer(data)])


def _random_ids(rng: np.random.Generator, rows: int) -> pa.Array:
    """Hex strings of 32 characters, without a Python string for each."""
    data = pa.py_buffer(rng.bytes(16 * rows).hex().encode())
    offsets = pa.py_buffer(np.arange(0, 32 * rows + 1, 32, dtype=np.int32))
    return pa.StringArray.from_buffers(rows, offsets, data)


def _forest(cluster: np.ndarray, agree: np.ndarray) -> Truth:
    """What the agreements make: an edge from each member with a band's hash to its cluster's first with that band."""
    left, right = [], []
    for band in agree.T:
        members = np.flatnonzero(band)
        names, first, place = np.unique(cluster[members], return_index=True, return_inverse=True)
        left.append(members.astype(np.int32))
        right.append(members[first][place].astype(np.int32))
        del names
    return components(np.concatenate(left), np.concatenate(right), len(cluster))


def components(left: np.ndarray, right: np.ndarray, documents: int) -> Truth:
    """Of the graph with these edges, by scipy."""
    from scipy.sparse import coo_array  # here: a process whose memory is measured imports this module
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(left), np.int8)
    graph = coo_array((ones, (left, right)), shape=(documents, documents))
    labels = connected_components(graph, directed=False)[1]
    first = np.unique(labels, return_index=True)[1].astype(np.uint32)
    numbers, roots = np.arange(documents, dtype=np.uint32), first[labels]
    others = roots != numbers
    return Truth(numbers[others], roots[others])


def by_all_buckets(store: Store, refs: list[ObjectRef]) -> Truth:
    """The same from the hashes on disk: every document of a bucket against every other. For a few documents."""
    left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for band in band_names(COLLECT.bands):
        hashes = np.concatenate([read_table(store, ref, [band])[band].to_numpy() for ref in refs])
        order = np.argsort(hashes, kind="stable")
        starts = np.flatnonzero(np.diff(hashes[order], prepend=hashes[order[:1]] ^ np.uint64(1)))
        ends = np.append(starts[1:], len(order))
        several = ends - starts > 1
        for first, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
            bucket = order[first:end]
            left.append(np.repeat(bucket, len(bucket)))
            right.append(np.tile(bucket, len(bucket)))
    return components(np.concatenate(left), np.concatenate(right), sum(ref.records for ref in refs))
