"""What is made before a stage of training starts, and what the training is given then.

Both follow from data in the recipe: a part whose `init_from` names another part is copied, and where an encoder of
sound is trained from nothing, its scale is measured on the mixture. Their receipts serve every training that starts so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.model.phi4.parts import Part
from gristmill.model.windows.sound_scale import BandScale, BandSums
from gristmill.stages.core.work import Stage, Work
from gristmill.stages.start.copy import CopyInput, CopyPart
from gristmill.stages.start.sound import MeasureSound, SoundInput
from gristmill.stages.train.job import TrainInput


@dataclass(frozen=True)
class Beginning:
    """`copies`: by part, the part that it starts as a copy of; `measures`: whether the scale of clips is measured."""

    copies: Mapping[Part, Part]
    measures: bool

    @property
    def identity(self) -> tuple[StageId, ...]:
        """Of the stages that run, in this order."""
        stages: list[Stage[Any]] = [*self._copies(), *([MeasureSound()] if self.measures else [])]
        return tuple(part for stage in stages for part in stage.identity())

    def works(self, given: TrainInput) -> list[Work[Any]]:
        """`given`: with the weights of the source in the place of a part that is copied."""
        works: list[Work[Any]] = []
        for stage in self._copies():
            shards = given.parts[stage.target]
            digests = tuple(ref.sha256 for ref in shards)
            works.append(Work(stage, digests, CopyInput(shards), received=Tally(), label=f"copy as {stage.target}"))
        if self.measures:
            for number, (tar, index) in enumerate(given.windows):
                digests = (tar.sha256, index.sha256)
                payload = SoundInput((tar, index))
                works.append(Work(MeasureSound(), digests, payload, received=Tally(), label=f"sound of shard {number}"))
        return works

    def given(self, given: TrainInput, receipts: Sequence[Receipt]) -> TrainInput:
        """With what was made. `receipts`: of `works`, in their order. Raises ValueError where no window has a clip."""
        copies = {target: receipts[number].outputs for number, target in enumerate(sorted(self.copies))}
        sums = [receipt.facts_as(BandSums) for receipt in receipts[len(copies) :]]
        scale = BandScale.of(sums) if self.measures else None
        return replace(given, parts={**given.parts, **copies}, scale=scale)

    def _copies(self) -> Iterator[CopyPart]:
        for target in sorted(self.copies):
            yield CopyPart(self.copies[target], target)
