"""Similar: which documents of a version are near duplicates of a text, dropped ones included.

Answers come from `datasketch.MinHashLSH` over the stored signatures, which are datasketch's own bit for bit. It gets
those documents alone that share a band with the text (nothing else could be an answer), so memory does not grow with
the version; the Jaccard similarity is estimated from the whole signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasketch import MinHash as Sketch
from datasketch import MinHashLSH

from gristmill.filters.signatures.minhash import MinHash, band_hashes
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import iter_batches
from gristmill.lake.versions.manifest import Manifest
from gristmill.stages.near.minhash import band_names, signature_values


@dataclass(frozen=True)
class Match:
    """A document that shares a band with the text. `similarity`: estimated Jaccard of word n-grams, 0 to 1."""

    id: str
    similarity: float
    n_words: int


def similar(store: Store, manifest: Manifest, text: str) -> list[Match]:
    """Near duplicates of the text in a version, the most similar first.

    Raises LookupError where the version has no signatures, ValueError where the text is too short to be compared.
    """
    settings = manifest.recipe.get("minhash")
    collections = [ref for ref in manifest.attachments if ref.kind == "signatures"]
    if not settings or not collections:
        raise LookupError(f"{manifest} has no signatures: its recipe compared no near duplicates (recipe.minhash)")
    minhash = MinHash(**settings)
    signed = minhash.sign(pa.array([text], pa.string()))
    if not signed.n_shingles[0]:
        raise ValueError(f"the text has {signed.n_words[0]} words; at least {minhash.ngram} make something to compare")
    values, width = signed.values, minhash.bands * minhash.rows
    hashes = band_hashes(values, minhash.bands, minhash.rows)[0]
    bands = dict(zip(band_names(minhash.bands), hashes, strict=True))

    # Only what shares a band is worth inserting, so the index stays small; that datasketch's own index then agrees
    # shows that the stored signatures are what it takes them for.
    index = MinHashLSH(num_perm=width, params=(minhash.bands, minhash.rows))
    candidates: dict[str, Match] = {}
    for ref in collections:
        for batch in iter_batches(store, ref, ["id", "minhash.n_words", "signature", *bands]):
            rows = _sharing_a_band(batch, bands)
            signatures = signature_values(rows.column("signature"), width)
            for row, signature in zip(rows.to_pylist(), signatures, strict=True):
                index.insert(row["id"], _sketch(minhash, signature), check_duplication=False)
                similarity = float(np.mean(signature == values[0]))
                candidates[row["id"]] = Match(row["id"], similarity, row["minhash.n_words"])
    matches = [candidates[id] for id in index.query(_sketch(minhash, values[0]))]
    return sorted(matches, key=lambda match: (-match.similarity, match.id))


def _sharing_a_band(batch: pa.RecordBatch, bands: Mapping[str, np.uint64]) -> pa.RecordBatch:
    """The rows that have one of these hashes (column -> hash)."""
    shares = np.zeros(batch.num_rows, dtype=bool)
    for name, hash in bands.items():
        shares |= batch.column(name).to_numpy(zero_copy_only=True) == hash
    return batch.filter(pa.array(shares))


def _sketch(minhash: MinHash, values: np.ndarray) -> Sketch:
    """A signature, uint32 [bands * rows], as datasketch has it."""
    return Sketch(len(values), seed=minhash.seed, hashvalues=values, scheme="affine32")
