"""A fastText classifier's score of each text, from its UTF-8 bytes, in one pass.

A text comes in small letters, in NFKC, without invisible characters (`filters.classify.windows.prepared`); words are
cut here as `words` cuts them there, hashed, looked up, and their vectors summed. Only models of words and word n-grams
with softmax are read, as those are that are trained here.
Source: fastText 0.9.2, dictionary.cc (hash, getLine, addWordNgrams), model.cc and loss.cc (computeHidden, predict).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.fast_text.hash_kernel import NGRAM_FACTOR, token_hash, word_number
from gristmill.filters.text.kernels.utf8 import ALNUM, DATA, DECIMAL, FLAGS, OFFSETS, SPACE, array, character

EPSILON = np.float32(1e-5)
"""What fastText adds to a probability before its logarithm."""
NOTHING, PLAIN, NUMBER, BREAK = range(4)
"""Kinds of a token: none is left; bytes of the text as they are; any number; the end of a line."""


@register_jitable
def is_letter(flags: Any, point: Any) -> Any:
    """Whether a character is of a word: alphanumeric, and no decimal digit."""
    return np.int64(flags[point]) & (ALNUM | DECIMAL) == ALNUM


@register_jitable
def next_token(data: Any, flags: Any, at: Any, end: Any) -> Any:
    """(kind, start, end) of the token at or behind `at`."""
    while at < end:
        point, size = character(data, at, end)
        start = at
        at += size
        if point == 10:
            return BREAK, start, at
        if point == 95 or np.int64(flags[point]) & SPACE:  # an underscore is nothing
            continue
        if np.int64(flags[point]) & DECIMAL:
            while at < end:
                point, size = character(data, at, end)
                if point != 44 and point != 46 and np.int64(flags[point]) & DECIMAL == 0:
                    break
                at += size
            return NUMBER, start, at
        if not is_letter(flags, point):
            return PLAIN, start, at
        while at < end:
            byte = data[np.uint64(at)]
            if 97 <= byte <= 122:  # most of them, without a look at their class
                at += 1
                continue
            point, size = character(data, at, end)
            if point == 39 and at + size < end:  # an apostrophe between letters
                behind, more = character(data, at + size, end)
                if not is_letter(flags, behind):
                    break
                at += size + more
                continue
            if not is_letter(flags, point):
                break
            at += size
        return PLAIN, start, at
    return NOTHING, end, end


def score(
    offsets: Any,
    data: Any,
    flags: Any,
    slots: Any,
    hashes: Any,
    blob: Any,
    ends: Any,
    constants: Any,
    numbers: Any,
    matrix: Any,
    labels: Any,
    shape: Any,
    out: Any,
) -> None:
    """To `out`, float64 [rows]: the probability of a label, NaN for a text without a token.

    The model: `slots`, `hashes`, `blob` and `ends` are the table of its words (`filters/fast_text/words.py`).
    constants: uint32 [3], hashes of any number, a line's end and the end of a text; numbers: int64 [3], their words, -1
    for none. matrix: float32 [words + buckets, dimensions]; labels: float32 [labels, dimensions]. shape: int64 [3],
    words, buckets and words of an n-gram; the label is the first of `labels`.
    """
    # long: one pass, of which each part needs all that the others keep
    n_words, buckets, most = shape[0], np.uint64(shape[1]), shape[2]
    dimensions = matrix.shape[1]
    hidden, logits = np.zeros(dimensions, np.float32), np.zeros(len(labels), np.float32)
    rows = np.empty(4096, np.int64)  # of the matrix, of one text
    grams = np.zeros(max(most, 1), np.uint64)  # running hashes of the n-grams that are open, the newest first
    for row in range(len(offsets) - 1):
        hidden[:] = 0
        at, end = offsets[row], offsets[row + 1]
        if len(rows) < most * (end - at + 1):
            rows = np.empty(2 * most * (end - at + 1), np.int64)
        added, tokens, is_open = np.int64(0), np.int64(0), np.int64(0)
        ended = False
        while not ended:
            kind, start, at = next_token(data, flags, at, end)
            if kind == PLAIN:
                h = token_hash(data, start, at)
                number = word_number(slots, hashes, blob, ends, h, data, start, at)
            else:
                ended = kind == NOTHING
                constant = 2 if ended else (0 if kind == NUMBER else 1)
                h, number = constants[constant], numbers[constant]
            if ended and not tokens:
                break
            tokens += 1
            if number >= 0:
                rows[added] = number
                added += 1
            signed = np.uint64(np.int64(np.int32(h)))
            for back in range(is_open):
                gram = grams[back] * NGRAM_FACTOR + signed
                grams[back] = gram
                rows[added] = n_words + np.int64(gram % buckets)
                added += 1
            is_open = min(is_open + 1, most - 1)
            for back in range(is_open - 1, 0, -1):
                grams[back] = grams[back - 1]
            if is_open:
                grams[0] = signed
        if not added:
            out[row] = np.nan
            continue
        # Summed once all are known: loads that wait for nothing come side by side from memory.
        for number in range(added):
            place = np.uint64(rows[number])
            for k in range(dimensions):
                hidden[np.uint64(k)] += matrix[place, np.uint64(k)]
        for label in range(len(labels)):
            logits[label] = 0
            for k in range(dimensions):
                logits[label] += labels[label, k] * (hidden[k] / np.float32(added))
        top, total = logits.max(), np.float32(0)
        for label in range(len(labels)):
            total += np.exp(logits[label] - top)
        out[row] = np.float64(np.exp(logits[0] - top) / total + EPSILON)


_HASHES, _LONGS, _MATRIX = array(types.uint32), array(types.int64), array(types.float32, 2)
SIGNATURES = {
    "score": types.void(
        OFFSETS,
        DATA,
        FLAGS,
        array(types.int32),
        _HASHES,
        array(types.uint8),
        _LONGS,
        _HASHES,
        _LONGS,
        _MATRIX,
        _MATRIX,
        _LONGS,
        array(types.float64),
    )
}
