"""Reads the file of a fastText classifier: `.bin`, or `.ftz`, whose matrices are quantised and n-grams pruned.

The bytes are a stranger's: every count is held against the bytes that are left before anything of that size is made,
and every row that a line can ask for is there, since the kernels look at no bounds. Quantised matrices are written out
as numbers once, with the products that fastText makes at every look: so sums are the same to the last bit.
Source: fastText 0.9.2; loadModel in fasttext.cc, load in args.cc, dictionary.cc, densematrix.cc, quantmatrix.cc and
productquantizer.cc; Joulin et al. 2016, arXiv 1612.03651, section 3.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.filters.fast_text.words import check_spread

LABEL_PREFIX = "__label__"
"""What labels begin with in a file, and what makes a word of a text a label, which is then not read."""
HIERARCHICAL, NEGATIVE_SAMPLING, SOFTMAX, ONE_VS_ALL = range(1, 5)
"""Losses, as a file numbers them."""
_MAGIC, _NEWEST, _CLASSIFIER = 793712314, 12, 3
_CENTROIDS = 256
_LONGEST_GRAM = 255
"""Characters and words of an n-gram at most: the work per character, or word, grows with them."""
_WIDEST_PART, _MOST_BUCKETS = 32, 1 << 28
"""Columns that a byte of a quantised matrix stands for (2 unless one asks), and buckets of pruned n-grams, each of
which takes a bit: what a file asks for beyond its own size."""
_MOST_TEXTS = 10**15
"""Below it has to be what a label was seen: fastText's own mark of a node without children."""


class Settings(NamedTuple):
    """`word_ngrams`: words of an n-gram, 1 for none. `min_n`, `max_n`: characters of an n-gram, `max_n` 0 for none.
    `buckets`: rows that n-grams are hashed to."""

    dimensions: int
    word_ngrams: int
    loss: int
    buckets: int
    min_n: int
    max_n: int


class ModelFile(NamedTuple):
    """What is in a file. `words`, `labels`: in the order of their numbers, labels behind words, with their prefix;
    `counts`: int64, how often each label was seen; `pruned`: int32 [n-grams, 2], bucket and row behind the words of
    those that are left, None where all are; `matrix`: float32 [words + n-grams, dimensions]; `output`: float32
    [labels, dimensions]; `is_quantised`: whether the matrix was written out from codes."""

    settings: Settings
    words: tuple[bytes, ...]
    labels: tuple[str, ...]
    counts: np.ndarray
    pruned: np.ndarray | None
    matrix: np.ndarray
    output: np.ndarray
    is_quantised: bool


def read_file(path: Path) -> ModelFile:
    """The model in a file. Raises OSError, and ValueError, with the path, for one that is no classifier of fastText's,
    is cut short or damaged."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return read_bytes(mapped)
    except ValueError as error:  # an empty file cannot be mapped, which is one as well
        raise ValueError(f"{path} is no fastText model that can be used: {error}") from error


def read_bytes(data: bytes | mmap.mmap) -> ModelFile:
    """The model in these bytes, of which nothing is kept. Raises ValueError."""
    reader = _Reader(data)
    settings = _settings(reader)
    words, labels, counts, pruned = _dictionary(reader)
    is_quantised = reader.flag()
    matrix = _quantised(reader) if is_quantised else _dense(reader)
    if pruned is not None and not is_quantised:
        raise ValueError("its n-grams are pruned and its matrix is not quantised")
    output = _quantised(reader) if reader.flag() and is_quantised else _dense(reader)
    if reader.left:
        raise ValueError(f"{reader.left} bytes follow its end")
    file = ModelFile(settings, words, labels, counts, pruned, matrix, output, is_quantised)
    _check_rows(file)
    check_spread([*words, *(label.encode() for label in labels)])
    return file


class _Reader:
    """Goes through bytes from their beginning; raises ValueError where there are too few."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def _skip(self, size: int) -> int:
        """Goes on by so many bytes; returns where they begin."""
        if size < 0:
            raise ValueError(f"{size} bytes of something are counted")
        if size > self.left:
            raise ValueError(f"it ends after {len(self._data)} bytes, where {size - self.left} more belong to it")
        start = self._at
        self._at += size
        return start

    def numbers(self, form: str) -> tuple[int, ...]:
        """Numbers of these forms (of `struct`), little-endian without gaps."""
        start = self._skip(struct.calcsize("<" + form))
        return struct.unpack_from("<" + form, self._data, start)

    def flag(self) -> bool:
        (value,) = self.numbers("B")
        if value > 1:
            raise ValueError(f"{value} stands where yes or no is said")
        return bool(value)

    def word(self) -> bytes:
        """Bytes up to a zero, which is passed."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ValueError("a word has no end")
        start = self._skip(end - self._at + 1)
        return self._data[start:end]

    def array(self, dtype: str, count: int) -> np.ndarray:
        """A copy of so many numbers."""
        start = self._skip(np.dtype(dtype).itemsize * count)
        return np.frombuffer(self._data, dtype, count, start).copy()


def _settings(reader: _Reader) -> Settings:
    magic, version = reader.numbers("ii")
    if magic != _MAGIC or version > _NEWEST:
        raise ValueError("it does not begin as one does")
    dimensions, _, _, _, _, word_ngrams, loss, kind, buckets, min_n, max_n, _ = reader.numbers("12i")
    reader.numbers("d")
    if kind != _CLASSIFIER:
        raise ValueError("it holds vectors of words, and no classifier")
    if version < _NEWEST:  # its classifiers had no n-grams of characters, whatever their files say
        max_n = 0
    settings = Settings(dimensions, max(1, word_ngrams), loss, buckets, min_n, max_n)
    if not (
        dimensions > 0
        and HIERARCHICAL <= loss <= ONE_VS_ALL
        and min_n >= 0
        and 0 <= max_n <= _LONGEST_GRAM
        and word_ngrams <= _LONGEST_GRAM
        and (buckets > 0 or (max_n == 0 and settings.word_ngrams == 1))
    ):
        raise ValueError(f"its settings cannot be: {settings}")
    return settings


def _dictionary(reader: _Reader) -> tuple[tuple[bytes, ...], tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Words, labels, counts of labels, n-grams that are left."""
    size, n_words, n_labels = reader.numbers("3i")
    _, n_pruned = reader.numbers("2q")
    if n_words < 0 or n_labels < 1 or size != n_words + n_labels or size > reader.left:
        raise ValueError(f"of {size} words it counts {n_words} words and {n_labels} labels")
    entries, counts = [], []
    for number in range(size):
        entries.append(reader.word())
        count, kind = reader.numbers("qb")
        if kind != (number >= n_words):
            raise ValueError("words and labels are not in their order")
        counts.append(count)
    if not all(0 <= count < _MOST_TEXTS for count in counts[n_words:]):
        raise ValueError("a label was seen a number of times that cannot be")
    pruned = reader.array("<i4", 2 * n_pruned).reshape(-1, 2) if n_pruned >= 0 else None
    try:
        labels = tuple(label.decode() for label in entries[n_words:])
    except UnicodeDecodeError as error:
        raise ValueError(f"a label is no text: {error}") from error
    return tuple(entries[:n_words]), labels, np.array(counts[n_words:], np.int64), pruned


def _dense(reader: _Reader) -> np.ndarray:
    rows, columns = reader.numbers("2q")
    if rows < 0 or columns < 1:
        raise ValueError(f"a matrix has {rows} rows of {columns}")
    return reader.array("<f4", rows * columns).reshape(rows, columns)


class _Quantiser(NamedTuple):
    """A product quantiser: a row is cut in `parts`, of which each is one of 256 centroids."""

    columns: int
    parts: int
    width: int
    last_width: int
    centroids: np.ndarray

    @classmethod
    def read(cls, reader: _Reader) -> _Quantiser:
        columns, parts, width, last_width = reader.numbers("4i")
        whole = (parts - 1) * width + last_width
        if not (parts > 0 and 0 < last_width <= width <= _WIDEST_PART and whole == columns):
            raise ValueError(f"a quantiser cuts {columns} columns in {parts} of {width} and {last_width}")
        return cls(columns, parts, width, last_width, reader.array("<f4", columns * _CENTROIDS))

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """float32 [rows, columns] of uint8 [rows, parts]."""
        matrix = np.empty((len(codes), self.columns), np.float32)
        for part in range(self.parts):
            width = self.last_width if part == self.parts - 1 else self.width
            start = part * self.width
            table = self.centroids[start * _CENTROIDS :][: width * _CENTROIDS].reshape(_CENTROIDS, width)
            matrix[:, start : start + width] = table[codes[:, part]]
        return matrix


def _quantised(reader: _Reader) -> np.ndarray:
    has_norms = reader.flag()
    rows, columns = reader.numbers("2q")
    (n_codes,) = reader.numbers("i")
    codes = reader.array("u1", n_codes)
    quantiser = _Quantiser.read(reader)
    if rows < 0 or quantiser.columns != columns or n_codes != rows * quantiser.parts:
        raise ValueError(f"a quantised matrix of {rows} rows of {columns} has {n_codes} codes")
    norm_codes = reader.array("u1", rows) if has_norms else None
    norms = _Quantiser.read(reader) if has_norms else None
    matrix = quantiser.numbers(codes.reshape(rows, quantiser.parts))
    if norms is not None and norm_codes is not None:
        if norms.columns != 1:
            raise ValueError(f"a norm has {norms.columns} columns")
        with np.errstate(all="ignore"):  # what is no number is refused below, wherever it comes from
            matrix *= norms.numbers(norm_codes.reshape(rows, 1))
    return matrix


def _check_rows(file: ModelFile) -> None:
    """Raises ValueError where a row can be asked for that is not there, or holds what is no number."""
    settings, rows = file.settings, len(file.matrix)
    dimensions: dict[str, Any] = {"matrix": file.matrix.shape[1], "output": file.output.shape[1]}
    if set(dimensions.values()) != {settings.dimensions}:
        raise ValueError(f"its settings say {settings.dimensions} dimensions, its matrices {dimensions}")
    if len(file.output) != len(file.labels):
        raise ValueError(f"{len(file.labels)} labels have {len(file.output)} rows")
    n_grams = rows - len(file.words)
    if file.pruned is None:
        is_there = n_grams >= settings.buckets
    else:
        buckets, places = file.pruned.T
        is_there = (
            n_grams >= 0
            and settings.buckets <= _MOST_BUCKETS
            and bool(((buckets >= 0) & (buckets < settings.buckets) & (places >= 0) & (places < n_grams)).all())
        )
    if not is_there:
        raise ValueError(
            f"{len(file.words)} words and n-grams in {settings.buckets} buckets have {rows} rows, which cannot be all"
        )
    for matrix in (file.matrix, file.output):
        if matrix.size and not np.isfinite([matrix.min(), matrix.max()]).all():
            raise ValueError("a number of its matrices is none, or infinite")
