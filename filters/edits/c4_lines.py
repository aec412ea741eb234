"""C4's line removal: the text that datatrove's `C4QualityFilter` writes back, where its filter keeps a document.

Lines without terminal punctuation, of few words, with a word that is too long, with javascript or a policy go; citation
marks go from the others. What is left stands a line each, stripped at both ends. Which documents C4 drops is
`C4Quality`'s to say, before.
Source: Raffel et al. 2020, arXiv 1910.10683, 2.2; datatrove 0.10.1, pipeline/filters/c4_filters.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.filters.edits.base import Edit, Edited
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.measures import KEPT, LineRules, ruled_lines


@dataclass(frozen=True)
class C4Lines(Edit):
    """Edits documents of `languages` (ISO 639-1; empty = all, no labels needed); None switches a rule off.

    Counts: `lines` that went.
    """

    languages: tuple[str, ...] = ("en",)
    terminal_punctuation: bool = True
    min_words_per_line: int | None = 3
    max_word_length: int | None = 1000
    javascript: bool = True
    policy: bool = True
    remove_citations: bool = True

    name: ClassVar[str] = "c4_lines"
    VERSION: ClassVar[int] = 1

    @property
    def counted(self) -> tuple[str, ...]:
        return ("lines",)

    @property
    def asked_languages(self) -> tuple[str, ...]:
        return self.languages

    @property
    def line_rules(self) -> LineRules:
        """Which lines stay."""
        return LineRules(
            max_word_length=self.max_word_length,
            remove_citations=self.remove_citations,
            terminal_punctuation=self.terminal_punctuation,
            min_words=self.min_words_per_line,
            javascript=self.javascript,
            policy=self.policy,
        )

    def edit(self, docs: Docs) -> Edited:
        """The lines that stay, joined by newlines; documents in other languages as they came.

        Raises ValueError if `languages` is not empty and the batch has no language labels.
        """
        asked = docs.rows_in(self.languages)
        ruled = ruled_lines(docs.buffers, asked, self.line_rules)
        stays = ruled.state == KEPT
        rows = len(docs)
        kept = np.bincount(ruled.row[stays], minlength=rows)
        ends, lines = np.cumsum(kept).tolist(), ruled.kept.to_pylist()
        texts = [
            "\n".join(lines[end - n : end]).strip() if is_asked else text  # Python's strip, as there
            for n, end, text, is_asked in zip(kept.tolist(), ends, docs.strings, asked.tolist(), strict=True)
        ]
        gone = np.bincount(ruled.row[~stays], minlength=rows).astype(np.int64)
        return Edited(pa.array(texts, pa.string()), pa.record_batch([pa.array(gone)], names=list(self.counted)))
