"""Clips: how many, how long, how low their rate, how much of them is silence or cut off. The worst one decides.

Defaults take what the encoder was trained on (up to 30 s; 1,800 for a summary) and any rate from 8 kHz, of which the
reference makes 16; silence and clipping are cut where a clip cannot be understood, not where it could sound better.
Source: Microsoft 2025, arXiv 2503.01743, 4.2 (lengths); Kang et al. 2023, arXiv 2310.00706 (silence, clipping as
reasons to leave a clip out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import pyarrow as pa

from gristmill.filters.audio.clips import LEVELS, Clips
from gristmill.filters.base import Filter, above, below, first_reason

HEARD_RATE, DEPTH, RATE, SECONDS = "clip.heard_rate", "clip.min_depth", "clip.min_rate", "clip.seconds"
"""Measures by which the better of two copies is known."""
ENCODER_RATE = 16_000
"""Hz; what a file has beyond it is thrown away before the model hears it."""
_SCHEMA = pa.schema(
    [
        pa.field("n_clips", pa.int64()),
        pa.field("seconds", pa.float64()),  # of all together
        pa.field("min_seconds", pa.float64()),  # of the shortest; null for none
        pa.field("max_seconds", pa.float64()),
        pa.field("min_rate", pa.int64()),  # samples a second
        pa.field("heard_rate", pa.int64()),  # the same, and what the encoder hears of it
        pa.field("min_depth", pa.int64()),  # bits a sample; 0 of a lossy encoding
        pa.field("min_peak", pa.float64()),  # of the softest clip; 1 is full scale
        pa.field("silent_ratio", pa.float64()),  # of frames, in the worst clip
        pa.field("clipped_ratio", pa.float64()),  # of samples, in the worst clip
    ]
)


@dataclass(frozen=True)
class ClipQuality(Filter[Clips]):
    """Keeps records all of whose clips pass. `min_peak`: of 1, full scale; `min_seconds`: the reference refuses less
    than one window of 25 ms."""

    max_clips: int | None = None
    min_seconds: float | None = 0.1
    max_seconds: float | None = 30
    min_rate: int | None = 8000
    min_peak: float | None = 0.001
    max_silent_ratio: float | None = 0.9
    max_clipped_ratio: float | None = 0.02

    name: ClassVar[str] = "clip"
    VERSION: ClassVar[int] = 2  # it measures depths
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "too_many_clips": "n_clips",
            "too_short": "min_seconds",
            "too_long": "max_seconds",
            "rate_too_low": "min_rate",
            "silent": "min_peak",
            "mostly_silent": "silent_ratio",
            "clipped": "clipped_ratio",
        }
    )

    def measure(self, clips: Clips, /) -> pa.RecordBatch:
        """Of each record; nulls for one without a clip."""
        columns = (clips.seconds, clips.rates, clips.depths, *(clips.level(name) for name in LEVELS))
        rows = [_measured(*of_record) for of_record in zip(*columns, strict=True)]
        return pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails."""
        m = measures.column
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("too_many_clips", above(m("n_clips"), self.max_clips)),
                ("too_short", below(m("min_seconds"), self.min_seconds)),
                ("too_long", above(m("max_seconds"), self.max_seconds)),
                ("rate_too_low", below(m("min_rate"), self.min_rate)),
                ("silent", below(m("min_peak"), self.min_peak)),
                ("mostly_silent", above(m("silent_ratio"), self.max_silent_ratio)),
                ("clipped", above(m("clipped_ratio"), self.max_clipped_ratio)),
            ],
        )


def _measured(
    seconds: list[float],
    rates: list[int],
    depths: list[int],
    peaks: list[float],
    silent: list[float],
    clipped: list[float],
) -> dict[str, float]:
    """The measures of a record, but those that are undefined."""
    if not seconds:
        return {"n_clips": 0, "seconds": 0.0}
    return {
        "n_clips": len(seconds),
        "seconds": round(sum(seconds), 4),
        "min_seconds": round(min(seconds), 4),
        "max_seconds": round(max(seconds), 4),
        "min_rate": min(rates),
        "heard_rate": min(ENCODER_RATE, *rates),
        "min_depth": min(depths),
        "min_peak": round(min(peaks), 6),
        "silent_ratio": round(max(silent), 4),
        "clipped_ratio": round(max(clipped), 6),
    }
