"""A fastText classifier that labels lines by a kernel (`label_kernel.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.filters.fast_text.file import HIERARCHICAL, ModelFile
from gristmill.filters.fast_text.words import END, WordTable, word_hashes
from gristmill.filters.signatures.compiled import load
from gristmill.filters.signatures.tables import buffers

_BLOCK = 16
"""As in the kernel: columns of a matrix are a multiple."""
_SIGMOID_STEPS, _SIGMOID_MOST = 512, 8.0
"""Of the table that fastText looks a sigmoid up in."""
_NOBODY = 10**15
"""How often a node was seen that is not there yet."""


@dataclass(frozen=True)
class FastTextModel:
    """What a file holds, as the kernel takes it. `labels`: with fastText's prefix; a number of a label is its place."""

    labels: tuple[str, ...]
    table: WordTable
    kept: np.ndarray
    kept_before: np.ndarray
    matrix: np.ndarray
    output: np.ndarray
    children: np.ndarray
    shape: np.ndarray

    @classmethod
    def of(cls, file: ModelFile) -> FastTextModel:
        """The model of a file that was read."""
        settings, n_words = file.settings, len(file.words)
        is_tree = settings.loss == HIERARCHICAL
        kept, kept_before, matrix = _pruned(file)
        output = _padded(file.output)
        end = file.words.index(END) if END in file.words else -1
        shape = (n_words, settings.buckets, settings.word_ngrams, settings.min_n, settings.max_n, settings.loss)
        return cls(
            labels=file.labels,
            table=WordTable.of([*file.words, *(label.encode() for label in file.labels)]),
            kept=kept,
            kept_before=kept_before,
            matrix=_padded(matrix),
            output=output if is_tree else np.ascontiguousarray(output.T),
            children=_children(file.counts) if is_tree else np.zeros((0, 2), np.int32),
            shape=np.array([*shape, end, word_hashes([END])[0]], np.int64),
        )

    def best(self, lines: pa.StringArray | pa.LargeStringArray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the `k` best labels of each line, int32 [lines, k]; their probabilities, float32 [lines, k]), the
        best first; -1 and NaN where there are fewer, as of a line without anything that the model knows. There are as
        many columns as labels at most. Raises TypeError, ValueError for lines that are null or no strings."""
        k = min(k, len(self.labels))
        labels, scores = np.empty((len(lines), k), np.int32), np.empty((len(lines), k), np.float32)
        offsets, data = buffers("best", lines)
        own = (*self.table, self.kept, self.kept_before, self.matrix, self.output, self.children, _sigmoid())
        _kernel()(offsets, data, *own, self.shape, labels, scores)
        return labels, scores


def warm() -> None:
    """Compiles the kernel, if it is not in the cache."""
    _kernel()


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., None]:
    folder = Path(__file__).parent
    uses = [folder / "gram_kernel.py", folder / "hash_kernel.py", folder.parent / "text" / "kernels" / "utf8.py"]
    return load(folder / "label_kernel.py", uses=uses)["best"]


@lru_cache(maxsize=1)
def _sigmoid() -> np.ndarray:
    x = np.arange(_SIGMOID_STEPS + 1) * 2 * _SIGMOID_MOST / _SIGMOID_STEPS - _SIGMOID_MOST
    exponentials = np.exp(-x).astype(np.float32)  # as C rounds them; NumPy's own of float32 are off by a bit
    return (1.0 / (1.0 + exponentials.astype(np.float64))).astype(np.float32)


def _padded(matrix: np.ndarray) -> np.ndarray:
    more = -matrix.shape[1] % _BLOCK
    return np.ascontiguousarray(np.pad(matrix, ((0, 0), (0, more))) if more else matrix, np.float32)


def _pruned(file: ModelFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(a bit for each bucket that is left, uint64; ones before each 64 of them, int32; the matrix, its n-grams in order
    of their buckets). Without pruning no bits and the matrix as it is."""
    if file.pruned is None:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32), file.matrix
    buckets, first = np.unique(file.pruned[::-1, 0], return_index=True)  # of one that comes twice the last counts
    places = file.pruned[::-1, 1][first]
    bits = np.zeros(-(-file.settings.buckets // 64), np.uint64)
    np.bitwise_or.at(bits, buckets // 64, np.uint64(1) << (buckets % 64).astype(np.uint64))
    ones = np.bitwise_count(bits).astype(np.int64)
    before = (np.cumsum(ones) - ones).astype(np.int32)
    n_words = len(file.words)
    return bits, before, np.concatenate([file.matrix[:n_words], file.matrix[n_words + places]])


def _children(counts: np.ndarray) -> np.ndarray:
    """The tree of a hierarchical softmax, int32 [2 * labels - 1, 2]: both children of each node, -1 of the leaves,
    which are the labels. Source: fastText 0.9.2, loss.cc (buildTree)."""
    n_labels = len(counts)
    seen = [*counts.tolist(), *[_NOBODY] * (n_labels - 1)]
    children = np.full((len(seen), 2), -1, np.int32)
    leaf, inner = n_labels - 1, n_labels
    for node in range(n_labels, len(seen)):
        for side in range(2):
            if leaf >= 0 and seen[leaf] < seen[inner]:
                children[node, side], leaf = leaf, leaf - 1
            else:
                children[node, side], inner = inner, inner + 1
        seen[node] = sum(seen[child] for child in children[node])
    return children
