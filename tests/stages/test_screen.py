"""Screens of other things than documents: a filter is of its batch, and the stage does not know what that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
from record_flows import content

from gristmill.filters.base import Filter, below, first_reason
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.objects import put_table, read_table
from gristmill.stages.core.records import CONTENT, Chunk
from gristmill.stages.core.work import Work, execute
from gristmill.stages.text.screen import Screen, ScreenPayload


class Clips:
    """A batch of clips: their samples, as the content table has them."""

    columns: ClassVar[tuple[str, ...]] = ("samples", "rate")

    def __init__(self, samples: pa.ListArray, rates: pa.Int64Array) -> None:
        self.samples, self.rates = samples, rates

    @classmethod
    def of(cls, rows: pa.RecordBatch) -> Self:
        return cls(rows["samples"], rows["rate"])

    @classmethod
    def empty(cls) -> Self:
        return cls(pa.array([], pa.list_(pa.int16())), pa.array([], pa.int64()))

    @property
    def sizes(self) -> pa.Array:
        return pc.multiply(pc.list_value_length(self.samples), 2)


@dataclass(frozen=True)
class Seconds(Filter[Clips]):
    """Drops clips that are too short."""

    min_seconds: float = 1.0

    name: ClassVar[str] = "seconds"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"too_short": "length"})

    def measure(self, clips: Clips, /) -> pa.RecordBatch:
        length = pc.divide(pc.cast(pc.list_value_length(clips.samples), pa.float64()), clips.rates)
        return pa.record_batch([length], names=["length"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        return first_reason(self.name, measures.num_rows, [("too_short", below(measures["length"], self.min_seconds))])


def test_a_screen_of_clips_is_a_screen(store):
    samples = pa.array([[1] * 8, [1] * 20, [], [1] * 9], pa.list_(pa.int16()))
    table = content(4).append_column("samples", samples).append_column("rate", pa.array([8, 8, 8, 10]))
    chunk = Chunk(put_table(store, CONTENT, table), Tally.of_records(["f" * 64] * 4, range(4)), 1)
    stage = Screen((Seconds(),), Clips)
    assert stage.measures() == ["seconds.length"] and stage.identity()[1].config == {"min_seconds": 1.0}
    receipt = execute(store, Work(stage, chunk.digests, ScreenPayload(chunk), chunk.tally))
    assert receipt.reasons == {"seconds.too_short": 2} and receipt.facts == {"passed_bytes": 2 * 28}
    fates = read_table(store, receipt.output("fates")).sort_by("ordinal")
    assert fates["value"].to_pylist() == ["0", "0.9"]
    empty = Chunk(put_table(store, CONTENT, table.slice(0, 0)), Tally(), 0)
    nothing = execute(store, Work(stage, empty.digests, ScreenPayload(empty), Tally()))
    assert read_table(store, nothing.output("screened")).schema == read_table(store, receipt.output("screened")).schema
