"""Gopher's quality rules with datatrove's decisions: length, symbols, bullets, ellipses, letters, stop words.

Measures are what datatrove's `GopherQualityFilter` compares, in float64 as it computes them, and `rule` asks in its
order, after one test of ours (`max_symbol_run`). Words are datatrove's English words, so documents in other languages
are kept, with null measures. Unlike in datatrove a threshold of 0 is a threshold; None switches a test off. A text of
no words at all has null ratios where datatrove divides by zero (its defaults never get there).
Source: Rae et al. 2021, arXiv 2112.11446, A1.1; datatrove 0.10.1, pipeline/filters/gopher_quality_filter.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from gristmill.filters.base import Filter, above, below, first_reason, ratio
from gristmill.filters.text.characters import RELEASES
from gristmill.filters.text.docs import Docs

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_SCHEMA = pa.schema(
    [
        pa.field("longest_symbol_run", pa.int64()),  # symbols in a row; 0 for runs of less than 16
        pa.field("n_words", pa.int64()),  # tokens that are not only punctuation
        pa.field("mean_word_length", pa.float64()),  # characters, over those
        pa.field("hash_ratio", pa.float64()),  # "#" a token
        pa.field("ellipsis_ratio", pa.float64()),  # "..." and "…" a token
        pa.field("bullet_line_ratio", pa.float64()),  # lines that start with "•" or "-"
        pa.field("ellipsis_line_ratio", pa.float64()),  # lines that end with "..." or "…"
        pa.field("alpha_word_ratio", pa.float64()),  # tokens with a letter
        pa.field("n_stop_words", pa.int64()),  # different ones
    ]
)


@dataclass(frozen=True)
class GopherQuality(Filter[Docs]):
    """Keeps documents of `languages` (ISO 639-1; empty = all, no labels needed) that pass every test.

    `max_symbol_run` is not datatrove's: its tokenizer takes time quadratic in the length of a run of symbols (8,000 of
    `(` take seconds, a megabyte a day), so a document with a longer run is told by it alone and never tokenized.
    """

    languages: tuple[str, ...] = ("en",)
    max_symbol_run: int | None = 1000
    min_words: int | None = 50
    max_words: int | None = 100_000
    min_mean_word_length: float | None = 3
    max_mean_word_length: float | None = 10
    max_symbol_ratio: float | None = 0.1
    max_bullet_line_ratio: float | None = 0.9
    max_ellipsis_line_ratio: float | None = 0.3
    min_alpha_word_ratio: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: tuple[str, ...] = STOP_WORDS

    name: ClassVar[str] = "gopher_quality"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"languages", "max_symbol_run", "stop_words"})
    releases: ClassVar[tuple[str, ...]] = RELEASES
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "symbol_run_too_long": "longest_symbol_run",
            "too_few_words": "n_words",
            "too_many_words": "n_words",
            "mean_word_length_low": "mean_word_length",
            "mean_word_length_high": "mean_word_length",
            "too_many_hashes": "hash_ratio",
            "too_many_ellipses": "ellipsis_ratio",
            "too_many_bullet_lines": "bullet_line_ratio",
            "too_many_ellipsis_lines": "ellipsis_line_ratio",
            "too_few_alpha_words": "alpha_word_ratio",
            "too_few_stop_words": "n_stop_words",
        }
    )

    def unmeasured(self, other: Self) -> tuple[str, ...]:
        """As of any filter; but a shorter `max_symbol_run` asks only for what was measured: it is the first test, and
        the longest run is known of every document."""
        fields = super().unmeasured(other)
        longest, asked = self.max_symbol_run, other.max_symbol_run
        if asked is not None and (longest is None or asked <= longest):
            return tuple(name for name in fields if name != "max_symbol_run")
        return fields

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Measures of each document; nulls for one in another language.

        Raises ValueError if `languages` is not empty and the batch has no language labels.
        """
        asked = docs.rows_in(self.languages)
        symbols = docs.symbols(asked)
        runs = symbols.longest_run
        rows = asked if self.max_symbol_run is None else asked & (runs <= self.max_symbol_run)
        words = docs.words(rows)
        n_lines = np.where(rows, symbols.n_lines, 0)
        columns = [
            pa.array(runs, mask=~asked),
            pa.array(words.n_words, mask=~rows),
            ratio(words.word_chars, words.n_words),
            ratio(symbols.hashes, words.n_tokens),
            ratio(symbols.ellipses, words.n_tokens),
            ratio(symbols.bullet_lines, n_lines),
            ratio(symbols.ellipsis_lines, n_lines),
            ratio(words.n_alpha, words.n_tokens),
            pa.array(words.n_distinct(self.stop_words), mask=~rows),
        ]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails, in datatrove's order, from measures alone."""
        m = measures.column
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("symbol_run_too_long", above(m("longest_symbol_run"), self.max_symbol_run)),
                ("too_few_words", below(m("n_words"), self.min_words)),
                ("too_many_words", above(m("n_words"), self.max_words)),
                ("mean_word_length_low", below(m("mean_word_length"), self.min_mean_word_length)),
                ("mean_word_length_high", above(m("mean_word_length"), self.max_mean_word_length)),
                ("too_many_hashes", above(m("hash_ratio"), self.max_symbol_ratio)),
                ("too_many_ellipses", above(m("ellipsis_ratio"), self.max_symbol_ratio)),
                ("too_many_bullet_lines", above(m("bullet_line_ratio"), self.max_bullet_line_ratio)),
                ("too_many_ellipsis_lines", above(m("ellipsis_line_ratio"), self.max_ellipsis_line_ratio)),
                ("too_few_alpha_words", below(m("alpha_word_ratio"), self.min_alpha_word_ratio)),
                ("too_few_stop_words", below(m("n_stop_words"), self.min_stop_words)),
            ],
        )
