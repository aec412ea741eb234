"""A batch of documents, with what filters share computed at most once: strings, symbols, words.

Everything is lazy, so that a filter pays only for what it looks at, and words are split only for the rows
asked for (those of a filter's languages). Rows keep their order and number: a batch is never sliced by a
filter. `languages` is None until somebody knows: the input's own labels, or the language filter, whose
`measure` fills it. Docs hold no verdicts and no ids; a stage joins verdicts to its records by row.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.signatures.tables import buffers
from gristmill.filters.text.batch import Words
from gristmill.filters.text.measures import Symbols, symbols
from gristmill.filters.text.words import english_words, plain_words


class Docs:
    """A batch of documents.

    texts: string [rows], no nulls. urls: string [rows] or None. languages: ISO 639-1 labels, string [rows]
    (null = unknown), or None = not known for the whole batch. Raises TypeError or ValueError otherwise.
    declared: what their sources say of their use (columns of `filters.rights`), or None = nobody looked.
    """

    columns: ClassVar[tuple[str, ...]] = ("text", "url")

    def __init__(
        self,
        texts: pa.StringArray,
        urls: pa.StringArray | None = None,
        languages: pa.StringArray | None = None,
    ) -> None:
        if not isinstance(texts, pa.StringArray | pa.LargeStringArray):
            raise TypeError(f"Docs: texts is a {type(texts).__name__}; pass a pyarrow string array")
        if texts.null_count:
            raise ValueError(
                f"Docs: {texts.null_count} of {len(texts)} texts are null; a record without text has to be "
                "dropped or quarantined before it is filtered (an empty text is allowed)"
            )
        self.texts = texts
        self.urls = self._column("urls", urls)
        self._languages = self._column("languages", languages)
        self.declared: pa.RecordBatch | None = None
        self._words: dict[bytes, Words] = {}
        self._plain_words: dict[bytes, Words] = {}
        self._symbols: dict[bytes, Symbols] = {}

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """The documents of a table with `columns`."""
        return cls(rows["text"], urls=rows["url"])

    @classmethod
    def empty(cls) -> Self:
        """A batch of no documents."""
        return cls(pa.array([], pa.string()), urls=pa.array([], pa.string()))

    @property
    def sizes(self) -> pa.Array:
        """UTF-8 bytes of each text, int32 [rows]."""
        return pc.binary_length(self.texts)

    @property
    def excerpts(self) -> tuple[pa.StringArray, ...]:
        """What of each text is compared with others as if it were a document, as a sample's prompt is."""
        return ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def languages(self) -> pa.StringArray | None:
        """ISO 639-1 label of each document, or None when nobody has labelled the batch yet."""
        return self._languages

    @languages.setter
    def languages(self, labels: pa.StringArray) -> None:
        self._languages = self._column("languages", labels)

    @cached_property
    def buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, int64 [rows + 1]; UTF-8 bytes) of the texts, as compiled kernels take them."""
        return buffers("Docs", self.texts)

    @cached_property
    def strings(self) -> list[str]:
        """The texts as Python strings, [rows]."""
        return self.texts.to_pylist()

    def rows_in(self, languages: Iterable[str]) -> np.ndarray:
        """Which documents are in one of these languages, bool [rows]; all of them if `languages` is empty.

        Raises ValueError if languages are asked for and the batch has no labels.
        """
        wanted = tuple(languages)
        if not wanted:
            return np.ones(len(self), dtype=bool)
        if self._languages is None:
            raise ValueError(
                f"Docs: rows in {wanted} were asked for, but this batch has no language labels; "
                "run the language filter first, pass Docs(languages=...), or give the filter languages=() "
                "to apply it to every document"
            )
        hit = pc.is_in(self._languages, value_set=pa.array(wanted, self._languages.type))
        return hit.to_numpy(zero_copy_only=False)

    def symbols(self, rows: np.ndarray) -> Symbols:
        """Symbols and lines of the documents where `rows` (bool [rows]) is true, else zeros."""
        key = np.packbits(rows).tobytes()
        if key not in self._symbols:
            self._symbols[key] = symbols(self.buffers, rows)
        return self._symbols[key]

    def words(self, rows: np.ndarray | None = None) -> Words:
        """English words of the documents where `rows` (bool [rows], None = all) is true, else none."""
        chosen = np.ones(len(self), dtype=bool) if rows is None else rows
        key = np.packbits(chosen).tobytes()
        if key not in self._words:
            self._words[key] = english_words().split(self.texts, chosen)
        return self._words[key]

    def plain_words(self, rows: np.ndarray) -> Words:
        """Words as in any language (filters/text/plain.py) of the documents where `rows` (bool [rows]) is true."""
        key = np.packbits(rows).tobytes()
        if key not in self._plain_words:
            self._plain_words[key] = plain_words().split(self.texts, rows)
        return self._plain_words[key]

    def _column(self, name: str, values: pa.StringArray | None) -> pa.StringArray | None:
        if values is None:
            return None
        if not isinstance(values, pa.StringArray | pa.LargeStringArray):
            raise TypeError(f"Docs: {name} is a {type(values).__name__}; pass a pyarrow string array")
        if len(values) != len(self.texts):
            raise ValueError(f"Docs: {len(values)} {name} for {len(self.texts)} texts; give one a text")
        return values
