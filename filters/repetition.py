"""Gopher's repetition rules with datatrove's decisions: paragraphs, lines and n-grams that a text says again.

Measures are what datatrove's `GopherRepetitionFilter` compares, and `rule` asks in its order. Words are datatrove's
English words, so documents in other languages are kept, with null measures. Unlike in datatrove a threshold of 0 is a
threshold; None switches a test off. n-grams are compared by a hash and then by what they are, so that the time is
linear and the decision exact.
Source: Rae et al. 2021, arXiv 2112.11446, table A1; datatrove 0.10.1, pipeline/filters/gopher_repetition_filter.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.filters.base import Filter, above, below, first_reason, ratio
from gristmill.filters.text.characters import RELEASES
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.measures import gram_repeats, line_repeats

TOP, DUPLICATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)
"""Words of the n-grams whose most frequent one counts, and of those of which all that stood before count."""

_SCHEMA = pa.schema(
    [
        pa.field("n_characters", pa.int64()),
        pa.field("repeated_paragraph_ratio", pa.float64()),  # paragraphs that stood before
        pa.field("repeated_paragraph_char_ratio", pa.float64()),  # their characters, of the text's
        pa.field("repeated_line_ratio", pa.float64()),
        pa.field("repeated_line_char_ratio", pa.float64()),
        *(pa.field(f"top_{n}_gram_char_ratio", pa.float64()) for n in TOP),
        *(pa.field(f"repeated_{n}_gram_char_ratio", pa.float64()) for n in DUPLICATED),
    ]
)
_EVIDENCE = {
    "empty": "n_characters",
    "repeated_paragraphs": "repeated_paragraph_ratio",
    "repeated_paragraph_chars": "repeated_paragraph_char_ratio",
    "repeated_lines": "repeated_line_ratio",
    "repeated_line_chars": "repeated_line_char_ratio",
    **{f"top_{n}_gram": f"top_{n}_gram_char_ratio" for n in TOP},
    **{f"repeated_{n}_grams": f"repeated_{n}_gram_char_ratio" for n in DUPLICATED},
}


@dataclass(frozen=True)
class GopherRepetition(Filter[Docs]):
    """Keeps documents of `languages` (ISO 639-1; empty = all, no labels needed) of which no more than these shares are
    repeated. Shares of n-grams are in characters of the text."""

    languages: tuple[str, ...] = ("en",)
    max_repeated_paragraphs: float | None = 0.3
    max_repeated_paragraph_chars: float | None = 0.2
    max_repeated_lines: float | None = 0.3
    max_repeated_line_chars: float | None = 0.2
    max_top_2_gram: float | None = 0.2
    max_top_3_gram: float | None = 0.18
    max_top_4_gram: float | None = 0.16
    max_repeated_5_grams: float | None = 0.15
    max_repeated_6_grams: float | None = 0.14
    max_repeated_7_grams: float | None = 0.13
    max_repeated_8_grams: float | None = 0.12
    max_repeated_9_grams: float | None = 0.11
    max_repeated_10_grams: float | None = 0.1

    name: ClassVar[str] = "gopher_repetition"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"languages"})
    releases: ClassVar[tuple[str, ...]] = RELEASES
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(_EVIDENCE)

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Measures of each document; nulls for one in another language, and for the ratios of an empty one.

        Raises ValueError if `languages` is not empty and the batch has no language labels.
        """
        asked = docs.rows_in(self.languages)
        repeats = line_repeats(docs.buffers, asked)
        top, duplicated = gram_repeats(docs.words(asked), TOP, DUPLICATED)
        characters = repeats.characters
        filled = np.where(characters > 0, repeats.paragraphs, 0)
        columns = [
            pa.array(characters, mask=~asked),
            ratio(repeats.repeated_paragraphs, filled),
            ratio(repeats.paragraph_characters, characters),
            ratio(repeats.repeated_lines, np.where(characters > 0, repeats.lines, 0)),
            ratio(repeats.line_characters, characters),
            *(ratio(part, characters) for part in (*top, *duplicated)),
        ]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails, in datatrove's order, from measures alone."""
        tests = [("empty", below(measures["n_characters"], 1))]
        for reason, column in list(_EVIDENCE.items())[1:]:
            tests.append((reason, above(measures[column], getattr(self, f"max_{reason}"))))
        return first_reason(self.name, measures.num_rows, tests)
