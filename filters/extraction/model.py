"""The trained model: two forests and a threshold, in one file that is part of this package.

A file of numpy (.npz): `a0` to `a5` the first forest, `b0` to `b5` the second (forest_kernels.grow says what each is),
`share` the threshold, `words` the sha256 of the vocabulary that it was trained with. `benchmarks/train_extraction.py`
writes it, data/extraction.md says from what.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.filters.extraction import vocabulary

SHIPPED = Path(__file__).parents[1] / "data" / "extraction.npz"
TYPES = (np.int16, np.float32, np.int32, np.int32, np.float32, np.int32)
"""Of a forest's arrays: feature, threshold, left, right, value, roots."""
Forest = tuple[np.ndarray, ...]


class Model(NamedTuple):
    """`first` judges a block by its features, `second` by these and what `first` says of the blocks around. A block is
    kept whose chance is at least `share` of what the page's surer half has."""

    first: Forest
    second: Forest
    share: float


@lru_cache(maxsize=1)
def digest() -> str:
    """sha256 of the model's file, hex: part of the identity of a stage."""
    return hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def shipped_model() -> Model:
    """The model of this package. Raises ValueError if it was trained with another vocabulary."""
    return parsed(SHIPPED.read_bytes())


def parsed(content: bytes) -> Model:
    """A model from its file's bytes. Raises ValueError if it was trained with another vocabulary."""
    with np.load(io.BytesIO(content)) as file:
        if file["words"].item() != vocabulary_digest():
            raise ValueError(
                "the extraction model was trained with another vocabulary: run benchmarks/train_extraction"
            )
        return Model(_forest(file, "a"), _forest(file, "b"), float(file["share"]))


def stored(model: Model) -> bytes:
    """The model's file: the same bytes for the same model (numpy writes no dates into it)."""
    arrays: dict[str, Any] = {"share": np.float64(model.share), "words": np.str_(vocabulary_digest())}
    for name, forest in (("a", model.first), ("b", model.second)):
        arrays |= {f"{name}{n}": array for n, array in enumerate(forest)}
    target = io.BytesIO()
    np.savez_compressed(target, **arrays)
    return target.getvalue()


def vocabulary_digest() -> str:
    """sha256 of the vocabulary, hex: bits mean what its order says."""
    v = vocabulary
    sets = (v.BLOCKS, v.VOID, v.RAW, v.HIDDEN, v.CLOSES_P, v.STOP_WORDS.split())
    known = (v.TAGS, v.CATEGORIES, v.ANCESTORS, v.ATTRIBUTE_WORDS, v.PHRASES, [sorted(words) for words in sets])
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _forest(file: np.lib.npyio.NpzFile, name: str) -> Forest:
    arrays = [np.ascontiguousarray(file[f"{name}{n}"], dtype) for n, dtype in enumerate(TYPES)]
    for array in arrays:
        array.setflags(write=False)
    return tuple(arrays)
