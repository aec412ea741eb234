"""Decontamination: documents that share n words in a row with an item of a benchmark, hold most of it, or are it.

    decontaminate: {benchmarks: [gsm8k_test.jsonl, math_test.jsonl], fields: [question, problem]}

A document is compared alone, whatever others hold, so that it has one verdict in every run and increment. An index of
the benchmarks' n-grams, sorted, stands in memory of each worker; what more than `max_items` items share is their
template and gives none of them away. The measures name the item by its file and line, and the files count by content
and by name (not by folder), since the name stands in the ledger.
Source: GPT-3, arXiv 2005.14165, appendix C (13 words); words and n-grams as in filters/overlap.py.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, first_reason
from gristmill.filters.overlap import Finder, HeldOut, Matches, Overlap, Texts
from gristmill.filters.text.docs import Docs

FIELDS = ("question", "problem", "prompt", "text")
_ANY = 1e-9
"""A share of an item's n-grams that each of them reaches: all pairs of a document and an item come back."""
_NEVER = np.iinfo(np.int64).max

_SCHEMA = pa.schema(
    [
        pa.field("same_item", pa.string()),  # whose words, in order, are all of the document's, or of an excerpt of it
        pa.field("n_ngrams", pa.int64()),  # the most different ones that the document has of one item
        pa.field("item", pa.string()),  # the first of those
        pa.field("share", pa.float64()),  # the greatest share of an item's n-grams that the document has
        pa.field("share_item", pa.string()),
    ]
)


@dataclass(frozen=True)
class Decontaminate(Filter[Docs]):
    """`benchmarks`: files with an item a line, JSON (`.gz` too), whose `fields` are each compared by themselves; a list
    is its strings end to end, and an item has at least one of them.

    `ngram`: words in a row; `max_items`: of an n-gram that more items share none is told (null: all are). A document
    with `min_ngrams` of one item is dropped, or with `min_share` of its n-grams; null: not for that. One with the words
    of a whole field, however few, is dropped in any case. Raises ValueError that names the field.
    """

    benchmarks: tuple[str, ...]
    fields: tuple[str, ...] = FIELDS
    ngram: int = 13
    max_items: int | None = 10
    min_ngrams: int | None = 1
    min_share: float | None = None

    name: ClassVar[str] = "decontaminate"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"same": "same_item", "ngrams": "item", "near": "share_item"}
    )
    measured_with: ClassVar[frozenset[str]] = frozenset({"benchmarks", "fields", "ngram", "max_items"})

    def __post_init__(self) -> None:
        names = [Path(path).name for path in self.benchmarks]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"benchmarks={list(self.benchmarks)}: name at least one file, no two of one name")
        if not self.fields:
            raise ValueError("fields=[]: name at least one field of the items")
        if self.min_ngrams is not None and self.min_ngrams < 1:
            raise ValueError(f"min_ngrams={self.min_ngrams}: at least 1, or null")
        if self.min_share is not None and not 0 < self.min_share <= 1:
            raise ValueError(f"min_share={self.min_share}: a share above 0, up to 1, or null")
        if self.max_items is not None and self.max_items < 1:
            raise ValueError(f"max_items={self.max_items}: at least 1, or null")
        self._overlap  # noqa: B018  # raises for an `ngram` that is not allowed

    @property
    def _overlap(self) -> Overlap:
        return Overlap(self.ngram, _NEVER if self.max_items is None else self.max_items, _ANY)

    @property
    def names(self) -> list[str]:
        """Of the benchmarks, without their folders, in order: what a recipe keeps of their addresses."""
        return sorted(Path(path).name for path in self.benchmarks)

    def check(self) -> None:
        """Whether the benchmarks can be read. Raises OSError, and ValueError for a line that is no item."""
        self._index()

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """What each document has of the items. Raises what `check` raises."""
        if not len(docs):  # also where the files are not: a replay asks for the schema
            return pa.RecordBatch.from_pylist([], schema=_SCHEMA)
        index = self._index()
        matches = index.finder.find(Texts(docs.texts.cast(pa.string()), docs.excerpts))
        rows = len(docs)
        same = np.full(rows, -1)
        same[matches.text_rows[::-1]] = matches.text_items[::-1]  # in order of rows and items: the first one stays
        counts, most = _greatest(matches, matches.near_shared, rows)
        shares, nearest = _greatest(matches, matches.near_shared / index.sizes[matches.near_items], rows)
        columns = [index.named(same), pa.array(counts.astype(np.int64)), index.named(most)]
        columns += [pa.array(shares.astype(np.float64)), index.named(nearest)]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The words of a whole field, then enough n-grams, then enough of an item's."""
        same = pc.is_valid(measures["same_item"]).to_numpy(zero_copy_only=False)
        tests = [("same", same)]
        for reason, column, least in (("ngrams", "n_ngrams", self.min_ngrams), ("near", "share", self.min_share)):
            values = measures[column].to_numpy(zero_copy_only=False)
            tests.append((reason, np.zeros(len(values), bool) if least is None else values >= least))
        return first_reason(self.name, measures.num_rows, tests)

    def config(self) -> dict[str, Any]:
        """The settings, and of each benchmark its name and what it holds, wherever it lies."""
        held = {Path(path).name: _digest(path) for path in self.benchmarks}
        return super().config() | {"benchmarks": dict(sorted(held.items()))}

    def _index(self) -> _Index:
        """Of this process; the benchmarks are read anew where their content is another."""
        files = tuple(sorted((Path(path).name, path, _digest(path)) for path in self.benchmarks))
        return _index_of(files, self.fields, self._overlap)


class _Index(NamedTuple):
    """Looks for items, which `names` has by number; `sizes`: n-grams of each."""

    finder: Finder
    names: pa.StringArray
    sizes: np.ndarray

    def named(self, items: np.ndarray) -> pa.StringArray:
        """The names of these items, null for -1."""
        return self.names.take(pa.array(items, pa.int64(), mask=items < 0))


def _greatest(matches: Matches, values: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The greatest value of each document and the first item that has it; 0 and -1 where there is none."""
    order = np.lexsort((matches.near_items, -values, matches.near_rows))
    of = matches.near_rows[order]
    first = order[np.concatenate([[True], of[1:] != of[:-1]])[: len(of)]]
    greatest, items = np.zeros(rows, values.dtype), np.full(rows, -1)
    greatest[matches.near_rows[first]] = values[first]
    items[matches.near_rows[first]] = matches.near_items[first]
    return greatest, items


@lru_cache(maxsize=4)
def _index_of(files: tuple[tuple[str, str, str], ...], fields: tuple[str, ...], overlap: Overlap) -> _Index:
    """`files`: (name, path, digest), so that another content is read anew."""
    names, texts = [], []
    for name, path, _ in files:
        for number, text in _items(path, fields):
            names.append(f"{name}:{number}")
            texts.append(text)
    index, _ = HeldOut.of(Texts(pa.array(texts, pa.string())), overlap)
    return _Index(Finder(index, overlap), pa.array(names, pa.string()), index.sizes)


def _items(path: str, fields: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line from 1, text) of each field of each item."""
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except ValueError:
                item = None
            texts = [_text(item[field]) for field in fields if field in item] if isinstance(item, dict) else []
            texts = [text for text in dict.fromkeys(texts) if text.strip()]
            if not texts:
                known = f"it has {', '.join(map(str, item))}" if isinstance(item, dict) else "it is no JSON object"
                raise ValueError(
                    f"line {number} of {path} has none of the fields {', '.join(fields)}: {known[:200]}."
                    " Name its text in decontaminate.fields"
                )
            for text in texts:
                yield number, text


def _text(value: object) -> str:
    """A string, or the strings of a list; nothing of anything else."""
    if isinstance(value, list):
        return " ".join(part for part in map(_text, value) if part)
    return value if isinstance(value, str) else ""


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
