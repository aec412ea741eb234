"""Sizes of images: sides, ratio, pixels, how many a record has. The worst image of a record decides.

Defaults keep what the encoder can see at all; LAION's and DataComp's filters ask for more (a shortest side of 200
pixels, a ratio of at most 3), which costs text and panoramas that this model is to read.
Source: Gadre et al. 2023, arXiv 2304.14108, appendix F ("basic filtering").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.filters.base import Filter, above, below, first_reason
from gristmill.filters.image.pictures import Pictures

_SCHEMA = pa.schema(
    [
        pa.field("n_images", pa.int64()),
        pa.field("min_side", pa.int64()),  # pixels, of all sides of all images; null for none
        pa.field("max_ratio", pa.float64()),  # of the longer side to the shorter
        pa.field("min_pixels", pa.int64()),  # of the smallest image
        pa.field("pixels", pa.int64()),  # of all together
    ]
)


@dataclass(frozen=True)
class ImageSize(Filter[Pictures]):
    """Keeps records all of whose images pass. `min_side`: the reference refuses what it would resize to under 10."""

    max_images: int | None = None
    min_side: int | None = 10
    max_ratio: float | None = 100
    min_pixels: int | None = None
    max_pixels: int | None = None

    name: ClassVar[str] = "image_size"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "too_many_images": "n_images",
            "too_narrow": "min_side",
            "ratio_too_extreme": "max_ratio",
            "too_few_pixels": "min_pixels",
            "too_many_pixels": "pixels",
        }
    )

    def measure(self, pictures: Pictures, /) -> pa.RecordBatch:
        """Of each record; nulls for one without an image."""
        heights, widths = pictures.heights.to_pylist(), pictures.widths.to_pylist()
        rows = [_measured(*sides) for sides in zip(heights, widths, strict=True)]
        return pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails."""
        m = measures.column
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("too_many_images", above(m("n_images"), self.max_images)),
                ("too_narrow", below(m("min_side"), self.min_side)),
                ("ratio_too_extreme", above(m("max_ratio"), self.max_ratio)),
                ("too_few_pixels", below(m("min_pixels"), self.min_pixels)),
                ("too_many_pixels", above(m("pixels"), self.max_pixels)),
            ],
        )


def _measured(heights: list[int], widths: list[int]) -> dict[str, float]:
    """The measures of a record, but those that are undefined."""
    if not heights:
        return {"n_images": 0, "pixels": 0}
    sides = np.array([heights, widths], np.int64)
    pixels = sides.prod(axis=0)
    return {
        "n_images": len(heights),
        "min_side": int(sides.min()),
        "max_ratio": float((sides.max(axis=0) / sides.min(axis=0)).max()),
        "min_pixels": int(pixels.min()),
        "pixels": int(pixels.sum()),
    }
