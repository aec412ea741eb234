"""C4's rules with datatrove's decisions: pages of lorem ipsum, of code, of too few sentences once bad lines are gone.

datatrove's `C4QualityFilter` also rewrites the text: lines without terminal punctuation, with javascript or policies
go, citation marks too. A filter never edits, so this one counts as if those lines were gone; `c4_lines` takes them away
(filters/edits/c4_lines.py). Sentences are spaCy's, so documents in other languages are kept, with null measures. None
switches a test off.
Source: Raffel et al. 2020, arXiv 1910.10683, 2.2; datatrove 0.10.1, pipeline/filters/c4_filters.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, below, first_reason
from gristmill.filters.text.characters import RELEASES
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.measures import (
    FEW_WORDS,
    KEPT,
    LONG_WORD,
    NO_TERMINAL,
    POLICY,
    SCRIPT,
    LineRules,
    RuledLines,
    ruled_lines,
)
from gristmill.filters.text.words import english_words

_STATES = {
    "n_long_word_lines": LONG_WORD,  # lines with a word of more characters than `max_word_length`
    "n_unending_lines": NO_TERMINAL,  # without terminal punctuation
    "n_few_word_lines": FEW_WORDS,
    "n_javascript_lines": SCRIPT,
    "n_policy_lines": POLICY,
    "n_kept_lines": KEPT,
}
_SCHEMA = pa.schema(
    [
        pa.field("lorem_ipsum_line", pa.int64()),  # the first with it of lines that are asked, from 0; null: none
        pa.field("curly_bracket_line", pa.int64()),
        pa.field("n_sentences", pa.int64()),  # of the lines that are kept
        *(pa.field(name, pa.int64()) for name in _STATES),
    ]
)


@dataclass(frozen=True)
class C4Quality(LineRules, Filter[Docs]):
    """Keeps documents of `languages` (ISO 639-1; empty = all, no labels needed) that pass every test.

    Its rules for lines say which lines count; they are measured with: another value is another measure.
    """

    languages: tuple[str, ...] = ("en",)
    lorem_ipsum: bool = True
    curly_bracket: bool = True
    min_sentences: int | None = 5

    name: ClassVar[str] = "c4_quality"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"languages", *(rule.name for rule in fields(LineRules))})
    releases: ClassVar[tuple[str, ...]] = RELEASES
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "lorem_ipsum": "lorem_ipsum_line",
            "curly_bracket": "curly_bracket_line",
            "too_few_sentences": "n_sentences",
        }
    )

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Measures of each document; nulls for one in another language.

        Raises ValueError if `languages` is not empty and the batch has no language labels.
        """
        asked = docs.rows_in(self.languages)
        ruled = ruled_lines(docs.buffers, asked, self)
        kept_rows = ruled.row[ruled.state == KEPT]
        sentences = np.zeros(len(docs), np.int64)
        np.add.at(sentences, kept_rows, english_words().split(ruled.kept).n_sentences())
        counts = [np.bincount(ruled.row[ruled.state == state], minlength=len(docs)) for state in _STATES.values()]
        columns = [
            _first(ruled, ruled.lorem, len(docs)),
            _first(ruled, ruled.bracket, len(docs)),
            *(pa.array(count.astype(np.int64), mask=~asked) for count in (sentences, *counts)),
        ]
        return pa.record_batch(columns, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails, in datatrove's order, from measures alone: of lorem ipsum and bracket what stands
        in the earlier line."""
        never = np.iinfo(np.int64).max
        lorem, bracket = (
            pc.fill_null(measures[name], never).to_numpy(zero_copy_only=False)
            for name in ("lorem_ipsum_line", "curly_bracket_line")
        )
        lorem = lorem if self.lorem_ipsum else np.full_like(lorem, never)
        bracket = bracket if self.curly_bracket else np.full_like(bracket, never)
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("lorem_ipsum", (lorem < never) & (lorem <= bracket)),
                ("curly_bracket", bracket < never),
                ("too_few_sentences", below(measures["n_sentences"], self.min_sentences)),
            ],
        )


def _first(ruled: RuledLines, marked: np.ndarray, rows: int) -> pa.Int64Array:
    """The number within its text of the first line that is marked, null where none is."""
    first = np.full(rows, -1, np.int64)
    starts = np.searchsorted(ruled.row, np.arange(rows))
    places = np.flatnonzero(marked)[::-1]  # so that the first one is written last
    first[ruled.row[places]] = places - starts[ruled.row[places]]
    return pa.array(first, mask=first < 0)
