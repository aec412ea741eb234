"""The trained model: two forests and a threshold, in one file that is part of this package.

A file of numpy (.npz): `a0` to `a5` the first forest, `b0` to `b5` the second (`Forest` says what each is), `share` the
threshold, `words` the sha256 of the vocabulary that it was trained with. `benchmarks/train_extraction.py`
writes it, data/extraction.md says from what.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.filters.extraction import vocabulary
from gristmill.filters.extraction.columns import DE_BRUIJN

SHIPPED = Path(__file__).parents[1] / "data" / "extraction.npz"
TYPES = (np.int16, np.float32, np.int32, np.int32, np.float32, np.int32)
"""Of a forest's arrays: feature, threshold, left, right, value, roots."""
MOST_LEAVES = 32
"""Of a tree: each has its bit."""


class Conditions(NamedTuple):
    """A forest as it is asked (forest_kernels.grow), by QuickScorer (https://doi.org/10.1145/2766462.2767733): of a
    block whose `feature` is above `threshold`, the leaves left of that node are out, and `stays` has the bits of the
    others. What is asked of tree `t` is `first[t]` to `first[t + 1]`; the lowest bit that stays is the leaf that is
    reached. `leaves`, float32 [trees, MOST_LEAVES]: the value of the leaf of bit `b` at `(b * DE_BRUIJN >> 27) & 31`.
    """

    feature: np.ndarray
    threshold: np.ndarray
    stays: np.ndarray
    first: np.ndarray
    leaves: np.ndarray


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees of nodes, one array each of [nodes]: `feature`, -1 of a leaf; `threshold`, which what goes `left` is at
    most; `left` and `right`, nodes; `value` of a leaf. `roots`: [trees]."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray

    @cached_property
    def conditions(self) -> Conditions:
        """The same forest as it is asked. Raises ValueError if a tree has more than MOST_LEAVES leaves."""
        asked: list[tuple[int, float, int]] = []
        first, leaves = [0], np.zeros((len(self.roots), MOST_LEAVES), np.float32)
        for tree, root in enumerate(self.roots):
            values = self._ask(root, 0, asked)
            if len(values) > MOST_LEAVES:
                raise ValueError(f"tree {tree} has {len(values)} leaves: at most {MOST_LEAVES}")
            for bit, value in enumerate(values):
                leaves[tree, (DE_BRUIJN << bit >> 27) & 31] = value
            first.append(len(asked))
        feature, threshold, stays = zip(*asked, strict=True) if asked else ((), (), ())
        arrays = (
            np.array(feature, np.int32),
            np.array(threshold, np.float32),
            np.array(stays, np.int64).astype(np.int32),
            np.array(first, np.int32),
            leaves,
        )
        return Conditions(*map(_frozen, arrays))

    def _ask(self, node: int, bit: int, asked: list[tuple[int, float, int]]) -> list[float]:
        """The values of the leaves below a node, whose first has this bit; adds what is asked there."""
        if self.feature[node] < 0:
            return [self.value[node]]
        left = self._ask(self.left[node], bit, asked)
        right = self._ask(self.right[node], bit + len(left), asked)
        goes = ((1 << len(left)) - 1) << bit
        asked.append((int(self.feature[node]), float(self.threshold[node]), ~goes))
        return left + right


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
        arrays |= {f"{name}{n}": array for n, array in enumerate(astuple(forest))}
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
    return Forest(*(_frozen(np.ascontiguousarray(file[f"{name}{n}"], dtype)) for n, dtype in enumerate(TYPES)))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
