"""MinHash signatures of texts, from Arrow buffers, in one compiled pass: words, shingles, least hashes.

Words are runs of letters, marks and digits in any script (`filters.signatures.alphabet`), a shingle is `ngram` words in
a row, and a signature is bit for bit what `datasketch.MinHash(scheme="affine32")` makes of the shingles' hashes, so
datasketch's LSH reads ours. Two texts agree in a value with the probability of their shingle sets' Jaccard similarity;
they share a band with 1 - (1 - s^rows)^bands. Source: Broder 1997; defaults of datatrove 0.10.1,
pipeline/dedup/minhash.py. `shingle_hashes` defines the hashes in plain Python; the kernel is held to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.filters.signatures.alphabet import ALONE, BREAK, DIGIT, NOTHING, meaning
from gristmill.filters.signatures.compiled import kernels
from gristmill.filters.signatures.tables import GOLDEN, MASK, SPLIT_A, SPLIT_B, buffers, folded, letter_code, sealed

MAX_VALUES, MAX_NGRAM = 1 << 14, 1 << 10


class Signatures(NamedTuple):
    """What `MinHash.sign` found, a row a document.

    A document without a shingle (fewer words than `ngram`) has no signature: its values are all 2^32 - 1, and a user
    has to leave it out, or it would be like every other such document.
    """

    values: np.ndarray  # uint32 [documents, bands * rows]
    n_words: np.ndarray  # int32 [documents]
    n_shingles: np.ndarray  # int32 [documents]: n_words - ngram + 1, repeated ones counted again; 0 = no signature


@dataclass(frozen=True)
class MinHash:
    """Signs texts with `bands` * `rows` hashes of shingles of `ngram` words.

    More rows a band: only more similar texts share one; more bands: more of them do. With 14 x 8 a pair at Jaccard .8
    is found with probability .924, at .72 with a half. Signatures of other settings cannot be compared.
    """

    bands: int = 14
    rows: int = 8
    ngram: int = 5
    seed: int = 1  # of the permutations, as datasketch draws them

    name: ClassVar[str] = "minhash"
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        limits = {
            "bands": (1, MAX_VALUES),
            "rows": (1, MAX_VALUES),
            "ngram": (1, MAX_NGRAM),
            "seed": (0, (1 << 32) - 1),
        }
        for field, (low, high) in limits.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"MinHash: {field} is {value!r}; give a whole number")
            if not low <= value <= high:
                raise ValueError(f"MinHash: {field} is {value}; allowed is {low} to {high}")
        if self.bands * self.rows > MAX_VALUES:
            raise ValueError(
                f"MinHash: {self.bands} bands of {self.rows} rows are {self.bands * self.rows} values a document; "
                f"allowed are {MAX_VALUES}, usual are about 100; lower bands or rows"
            )

    def sign(self, texts: pa.StringArray | pa.LargeStringArray) -> Signatures:
        """Signatures of texts without nulls, in their order. Other threads of Python run meanwhile.

        Raises TypeError if `texts` is no string array, ValueError if a text is null.
        """
        offsets, data = buffers("MinHash", texts)
        width = self.bands * self.rows
        a, b = _permutations(width, self.seed)
        values = np.empty((len(texts), len(a)), dtype=np.uint32)
        n_words = np.empty(len(texts), dtype=np.int32)
        kernels().sign(offsets, data, *folded(), (a, b), np.uint64(self.ngram), values, n_words)
        n_shingles = np.maximum(n_words - np.int32(self.ngram - 1), np.int32(0))
        return Signatures(np.ascontiguousarray(values[:, :width]), n_words, n_shingles)


def band_hashes(values: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """A 64-bit hash of each band of signatures, uint64 [documents, bands].

    values: uint32 [documents, bands * rows]. Equal bands have equal hashes if they have the same number too, so that
    hashes of all bands may stand in one column. Documents without a signature share all hashes: leave them out first.
    Raises TypeError or ValueError for values of another kind or shape.
    """
    if not isinstance(values, np.ndarray) or values.dtype != np.uint32:
        raise TypeError(f"band_hashes: values are {getattr(values, 'dtype', type(values))}; give uint32 signatures")
    if bands < 1 or rows < 1 or values.ndim != 2 or values.shape[1] != bands * rows:
        raise ValueError(
            f"band_hashes: values of shape {values.shape} for {bands} bands of {rows} rows; "
            f"give [documents, {bands * rows}]"
        )
    out = np.empty((len(values), bands), dtype=np.uint64)
    kernels().band_hashes(sealed(values), np.uint64(bands), np.uint64(rows), out)
    return out


def warm() -> None:
    """Compiles the kernels, or finds them compiled, and builds the alphabet: what the first `sign` would wait for."""
    band_hashes(MinHash().sign(pa.array(["a text"])).values, 14, 8)


def words(text: str) -> list[str]:
    """The folded words of a text; in plain Python, slow: it says what the kernel does."""
    complete, current, after_digit = [], "", False
    for char in text:
        kind, folded = meaning(char)
        if kind == NOTHING or (kind == DIGIT and after_digit):
            continue
        after_digit = kind == DIGIT
        if kind in (BREAK, ALONE):
            complete += [current, folded]
            current = ""
        else:
            current += folded
    return [word for word in [*complete, current] if word]


def shingle_hashes(text: str, ngram: int = 5) -> list[int]:
    """The 32-bit hash of every shingle of a text, in order; in plain Python, slow: it says what the kernel does.

    These are what datasketch takes as the values of a hash function (it mixes them once more itself).
    """
    hashes = [_word_hash(word) for word in words(text)]
    shingles = []
    for i in range(len(hashes) - ngram + 1):
        total = 0
        for word_hash in hashes[i : i + ngram]:
            total = (total * GOLDEN + word_hash) & MASK
        shingles.append(((total ^ total >> 29) * SPLIT_B & MASK) >> 32)
    return shingles


def _word_hash(word: str) -> int:
    """A polynomial of the letters' codes at 257 (the kernel needs no multiplication for it), mixed by SplitMix64."""
    x = 0
    for char in word:
        x = (x * 257 + letter_code(ord(char))) & MASK
    x = (x ^ x >> 30) * SPLIT_A & MASK
    x = (x ^ x >> 27) * SPLIT_B & MASK
    return x ^ x >> 31


@lru_cache(maxsize=8)
def _permutations(width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The odd factors and the summands of datasketch's affine32, uint32, padded with 0 to a multiple of 4."""
    random = np.random.RandomState(seed)
    a = random.randint(0, 1 << 31, width, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = random.randint(0, 1 << 32, width, dtype=np.uint32)
    padding = (0, -width % 4)
    return sealed(np.pad(a, padding)), sealed(np.pad(b, padding))
