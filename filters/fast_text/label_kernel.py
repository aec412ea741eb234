"""The best labels of lines by a fastText classifier, from their UTF-8 bytes.

As fastText does it, sum for sum in float32: the rows of a line's words and n-grams are averaged in their order, and the
labels judged by the loss that the model was trained with, so that probabilities are fastText's to the last bit where
its build adds as it is written.
Source: fastText 0.9.2; model.cc (computeHidden), loss.cc (predict, dfs, findKBest, computeOutput), vector.cc,
densematrix.cc.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.fast_text.gram_kernel import BUCKETS, LOSS, MAX_N, WORD_NGRAMS, gather
from gristmill.filters.text.kernels.utf8 import DATA, OFFSETS, array

BLOCK = 16
"""Columns that are added at a time; matrices are padded with zeros to a multiple."""
HIERARCHICAL, SOFTMAX = 1, 3
EPSILON = 1e-5
"""What fastText adds to a probability before its logarithm."""


@register_jitable
def average(matrix: Any, rows: Any, added: Any, hidden: Any) -> None:
    """The mean of rows to `hidden`, float32 [dimensions], added one after the other; four a turn, so that sums wait
    for memory once."""
    hidden[:] = 0
    whole = added - added % 4
    for block in range(0, len(hidden), BLOCK):
        for turn in range(0, whole, 4):
            a, b = np.uint64(rows[turn]), np.uint64(rows[turn + 1])
            c, d = np.uint64(rows[turn + 2]), np.uint64(rows[turn + 3])
            for column in range(BLOCK):
                k = np.uint64(block + column)
                hidden[k] = hidden[k] + matrix[a, k] + matrix[b, k] + matrix[c, k] + matrix[d, k]
        for turn in range(whole, added):
            a = np.uint64(rows[turn])
            for column in range(BLOCK):
                k = np.uint64(block + column)
                hidden[k] += matrix[a, k]
    factor = np.float32(1.0 / added)
    for column in range(len(hidden)):
        hidden[column] *= factor


@register_jitable
def logarithm(probability: Any) -> Any:
    """Of a float32, as fastText takes it."""
    return np.float32(np.log(np.float64(probability) + EPSILON))


@register_jitable
def insert(label: Any, score: Any, labels: Any, scores: Any, count: Any) -> Any:
    """Puts a label among the best, the newer before its equals; returns how many there are."""
    if count == len(labels):
        if score < scores[count - 1]:
            return count
        count -= 1
    place = count
    while place > 0 and score >= scores[place - 1]:
        labels[place], scores[place] = labels[place - 1], scores[place - 1]
        place -= 1
    labels[place], scores[place] = label, score
    return count + 1


@register_jitable
def descend(hidden: Any, output: Any, children: Any, nodes: Any, sums: Any, labels: Any, scores: Any) -> Any:
    """Best labels by the tree of a hierarchical softmax; returns how many there are. `children`: int32 [nodes, 2],
    those below as many as there are labels are leaves; `nodes`, `sums`: room for those that wait."""
    n_labels = len(output)
    least = logarithm(np.float32(0))
    nodes[0], sums[0] = len(children) - 1, 0
    waiting, count = 1, 0
    while waiting:
        waiting -= 1
        node, score = np.int64(nodes[waiting]), sums[waiting]
        if score < least or (count == len(labels) and score < scores[count - 1]):
            continue
        if node < n_labels:
            count = insert(node, score, labels, scores, count)
            continue
        logit = np.float32(0)
        for k in range(len(hidden)):
            logit += output[node - n_labels, k] * hidden[k]
        right = np.float32(1.0 / np.float64(np.float32(1) + np.exp(-logit)))
        nodes[waiting], sums[waiting] = children[node, 1], score + logarithm(right)
        left = np.float32(1.0 - np.float64(right))
        nodes[waiting + 1], sums[waiting + 1] = children[node, 0], score + logarithm(left)
        waiting += 2
    return count


@register_jitable
def judge(hidden: Any, output: Any, loss: Any, sigmoid: Any, logits: Any, labels: Any, scores: Any) -> Any:
    """Best labels of a loss that looks at each; returns how many there are. `output`: float32 [dimensions, labels];
    `sigmoid`: its values from -8 to 8, as fastText looks them up."""
    logits[:] = 0
    for k in range(len(hidden)):
        for label in range(len(logits)):
            logits[label] += output[k, label] * hidden[k]
    if loss == SOFTMAX:
        top, total = logits.max(), np.float32(0)
        for label in range(len(logits)):
            logits[label] = np.exp(logits[label] - top)
            total += logits[label]
        for label in range(len(logits)):
            logits[label] /= total
    else:
        steps = np.float32(len(sigmoid) - 1)
        for label in range(len(logits)):
            x = logits[label]
            place = (
                np.int64((x + np.float32(8)) * steps / np.float32(8) / np.float32(2)) if abs(x) <= 8 else np.int64(0)
            )
            logits[label] = sigmoid[place] if abs(x) <= 8 else np.float32(x > 0)
    count = 0
    for label in range(len(logits)):
        count = insert(label, logits[label], labels, scores, count)
    for rank in range(count):
        scores[rank] = logarithm(scores[rank])
    return count


def best(
    offsets: Any,
    data: Any,
    slots: Any,
    hashes: Any,
    blob: Any,
    ends: Any,
    kept: Any,
    kept_before: Any,
    matrix: Any,
    output: Any,
    children: Any,
    sigmoid: Any,
    shape: Any,
    labels: Any,
    scores: Any,
) -> None:
    """To `labels`, int32 [rows, k], the numbers of each line's best labels, and to `scores`, float32 [rows, k], their
    probabilities; -1 and NaN behind the last of them, all for a line without a word or n-gram that is known.

    The model: `slots` to `ends` are a table of words (`words.py`), labels behind words; `kept`, uint64, and
    `kept_before`, int32, as in `bucket_row`; `matrix`: float32 [words + n-grams, dimensions]; `output`: float32
    [labels, dimensions] with `children` for a hierarchical softmax, else [dimensions, labels]; `shape`: int64 [8].
    """
    # long: the room of all lines, and a line's steps
    dimensions, k = matrix.shape[1], labels.shape[1]
    is_tree = shape[LOSS] == HIERARCHICAL
    inverse = np.uint64(0xFFFFFFFFFFFFFFFF) // np.uint64(max(1, shape[BUCKETS])) + np.uint64(1)
    hidden = np.empty(dimensions, np.float32)
    logits = np.empty(1 if is_tree else output.shape[1], np.float32)
    nodes, sums = np.empty(len(children) + 2, np.int32), np.empty(len(children) + 2, np.float32)
    best_labels, best_scores = np.empty(k, np.int32), np.empty(k, np.float32)
    longest = np.int64(0)
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    # Of n bytes there are words and marks for at most 2n + 2 characters, each of which begins n-grams of every length.
    characters = 2 * longest + 4
    word, tokens = np.empty(longest + 2, np.uint8), np.empty(longest + 2, np.uint32)
    room = characters * (1 + min(shape[MAX_N], characters) + min(shape[WORD_NGRAMS], characters))
    rows = np.empty(room, np.int32)
    for row in range(len(offsets) - 1):
        added = gather(
            data,
            offsets[row],
            offsets[row + 1],
            slots,
            hashes,
            blob,
            ends,
            kept,
            kept_before,
            shape,
            inverse,
            rows,
            word,
            tokens,
        )
        count = np.int64(0)
        if added:
            average(matrix, rows, added, hidden)
            if is_tree:
                count = descend(hidden, output, children, nodes, sums, best_labels, best_scores)
            else:
                count = judge(hidden, output, shape[LOSS], sigmoid, logits, best_labels, best_scores)
        for place in range(k):
            is_there = place < count
            labels[row, place] = best_labels[place] if is_there else -1
            scores[row, place] = np.exp(best_scores[place]) if is_there else np.nan


_INTS, _LONGS, _FLOATS = array(types.int32), array(types.int64), array(types.float32)
_MATRIX = array(types.float32, 2)
SIGNATURES = {
    "best": types.void(
        OFFSETS,
        DATA,
        _INTS,
        array(types.uint32),
        array(types.uint8),
        _LONGS,
        array(types.uint64),
        _INTS,
        _MATRIX,
        _MATRIX,
        array(types.int32, 2),
        _FLOATS,
        _LONGS,
        array(types.int32, 2),
        _MATRIX,
    )
}
