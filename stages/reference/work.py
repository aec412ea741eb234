"""Reference: what a model that is not trained says of the windows of a stage, computed once before it.

A stage with a loss on preferences compares the policy with its reference, which is the model that the stage begins
with; one that learns from samples (GRPO) compares it with the model that drew them, and with one that it is held to.
Neither changes, so their log-probabilities are results of their own, one object a shard of the mixture, and no second
model lies in memory while the first one is trained. On other machines bits may differ by rounding, as those of any
training: the first receipt counts, and the training's key has the digests of what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId, canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.shards.files import ShardReader
from gristmill.model.train.stage import TrainStage
from gristmill.stages.core.work import Outcome, Resources, WarmStage, Work
from gristmill.stages.mix.windows import source_of
from gristmill.stages.models.references import REFERENCE, SCHEMA, TOKENS
from gristmill.stages.train.job import TrainJob

if TYPE_CHECKING:  # torch takes seconds to import
    from gristmill.model.phi4.multimodal import Multimodal


@dataclass(frozen=True)
class ReferenceInput:
    """(tar, index) of a shard of windows."""

    shard: tuple[ObjectRef, ObjectRef]


@dataclass(frozen=True)
class Reference(WarmStage[ReferenceInput, "Multimodal"]):
    """`job`: the training, whose starting model is asked; what of it decides the numbers is the identity."""

    name: ClassVar[str] = "reference"
    VERSION: ClassVar[int] = 1
    kind: ClassVar[str] = REFERENCE
    """Of its output."""

    deterministic = False

    job: TrainJob

    @property
    def resources(self) -> Resources:
        """As in process a rank has them."""
        return Resources(cpus=1, gpus=self.job.execution.gpus)

    def identity(self) -> tuple[StageId, ...]:
        """What decides the numbers beside the inputs."""
        return reference_identity(self.job.stage, self.job.config, type(self))

    def setup(self, store: Store) -> Multimodal:
        """The model that the training starts from, on its device, to evaluate. Raises DamagedObject, NotFound."""
        from gristmill.stages.train.local import device_of

        return self.job.model(store, device_of(self.job.execution.device)).eval()

    def run_warm(self, store: Store, work: Work[ReferenceInput], warm: Multimodal) -> Outcome:
        """Output of `kind` (SCHEMA), windows in the order of the shard. Each goes through the model by itself, so that
        how many a step takes at a time changes nothing. Raises DamagedShard."""
        source = source_of(store, [work.payload.shard])
        keys: list[str] = []
        logprobs: list[np.ndarray] = []
        with closing(ShardReader(source.shards, source.open, seed=0)) as reader:
            for number in range(len(reader)):
                window = reader.sample(number)
                keys.append(window.key)
                logprobs.append(self.logprobs(warm, window.arrays))
        table = pa.table([pa.array(keys, pa.string()), pa.array(logprobs, SCHEMA.field(1).type)], schema=SCHEMA)
        return Outcome(outputs=(put_table(store, self.kind, table),))

    def logprobs(self, model: Multimodal, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of each segment of a window its targets together, float32 [segments]."""
        from gristmill.model.train.objective import segment_logprobs

        return segment_logprobs(model, arrays, self.job.config, self.job.stage.precision)[0].cpu().numpy()


@dataclass(frozen=True)
class TokenReference(Reference):
    """The same of each target by itself."""

    name: ClassVar[str] = "token_reference"
    VERSION: ClassVar[int] = 1
    kind: ClassVar[str] = TOKENS

    def logprobs(self, model: Multimodal, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of each target of a window, in order, float32 [targets]."""
        from gristmill.model.train.objective import token_logprobs

        return token_logprobs(model, arrays, self.job.config, self.job.stage.precision).cpu().numpy()


def reference_identity(stage: TrainStage, config: ModelConfig, kind: type[Reference]) -> tuple[StageId, ...]:
    """Of a Reference: the model's config, what of it is trained and so kept in float32, the seed of fresh parts, and
    the precision, as the policy computes."""
    values = {"model": config.to_dict(), "trained": sorted(stage.trainable), "seed": stage.seed}
    values |= {"precision": stage.precision}
    # by way of JSON, as a receipt that is read back has it
    document = canonical({"name": kind.name, "version": kind.VERSION, "config": values})
    return (StageId.model_validate_json(document),)


def reference_works(job: TrainJob, kind: type[Reference]) -> Iterator[Work[ReferenceInput]]:
    """One Work a shard of the stage's mixture. `job`: the model that is asked is that which it starts from."""
    given = job.given
    parts = [f"{part} {ref.sha256}" for part in sorted(given.parts) for ref in given.parts[part]]
    for number, (tar, index) in enumerate(given.windows):
        yield Work(
            kind(job),
            (tar.sha256, index.sha256, *parts, *given.scaled),
            ReferenceInput((tar, index)),
            received=Tally(),
            label=f"{job.stage.name} shard {number}",
        )
