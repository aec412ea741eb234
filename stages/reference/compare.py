"""What is asked of models, and of the data, before a stage whose loss compares: works, and what a trainer gets of them.

Of preferences: what the starting model says of each segment. Of samples that a policy drew: what that policy, which is
the model that the stage starts from, and the model that it is held to say of each token, and the samples' advantages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import Part
from gristmill.model.train.stage import COMPARES, ON_GRADED, TrainStage
from gristmill.stages.core.work import Work
from gristmill.stages.models.references import ADVANTAGES, BASE_LOGPROBS, OLD_LOGPROBS, REFERENCE_LOGPROBS
from gristmill.stages.reference.advantages import LookUpAdvantages, advantage_works
from gristmill.stages.reference.work import Reference, TokenReference, reference_identity, reference_works
from gristmill.stages.train.job import Execution, TrainInput, TrainJob


@dataclass(frozen=True)
class Comparison:
    """Of a stage on a mixture. `base`: the parts of the model that its policy is held to; None: the one that it starts
    from."""

    stage: TrainStage
    config: ModelConfig
    mixture: Manifest
    base: Mapping[Part, tuple[ObjectRef, ...]] | None = None

    @property
    def identity(self) -> tuple[StageId, ...]:
        """Of the stages that run, in this order; none where the loss compares nothing."""
        if self.stage.loss not in COMPARES:
            return ()
        if self.stage.loss not in ON_GRADED:
            return reference_identity(self.stage, self.config, Reference)
        tokens = reference_identity(self.stage, self.config, TokenReference)
        return (*tokens, *LookUpAdvantages().identity())

    def works(self, versions: Versions, given: TrainInput, execution: Execution) -> list[Work[Any]]:
        """In the order of `_arrays`, one a shard of each. `given`: of the training."""
        if self.stage.loss not in COMPARES:
            return []
        job = TrainJob(self.stage, self.config, given, execution)
        if self.stage.loss not in ON_GRADED:
            return list(reference_works(job, Reference))
        works: list[Work[Any]] = list(reference_works(job, TokenReference))
        if self._is_apart(given):
            assert self.base is not None
            works += reference_works(replace(job, given=replace(given, parts=self.base)), TokenReference)
        return [*works, *advantage_works(versions, self.mixture)]

    def given(self, given: TrainInput, receipts: Sequence[Receipt]) -> TrainInput:
        """With what was said. `receipts`: of `works`, in their order."""
        if not receipts:
            return given
        shards = len(given.windows)
        outputs = [receipt.outputs[0] for receipt in receipts]
        arrays = {
            name: tuple(outputs[number * shards : (number + 1) * shards])
            for number, name in enumerate(self._arrays(given))
        }
        if OLD_LOGPROBS in arrays:
            arrays.setdefault(BASE_LOGPROBS, arrays[OLD_LOGPROBS])
        return replace(given, beside=arrays)

    def _arrays(self, given: TrainInput) -> tuple[str, ...]:
        if self.stage.loss not in ON_GRADED:
            return (REFERENCE_LOGPROBS,)
        return (OLD_LOGPROBS, *((BASE_LOGPROBS,) if self._is_apart(given) else ()), ADVANTAGES)

    def _is_apart(self, given: TrainInput) -> bool:
        """Whether the policy is held to another model than the one that it starts from."""
        return self.base is not None and dict(self.base) != dict(given.parts)
