"""A batch of records with clips, as filters look at them: how long, how loud, what is said. No sample is touched.

Columns are those that forming leaves beside the media (stages/speech/form.py), so that a screen reads kilobytes where
the clips are gigabytes. `Transcripts` is a batch of documents as text filters know them, whose text is what is learned.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.text.docs import Docs

LEVELS = ("peaks", "silent", "clipped")


class Clips:
    """`samples`, `rates`, `depths`: of each clip, lists [rows]; `peaks`, `silent`, `clipped`: filters/audio/levels.py.

    `spoken`: what is said in the clips of a record, null where nobody knows; `language`: of it; `sizes`: bytes of text
    and media.
    """

    columns: ClassVar[tuple[str, ...]] = ("samples", "rates", "depths", *LEVELS, "spoken", "language", "bytes")

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows = rows

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """The clips of a table with `columns`."""
        return cls(rows)

    @classmethod
    def empty(cls) -> Self:
        """A batch of no records."""
        numbers, texts = pa.array([], pa.list_(pa.float32())), pa.array([], pa.string())
        whole = pa.array([], pa.list_(pa.int64()))
        columns = [whole, whole, whole, *(numbers for _ in LEVELS), texts, texts, pa.array([], pa.int64())]
        return cls(pa.record_batch(columns, names=list(cls.columns)))

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @property
    def sizes(self) -> pa.Array:
        """Bytes of each record."""
        return self._rows["bytes"]

    @property
    def seconds(self) -> list[list[float]]:
        """Of each clip of each record."""
        samples, rates = self._rows["samples"].to_pylist(), self._rows["rates"].to_pylist()
        return [[n / rate for n, rate in zip(*pair, strict=True)] for pair in zip(samples, rates, strict=True)]

    def level(self, name: str) -> list[list[float]]:
        """One of LEVELS, of each clip of each record."""
        values: list[list[float]] = self._rows[name].to_pylist()
        return values

    @property
    def rates(self) -> list[list[int]]:
        """Samples a second, of each clip of each record."""
        values: list[list[int]] = self._rows["rates"].to_pylist()
        return values

    @property
    def depths(self) -> list[list[int]]:
        """Bits a sample of each clip of each record; 0 of a lossy encoding."""
        values: list[list[int]] = self._rows["depths"].to_pylist()
        return values

    @property
    def spoken(self) -> list[str | None]:
        """What is said."""
        texts: list[str | None] = self._rows["spoken"].to_pylist()
        return texts

    @property
    def languages(self) -> list[str | None]:
        """In which language."""
        labels: list[str | None] = self._rows["language"].to_pylist()
        return labels


class Transcripts(Docs):
    """What is learned of each record, as documents. `tags`: in which language it is to be; null where nobody says."""

    columns: ClassVar[tuple[str, ...]] = ("learned", "url", "learned_language", "bytes")

    def __init__(self, learned: pa.StringArray, urls: pa.StringArray, tags: pa.StringArray, sizes: pa.Array) -> None:
        super().__init__(learned, urls=urls)
        self.tags, self._sizes = tags, sizes

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """Those of a table with `columns`."""
        return cls(rows["learned"], rows["url"], rows["learned_language"], rows["bytes"])

    @classmethod
    def empty(cls) -> Self:
        """A batch of no records."""
        texts = pa.array([], pa.string())
        return cls(texts, texts, texts, pa.array([], pa.int64()))

    @property
    def is_transcript(self) -> np.ndarray:
        """Whether it is what was said, or that in another language: bool [rows]."""
        return pc.is_valid(self.tags).to_numpy(zero_copy_only=False)

    @property
    def sizes(self) -> pa.Array:
        """Bytes of each record, its media among them."""
        return self._sizes
