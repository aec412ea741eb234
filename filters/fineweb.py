"""FineWeb's quality rules with datatrove's decisions: lines that end no sentence, short lines, repeated lines, lists.

Measures are what datatrove's `FineWebQualityFilter` compares, and `rule` asks in its order. Words are datatrove's
English words, so documents in other languages are kept, with null measures. A text without a word has a null
`newlines_per_word` where datatrove divides by zero. A threshold of 0 is a threshold; None switches a test off.
Source: Penedo et al. 2024, arXiv 2406.17557; datatrove 0.10.1, pipeline/filters/fineweb_quality_filter.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, above, below, first_reason, ratio
from gristmill.filters.text.characters import RELEASES
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.measures import lines

_SCHEMA = pa.schema(
    [
        pa.field("n_lines", pa.int64()),  # that are not blank
        pa.field("ending_line_ratio", pa.float64()),  # lines that end with terminal punctuation
        pa.field("short_line_ratio", pa.float64()),  # lines of at most `short_line_length` characters
        pa.field("repeated_char_ratio", pa.float64()),  # characters of lines that stood before
        pa.field("newlines_per_word", pa.float64()),
    ]
)


@dataclass(frozen=True)
class FineWebQuality(Filter[Docs]):
    """Keeps documents of `languages` (ISO 639-1; empty = all, no labels needed) that pass every test.

    `short_line_length` is measured with: another value is another measure. `exclude_zero_endings`: a document without
    any line that ends a sentence is not dropped for it.
    """

    languages: tuple[str, ...] = ("en",)
    min_ending_lines: float | None = 0.12
    exclude_zero_endings: bool = False
    max_short_lines: float | None = 0.67
    short_line_length: int = 30
    max_repeated_chars: float | None = 0.01
    max_newlines_per_word: float | None = 0.3

    name: ClassVar[str] = "fineweb_quality"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"languages", "short_line_length"})
    releases: ClassVar[tuple[str, ...]] = RELEASES
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "empty": "n_lines",
            "too_few_ending_lines": "ending_line_ratio",
            "too_many_short_lines": "short_line_ratio",
            "too_many_repeated_chars": "repeated_char_ratio",
            "too_many_newlines": "newlines_per_word",
        }
    )

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Measures of each document; nulls for one in another language.

        Raises ValueError if `languages` is not empty and the batch has no language labels.
        """
        asked = docs.rows_in(self.languages)
        counted = lines(docs.buffers, asked, self.short_line_length)
        filled = asked & (counted.n_lines > 0)
        columns = [
            pa.array(counted.n_lines, mask=~asked),
            ratio(counted.ending, counted.n_lines),
            ratio(counted.short, counted.n_lines),
            ratio(counted.repeated_characters, counted.characters * filled),
            ratio(counted.newlines, docs.words(asked).n_tokens),
        ]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails, in datatrove's order, from measures alone."""
        m = measures.column
        few = below(m("ending_line_ratio"), self.min_ending_lines)
        if self.exclude_zero_endings:
            none = pc.fill_null(pc.equal(m("ending_line_ratio"), 0.0), False)
            few = few & ~none.to_numpy(zero_copy_only=False)
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("empty", below(m("n_lines"), 1)),
                ("too_few_ending_lines", few),
                ("too_many_short_lines", above(m("short_line_ratio"), self.max_short_lines)),
                ("too_many_repeated_chars", above(m("repeated_char_ratio"), self.max_repeated_chars)),
                ("too_many_newlines", above(m("newlines_per_word"), self.max_newlines_per_word)),
            ],
        )
