"""Gopher's and FineWeb's rules for languages other than English: the thresholds of each document's own language.

Thresholds and stop words stand in one table (`filters/text/languages.py`), words are plain ones, so no tokenizer is
needed; a language that the table does not have is asked what Gopher asks of any. Rules go in FineWeb-2's order:
repetition, lines, words. Measures are stored with the language, so that all of it is replayed.
Source: Penedo et al. 2025, arXiv 2506.20920, and its pipeline, fineweb-2-pipeline.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.filters.base import Filter, above, below, first_reason, ratio
from gristmill.filters.text.characters import RELEASES
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.languages import LANGUAGES, OTHERS, Thresholds, thresholds
from gristmill.filters.text.measures import gram_repeats, line_repeats, lines

TOP, REPEATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)
_SCHEMA = pa.schema(
    [
        pa.field("language", pa.string()),  # whose thresholds are asked; null: none are
        pa.field(
            "n_words", pa.float64()
        ),  # tokens that are not only punctuation; of characters, how many words they are
        pa.field("mean_word_length", pa.float64()),
        pa.field("alpha_word_ratio", pa.float64()),  # tokens with a letter
        pa.field("n_stop_words", pa.int64()),  # different ones; null where the language has no list
        pa.field("hash_ratio", pa.float64()),
        pa.field("ellipsis_ratio", pa.float64()),
        pa.field("bullet_line_ratio", pa.float64()),
        pa.field("ellipsis_line_ratio", pa.float64()),
        pa.field("repeated_line_ratio", pa.float64()),
        *(pa.field(f"top_{n}_gram_char_ratio", pa.float64()) for n in TOP),
        *(pa.field(f"repeated_{n}_gram_char_ratio", pa.float64()) for n in REPEATED),
        pa.field("ending_line_ratio", pa.float64()),
        pa.field("repeated_char_ratio", pa.float64()),
        pa.field("newlines_per_word", pa.float64()),
    ]
)
_EVIDENCE = {
    "repeated_lines": "repeated_line_ratio",
    **{f"top_{n}_gram": f"top_{n}_gram_char_ratio" for n in TOP},
    **{f"repeated_{n}_grams": f"repeated_{n}_gram_char_ratio" for n in REPEATED},
    "too_few_ending_lines": "ending_line_ratio",
    "too_many_repeated_chars": "repeated_char_ratio",
    "too_many_newlines": "newlines_per_word",
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


@dataclass(frozen=True)
class LanguageQuality(Filter[Docs]):
    """Keeps documents of `languages` (ISO 639-1; empty = all that are labelled) but not `besides` that pass every test.

    What is asked of every language alike is a field; the rest is the table's. FineWeb-2 asks for .1 of repeated
    characters where FineWeb asks for .01 in English.
    """

    languages: tuple[str, ...] = ()
    besides: tuple[str, ...] = ("en",)
    min_words: float | None = 50
    max_words: float | None = 100_000
    min_stop_words: int | None = 2
    max_symbol_ratio: float | None = 0.1
    max_bullet_line_ratio: float | None = 0.9
    max_ellipsis_line_ratio: float | None = 0.3
    max_repeated_chars: float | None = 0.1

    name: ClassVar[str] = "language_quality"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"languages", "besides"})
    releases: ClassVar[tuple[str, ...]] = RELEASES
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(_EVIDENCE)

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Measures of each document; nulls for one in a language that is not asked.

        Raises ValueError if the batch has no language labels.
        """
        labels = self._labels(docs)
        asked = np.array([label is not None for label in labels], bool)
        words, symbols = docs.plain_words(asked), docs.symbols(asked)
        repeats, counted = line_repeats(docs.buffers, asked), lines(docs.buffers, asked, 0)
        top, repeated = gram_repeats(words, TOP, REPEATED)
        a_word = np.array([thresholds(label).words for label in labels])
        stop_words = np.zeros(len(docs), np.int64)
        listed = np.zeros(len(docs), bool)
        for language in sorted({label for label in labels if label in LANGUAGES}):
            own = np.array([label == language for label in labels], bool)
            stop_words[own] = words.n_distinct(LANGUAGES[language].stop_words)[own]
            listed |= own
        columns = [
            pa.array(labels, pa.string()),
            pa.array(words.n_words / a_word, mask=~asked),
            ratio(words.word_chars, words.n_words),
            ratio(words.n_alpha, words.n_tokens),
            pa.array(stop_words, mask=~listed),
            ratio(symbols.hashes * a_word, words.n_tokens),
            ratio(symbols.ellipses * a_word, words.n_tokens),
            ratio(symbols.bullet_lines, symbols.n_lines),
            ratio(symbols.ellipsis_lines, symbols.n_lines),
            ratio(repeats.repeated_lines, np.where(repeats.characters > 0, repeats.lines, 0)),
            *(ratio(part, repeats.characters) for part in (*top, *repeated)),
            ratio(counted.ending, counted.n_lines),
            ratio(counted.repeated_characters, counted.characters * (counted.n_lines > 0)),
            ratio(counted.newlines * a_word, words.n_tokens),
        ]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails, in FineWeb-2's order, from measures alone."""
        m = measures.column
        rows = [thresholds(label) for label in m("language").to_pylist()]

        def over(column: str, limit: Callable[[Thresholds], float | None]) -> np.ndarray:
            return _numbers(m(column)) > _limits(rows, limit)

        def under(column: str, limit: Callable[[Thresholds], float | None]) -> np.ndarray:
            return _numbers(m(column)) < _limits(rows, limit)

        tests = [("repeated_lines", over("repeated_line_ratio", lambda t: t.max_repeated_lines))]
        for i, n in enumerate(TOP):
            tests.append((f"top_{n}_gram", over(f"top_{n}_gram_char_ratio", lambda t, i=i: t.top[i])))  # type: ignore[misc]
        for i, n in enumerate(REPEATED):
            column = f"repeated_{n}_gram_char_ratio"
            tests.append((f"repeated_{n}_grams", over(column, lambda t, i=i: t.repeated[i])))  # type: ignore[misc]
        tests += [
            ("too_few_ending_lines", under("ending_line_ratio", lambda t: t.min_ending_lines)),
            ("too_many_repeated_chars", above(m("repeated_char_ratio"), self.max_repeated_chars)),
            ("too_many_newlines", over("newlines_per_word", lambda t: t.max_newlines_per_word)),
            ("too_few_words", below(m("n_words"), self.min_words)),
            ("too_many_words", above(m("n_words"), self.max_words)),
            ("mean_word_length_low", under("mean_word_length", lambda t: t.min_mean_word_length)),
            ("mean_word_length_high", over("mean_word_length", lambda t: t.max_mean_word_length)),
            ("too_many_hashes", above(m("hash_ratio"), self.max_symbol_ratio)),
            ("too_many_ellipses", above(m("ellipsis_ratio"), self.max_symbol_ratio)),
            ("too_many_bullet_lines", above(m("bullet_line_ratio"), self.max_bullet_line_ratio)),
            ("too_many_ellipsis_lines", above(m("ellipsis_line_ratio"), self.max_ellipsis_line_ratio)),
            ("too_few_alpha_words", under("alpha_word_ratio", lambda t: t.min_alpha_words)),
            ("too_few_stop_words", below(m("n_stop_words"), self.min_stop_words)),
        ]
        return first_reason(self.name, measures.num_rows, tests)

    def config(self) -> dict[str, Any]:
        """The fields, and a digest of the table, which decides as they do."""
        rows = [("", asdict(OTHERS)), *((name, asdict(row)) for name, row in sorted(LANGUAGES.items()))]
        return super().config() | {"table_sha256": hashlib.sha256(repr(rows).encode()).hexdigest()}

    def _labels(self, docs: Docs) -> list[str | None]:
        """The language of each document that is asked, else None."""
        docs.rows_in(("any",))  # raises where nobody labelled the batch
        assert docs.languages is not None
        labels: list[str | None] = docs.languages.to_pylist()
        wanted = self.languages
        return [label if label not in self.besides and (not wanted or label in wanted) else None for label in labels]


def _numbers(values: pa.Array) -> np.ndarray:
    """float64 [rows], NaN for null: neither over nor under anything."""
    numbers: np.ndarray = values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return numbers


def _limits(rows: list[Thresholds], limit: Callable[[Thresholds], float | None]) -> np.ndarray:
    """The threshold of each row, float64, NaN for None."""
    limits = [limit(row) for row in rows]
    return np.array([np.nan if value is None else value for value in limits], np.float64)
