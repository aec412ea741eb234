"""Captions: length, repetition, boilerplate. What is learned beside images, and was written for another purpose.

Alternative texts of the web are file names, buttons and notes of cameras; captions of models repeat themselves. Only
records whose text is a caption are asked: the answer to a question may be one word. `Captions` is a batch of documents
as text filters know them, whose text is what is learned, so that the language filter applies to it as it is.
Source: Gadre et al. 2023, arXiv 2304.14108, appendix F (more than 5 characters, 2 words); Rae et al. 2021, A1.1
(repetition).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from gristmill.filters.base import Filter, above, below, first_reason
from gristmill.filters.text.docs import Docs

_WORD = re.compile(r"\w+")
_FILE_NAME = r"[\w\-. ()]{1,200}\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|avif)"
_CAMERA = r"(?:img|dsc[fn]?|pict|image|photo|picture|untitled|screenshot|scan)[\s_\-]{0,3}\d{0,12}"
BOILERPLATE = (
    _FILE_NAME,
    _CAMERA,
    r"click (?:here|to (?:enlarge|zoom|view))\b.{0,100}",
    r"(?:no )?image(?: not)? available",
)
"""Whole captions, whatever their case, that say nothing of a picture."""

_SCHEMA = pa.schema(
    [
        pa.field("n_characters", pa.int64()),
        pa.field("n_words", pa.int64()),
        pa.field("repeated_ratio", pa.float64()),  # words beyond the first of each three in a row that came before
        pa.field("is_boilerplate", pa.int8()),  # 1: a whole caption of `boilerplate`
    ]
)


class Captions(Docs):
    """What is learned of each record, as documents. `is_caption`: bool [rows]."""

    columns: ClassVar[tuple[str, ...]] = ("learned", "url", "is_caption", "bytes")

    def __init__(self, learned: pa.StringArray, urls: pa.StringArray, is_caption: np.ndarray, sizes: pa.Array) -> None:
        super().__init__(learned, urls=urls)
        self.is_caption, self._sizes = is_caption, sizes

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """Those of a table with `columns`."""
        is_caption = rows["is_caption"].to_numpy(zero_copy_only=False)
        return cls(rows["learned"], rows["url"], is_caption, rows["bytes"])

    @classmethod
    def empty(cls) -> Self:
        """A batch of no records."""
        texts = pa.array([], pa.string())
        return cls(texts, texts, np.zeros(0, bool), pa.array([], pa.int64()))

    @property
    def sizes(self) -> pa.Array:
        """Bytes of each record, its media among them."""
        return self._sizes


@dataclass(frozen=True)
class CaptionQuality(Filter[Captions]):
    """Keeps captions that pass every test, and every record that is none. `boilerplate`: regular expressions, each of
    a whole caption without its edges, in any case. Raises ValueError for one that is none."""

    min_characters: int | None = 6
    max_characters: int | None = 10_000
    min_words: int | None = None
    max_words: int | None = None
    max_repeated_ratio: float | None = 0.3
    boilerplate: tuple[str, ...] = BOILERPLATE

    name: ClassVar[str] = "caption"
    VERSION: ClassVar[int] = 1
    measured_with: ClassVar[frozenset[str]] = frozenset({"boilerplate"})
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "too_short": "n_characters",
            "too_long": "n_characters",
            "boilerplate": "is_boilerplate",
            "too_few_words": "n_words",
            "too_many_words": "n_words",
            "repetitive": "repeated_ratio",
        }
    )

    def __post_init__(self) -> None:
        for pattern in self.boilerplate:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"boilerplate: {pattern!r} is no regular expression: {error}") from None

    def measure(self, captions: Captions, /) -> pa.RecordBatch:
        """Of each caption; nulls for what is none."""
        patterns = [re.compile(pattern, re.IGNORECASE) for pattern in self.boilerplate]
        rows = [
            _measured(text.strip(), patterns) if is_caption else {}
            for text, is_caption in zip(captions.strings, captions.is_caption.tolist(), strict=True)
        ]
        return pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails."""
        m = measures.column
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("too_short", below(m("n_characters"), self.min_characters)),
                ("too_long", above(m("n_characters"), self.max_characters)),
                ("boilerplate", above(m("is_boilerplate"), 0)),
                ("too_few_words", below(m("n_words"), self.min_words)),
                ("too_many_words", above(m("n_words"), self.max_words)),
                ("repetitive", above(m("repeated_ratio"), self.max_repeated_ratio)),
            ],
        )


def _measured(text: str, patterns: list[re.Pattern[str]]) -> dict[str, float]:
    words = _WORD.findall(text.lower())
    threes = Counter(zip(words, words[1:], words[2:], strict=False))
    # Where a caption goes on in a loop, every three words but the first round of them have been there before.
    repeated = sum(count - 1 for count in threes.values())
    return {
        "n_characters": len(text),
        "n_words": len(words),
        "repeated_ratio": repeated / max(1, len(words)),
        "is_boilerplate": int(any(pattern.fullmatch(text) for pattern in patterns)),
    }
