"""Overlap of training texts with held-out ones: which evaluation items a training text gives away.

The field's rule: an item is contaminated if any 13 words in a row of it stand in a training text, unless so many
training texts hold them that they are common phrases, which give nothing away. Two things are held to more strictly: a
training text that holds most of an item counts however often it is repeated, and texts and prompts of any length are
compared whole, which is all that is asked of those with fewer than 13 words. The held-out side is small and held in
memory; training texts stream past it.
Sources: GPT-3, arXiv 2005.14165, appendix C (13 words, ignored from 10 documents on); near copies by the share of an
item's n-grams that one text holds: Tulu 3, arXiv 2411.15124, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.signatures.ngrams import NGrams, ngrams, slices

_MOST_BITS = 24
"""Of the table of bytes that most n-grams are told apart by: 16 MB."""


@dataclass(frozen=True)
class Overlap:
    """`ngram`: words in a row. `max_matches`: what more training texts, or more held-out ones, than this have in
    common is a phrase. `near`: the share of an item's n-grams from which on one training text holds the item, phrases
    or not. Raises ValueError that names the field."""

    ngram: int = 13
    max_matches: int = 10
    near: float = 0.8

    def __post_init__(self) -> None:
        if not 1 <= self.ngram <= 1024:
            raise ValueError(f"ngram={self.ngram}: allowed are 1 to 1024 words")
        if self.max_matches < 1:
            raise ValueError(f"max_matches={self.max_matches}: allowed is 1 text or more")
        if not 0 < self.near <= 1:
            raise ValueError(f"near={self.near}: allowed is a share above 0, up to 1")


class Texts(NamedTuple):
    """Texts of records, a row each, strings without nulls. `excerpts`: what of each text is compared whole as well, as
    a sample's prompt; empty where there is none."""

    wholes: pa.StringArray
    excerpts: tuple[pa.StringArray, ...] = ()

    def __len__(self) -> int:
        return len(self.wholes)


def joined(parts: Sequence[Texts]) -> Texts:
    """Batches as one. Where one has fewer excerpts than another, those that it lacks are empty."""
    count = max((len(part.excerpts) for part in parts), default=0)
    columns: list[list[pa.StringArray]] = [[] for _ in range(1 + count)]
    for part in parts:
        lacking = pa.array([""] * len(part), pa.string())
        for number, column in enumerate(columns):
            own = (part.wholes, *part.excerpts)
            column.append(own[number].cast(pa.string()) if number < len(own) else lacking)
    whole, *excerpts = (pa.concat_arrays([pa.array([], pa.string()), *column]) for column in columns)
    return Texts(whole, tuple(excerpts))


@dataclass(frozen=True)
class HeldOut:
    """The n-grams of held-out items, numbered from 0.

    grams: uint64, distinct and sorted; starts: int64 [grams + 1], where each one's items begin in `items`, int32.
    sizes: int32 [item], how many of these n-grams an item has. texts: uint64, sorted, hashes of whole texts and of
    excerpts; text_items: int32, the item of each.
    """

    grams: np.ndarray
    starts: np.ndarray
    items: np.ndarray
    sizes: np.ndarray
    texts: np.ndarray
    text_items: np.ndarray

    @classmethod
    def of(cls, texts: Texts, overlap: Overlap) -> tuple[Self, np.ndarray]:
        """The index of these items, and how many words each has, int32. All of them are in memory."""
        hashed = ngrams(texts.wholes, overlap.ngram)
        order = np.lexsort((hashed.rows, hashed.hashes))
        hashes, rows = hashed.hashes[order], hashed.rows[order].astype(np.int32)
        again = (hashes[1:] == hashes[:-1]) & (rows[1:] == rows[:-1])  # what an item says twice counts once
        once = np.concatenate([[True], ~again])[: len(hashes)]
        grams, counts = np.unique(hashes[once], return_counts=True)
        kept = counts <= overlap.max_matches  # what more items share is their template
        items = rows[once][np.repeat(kept, counts)]
        starts = np.concatenate([[0], np.cumsum(counts[kept])])
        sizes = np.bincount(items, minlength=len(texts)).astype(np.int32)
        columns = [_Wholes.of(column, overlap.ngram) for column in texts.excerpts]
        wholes = _Wholes.joined([_Wholes.hashed(hashed, 0), *columns])
        order = np.argsort(wholes.hashes, kind="stable")
        return cls(
            grams[kept], starts, items, sizes, wholes.hashes[order], wholes.rows[order].astype(np.int32)
        ), hashed.n_words


class Matches(NamedTuple):
    """What a batch of training texts has of held-out items. Pairs of arrays, int64: `gram_rows` and `grams`, a text and
    the number of an n-gram that it holds, each once; `text_rows` and `text_items`, a text or excerpt that is an item
    or one of its; `near_rows` and `near_items`, a text that holds most of an item, `near_shared` of its n-grams."""

    gram_rows: np.ndarray
    grams: np.ndarray
    text_rows: np.ndarray
    text_items: np.ndarray
    near_rows: np.ndarray
    near_items: np.ndarray
    near_shared: np.ndarray


class Finder:
    """Looks for held-out items in training texts, a batch at a time. Memory: some times that of the index, and of a few
    megabytes of text, whatever the batch."""

    def __init__(self, held_out: HeldOut, overlap: Overlap) -> None:
        self.held_out, self.overlap = held_out, overlap
        bits = min(_MOST_BITS, 8 + len(held_out.grams).bit_length())
        self._shift = np.uint64(64 - bits)
        self._there = np.zeros(1 << bits, bool)  # whether any n-gram begins with these bits: most texts' have none
        self._there[held_out.grams >> self._shift] = True

    def find(self, texts: Texts) -> Matches:
        """What these training texts have of the items; rows are those of `texts`."""
        parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.int64),) * 5]
        wholes = [_Wholes.of(column, self.overlap.ngram) for column in texts.excerpts]
        for run in slices(_sizes(texts.wholes)):
            hashed = ngrams(texts.wholes[run], self.overlap.ngram)
            parts.append(self._gram_matches(hashed, run.start))
            wholes.append(_Wholes.hashed(hashed, run.start))
        gram_rows, grams, near_rows, near_items, near_shared = map(np.concatenate, zip(*parts, strict=True))
        text_rows, text_items = self._text_matches(_Wholes.joined(wholes))
        return Matches(gram_rows, grams, text_rows, text_items, near_rows, near_items, near_shared)

    def _gram_matches(self, hashed: NGrams, first: int) -> tuple[np.ndarray, ...]:
        """(row, gram) of what texts hold, each once, and (row, item, shared) of near copies. `first`: row of the first
        text."""
        index = self.held_out
        likely = np.flatnonzero(self._there[hashed.hashes >> self._shift])
        numbers = _numbers(index.grams, hashed.hashes[likely])
        hits = numbers >= 0
        # which text a place belongs to: the first that ends behind it
        rows = np.searchsorted(hashed.ends, likely[hits], side="right")
        pairs = np.unique(rows * max(len(index.grams), 1) + numbers[hits])
        rows, grams = np.divmod(pairs, max(len(index.grams), 1))
        near = self._near(rows, grams)
        return rows + first, grams, near[0] + first, *near[1:]

    def _near(self, rows: np.ndarray, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, item, shared) of texts that hold most of an item's n-grams."""
        index = self.held_out
        counts = index.starts[grams + 1] - index.starts[grams]
        begins = np.repeat(index.starts[grams] - (np.cumsum(counts) - counts), counts)
        items = index.items[begins + np.arange(len(begins))].astype(np.int64)
        pairs, shared = np.unique(np.repeat(rows, counts) * len(index.sizes) + items, return_counts=True)
        rows, items = np.divmod(pairs, max(len(index.sizes), 1))
        enough = shared >= np.ceil(self.overlap.near * index.sizes[items])
        return rows[enough], items[enough], shared[enough].astype(np.int64)

    def _text_matches(self, wholes: _Wholes) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of texts and excerpts that are an item's, each once."""
        index = self.held_out
        begins = np.searchsorted(index.texts, wholes.hashes, side="left")
        counts = np.searchsorted(index.texts, wholes.hashes, side="right") - begins
        places = np.repeat(begins - (np.cumsum(counts) - counts), counts)
        items = index.text_items[places + np.arange(len(places))].astype(np.int64)
        pairs = np.unique(np.repeat(wholes.rows, counts) * max(len(index.sizes), 1) + items)
        rows, items = np.divmod(pairs, max(len(index.sizes), 1))
        return rows, items


class _Wholes(NamedTuple):
    """Hashes, uint64, of whole texts or excerpts that have a word, and whose they are, int64."""

    hashes: np.ndarray
    rows: np.ndarray

    @classmethod
    def hashed(cls, hashed: NGrams, first: int) -> _Wholes:
        """Of texts that are hashed; `first`: row of the first."""
        rows = np.flatnonzero(hashed.n_words)
        return cls(hashed.wholes[rows], rows + first)

    @classmethod
    def of(cls, texts: pa.StringArray, n: int) -> _Wholes:
        """Of texts, a few megabytes at a time."""
        return cls.joined([cls.hashed(ngrams(texts[run], n), run.start) for run in slices(_sizes(texts))])

    @classmethod
    def joined(cls, parts: Sequence[_Wholes]) -> _Wholes:
        """All of them."""
        empty = cls(np.zeros(0, np.uint64), np.zeros(0, np.int64))
        return cls(*map(np.concatenate, zip(empty, *parts, strict=True)))


def _numbers(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The place of each value in sorted distinct ones, int64; -1 where it is not there."""
    if not len(ordered):
        return np.full(len(values), -1)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.where(ordered[places] == values, places, -1)


def _sizes(texts: pa.StringArray) -> np.ndarray:
    """Bytes of each text."""
    return np.asarray(pc.binary_length(texts).to_numpy(zero_copy_only=False))
