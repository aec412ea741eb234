"""MeasureSound: sums of a shard's mel bands, of which a new encoder of sound gets the scale that it normalises by."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.model.shards.files import ShardReader
from gristmill.model.windows.sound_scale import BandSums
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.mix.windows import source_of


@dataclass(frozen=True)
class SoundInput:
    """(tar, index) of a shard of windows."""

    shard: tuple[ObjectRef, ObjectRef]


@dataclass(frozen=True)
class MeasureSound(Stage[SoundInput]):
    """Reads a shard once. Processors add up in different orders, so the first receipt counts, as of a training."""

    name: ClassVar[str] = "measure_sound"
    VERSION: ClassVar[int] = 1
    deterministic = False

    def run(self, store: Store, work: Work[SoundInput]) -> Outcome:
        """Facts: BandSums. Raises DamagedShard."""
        source = source_of(store, [work.payload.shard])
        with closing(ShardReader(source.shards, source.open, seed=0)) as reader:
            return Outcome(outputs=(), facts=BandSums.of(reader.sample(n).arrays for n in range(len(reader))))
