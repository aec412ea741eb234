"""A batch of records with images, as filters look at them: how many, how high, how wide. No pixel is touched.

Columns are those that forming leaves beside the media (stages/vision/form.py), so that a screen reads kilobytes where
the images are gigabytes.
"""

from __future__ import annotations

from typing import ClassVar, Self

import pyarrow as pa


class Pictures:
    """`heights`, `widths`: pixels of each image, lists of int32 [rows]; `sizes`: bytes of text and media."""

    columns: ClassVar[tuple[str, ...]] = ("heights", "widths", "bytes")

    def __init__(self, heights: pa.ListArray, widths: pa.ListArray, sizes: pa.Array) -> None:
        if len({len(heights), len(widths), len(sizes)}) > 1:
            raise ValueError(f"Pictures: {len(heights)} heights, {len(widths)} widths, {len(sizes)} sizes")
        self.heights, self.widths, self._sizes = heights, widths, sizes

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        """The images of a table with `columns`."""
        return cls(rows["heights"], rows["widths"], rows["bytes"])

    @classmethod
    def empty(cls) -> Self:
        """A batch of no records."""
        sides = pa.array([], pa.list_(pa.int32()))
        return cls(sides, sides, pa.array([], pa.int64()))

    @property
    def sizes(self) -> pa.Array:
        """Bytes of each record."""
        return self._sizes

    def __len__(self) -> int:
        return len(self.heights)
