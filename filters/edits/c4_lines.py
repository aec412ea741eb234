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
class C4Lines(LineRules, Edit):
    """Edits documents of `languages` (ISO 639-1; empty = all, no labels needed) by its rules for lines.

    Counts: `lines` that went.
    """

    languages: tuple[str, ...] = ("en",)

    name: ClassVar[str] = "c4_lines"
    VERSION: ClassVar[int] = 1
    releases: ClassVar[tuple[str, ...]] = ("datatrove",)  # whose terminal punctuation it is

    @property
    def counted(self) -> tuple[str, ...]:
        return ("lines",)

    @property
    def asked_languages(self) -> tuple[str, ...]:
        return self.languages

    def edit(self, docs: Docs) -> Edited:
        """The lines that stay, joined by newlines; documents in other languages as they came.

        Raises ValueError if `languages` is not empty and the batch has no language labels.
        """
        asked = docs.rows_in(self.languages)
        ruled = ruled_lines(docs.buffers, asked, self)
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
