"""Tokens of pairs: the chosen and the rejected conversation of a record, end to end, and where the second one begins.

A pair is drawn, counted and packed as one sample, so that it is never split over windows; in a window its two sides are
stretches of their own, side by side, that do not see each other (`stages.mix.texts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import ClassVar

import pyarrow as pa

from gristmill.lake.versions.manifest import Manifest
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Encoded, Tokenizer
from gristmill.stages.mix.tokenize import SCHEMA, Rows, Tokenize, table_of

REJECTED = "rejected"
"""The column of tokens: of a pair, at which token the rejected side begins."""
PAIRS: Mapping[str, str] = MappingProxyType({"segments": "chosen, rejected"})
"""What the schemas of a mixture say where each two segments of its windows are a pair."""
GRADED: Mapping[str, str] = MappingProxyType({"segments": "samples with advantages"})
"""What they say where each segment is a sample with an advantage, which its source has."""


def of_pairs(mixture: Manifest) -> bool:
    """Whether each two segments of the windows of a mixture are a pair."""
    return PAIRS.items() <= mixture.schemas.items()


def of_graded(mixture: Manifest) -> bool:
    """Whether each segment of the windows of a mixture is a sample with an advantage."""
    return GRADED.items() <= mixture.schemas.items()


@dataclass(frozen=True)
class TokenizePairs(Tokenize):
    """Both sides of each pair, encoded apart."""

    name: ClassVar[str] = "tokenize_pairs"
    VERSION: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = pa.schema([*SCHEMA, (REJECTED, pa.int32())], SCHEMA.metadata)

    def encoded(self, tokenizer: Tokenizer, batch: pa.RecordBatch, rows: Rows, first: int) -> pa.Table:
        """Raises ValueError where a side begins within a part, which no pipeline writes."""
        begins = batch["rejected_at"].to_pylist()
        sides: list[list[Segment]] = []
        for i, parts in rows.segments.items():
            assert not isinstance(parts, str), "pairs have parts"
            sides += _sides(list(parts), begins[i])
        encoded = tokenizer.encode(sides)
        chosen, rejected = encoded.lengths[::2], encoded.lengths[1::2]
        table = table_of(batch, rows, Encoded(encoded.ids, encoded.loss_mask, chosen + rejected), first)
        return table.append_column(self.schema.field(REJECTED), pa.array(chosen, pa.int32()))


def _sides(parts: list[Segment], begin: int) -> tuple[list[Segment], list[Segment]]:
    ends = list(accumulate(len(part.text) for part in parts))
    if begin not in ends[:-1]:
        raise ValueError(f"rejected_at={begin}: no part of the pair begins there")
    count = ends.index(begin) + 1
    return parts[:count], parts[count:]
