"""Word n-grams of texts, hashed to 64 bits in one compiled pass: what two texts have in common, word for word.

Words are those of `filters.signatures.alphabet`, lower case and without accents, but here every digit counts. The hash
of a whole text is that of its words in order, so that texts that differ in case, spaces or punctuation alone are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.filters.signatures.compiled import SOURCE, load
from gristmill.filters.signatures.tables import buffers, exact

SLICE_BYTES = 4 << 20
"""Of text, hashed at a time by `slices`: its n-grams take up to four times as much memory."""


class NGrams(NamedTuple):
    """hashes: uint64, those of all texts end to end, in order; ends: int64 [texts], where each one's end. wholes: of
    all words of a text, uint64 [texts]; n_words: int32 [texts]."""

    hashes: np.ndarray
    ends: np.ndarray
    wholes: np.ndarray
    n_words: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The text of each hash, int64."""
        return np.repeat(np.arange(len(self.ends)), np.diff(self.ends, prepend=0))


def ngrams(texts: pa.StringArray | pa.LargeStringArray, n: int) -> NGrams:
    """Of texts without nulls. A text of fewer than `n` words has no n-gram.

    Raises TypeError if `texts` is no string array, ValueError if a text is null or n < 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: allowed is 1 word or more")
    offsets, data = buffers("ngrams", texts)
    # A word has a byte and one that ends it, the last one aside; words of one character without spaces have three.
    room = (int(offsets[-1] - offsets[0]) + len(texts)) // 2 + 1
    hashes = np.empty(room, np.uint64)
    ends, wholes, n_words = (
        np.empty(len(texts), np.uint64),
        np.empty(len(texts), np.uint64),
        np.empty(len(texts), np.int32),
    )
    _kernel("ngrams")(offsets, data, *exact(), np.uint64(n), hashes, ends, wholes, n_words)
    return NGrams(hashes[: int(ends[-1]) if len(ends) else 0], ends.astype(np.int64), wholes, n_words)


class WordSpans(NamedTuple):
    """Where the words of texts stand, end to end: first byte and the one behind the last, in the text's own UTF-8,
    int64 [words]; `first`: int64 [texts + 1], the number of each one's first word."""

    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray


def word_spans(texts: pa.StringArray | pa.LargeStringArray, n_words: np.ndarray) -> WordSpans:
    """Of texts without nulls of which `ngrams` counted so many words, int [texts]: the same words.

    Raises what `ngrams` raises; ValueError if `n_words` are those of other texts.
    """
    offsets, data = buffers("word_spans", texts)
    first = np.concatenate([[0], np.cumsum(n_words, dtype=np.int64)])
    room = (int(offsets[-1] - offsets[0]) + len(texts)) // 2 + 1  # as for n-grams of one word
    starts, ends = np.full(room, -1, np.int64), np.full(room, -1, np.int64)
    _kernel("word_spans")(offsets, data, *exact(), starts, ends)
    if (there := int((ends >= 0).sum())) != first[-1]:
        raise ValueError(f"word_spans: texts have {there} words, not the {int(first[-1])} that were counted")
    begins = np.repeat(offsets[:-1], n_words)
    return WordSpans(starts[: first[-1]] - begins, ends[: first[-1]] - begins, first)


@lru_cache(maxsize=2)
def _kernel(name: str) -> Callable[..., None]:
    """Each by itself, and not among those of signatures: it takes seconds until one is compiled."""
    return load(SOURCE, (name,))[name]


def slices(sizes: np.ndarray) -> Iterator[slice]:
    """Runs of texts of these bytes, int [texts], that hold SLICE_BYTES or one more text."""
    start = total = 0
    for end, size in enumerate(sizes.tolist(), 1):
        total += size
        if total >= SLICE_BYTES or end == len(sizes):
            yield slice(start, end)
            start, total = end, 0
