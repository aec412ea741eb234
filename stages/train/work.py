"""Train: a stage of training as Work. Its receipt is the proof that it was done, and it is never done again.

Two runs of a training need not give the same bits on another machine: the first receipt counts. How it is carried out
(ranks, devices) is no part of its key. Until the receipt is there the state of the run lies in its folder
(stages/train/folder.py), from which the same Work goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId, canonical, finished
from gristmill.lake.store.base import Store
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.train.stage import TrainStage
from gristmill.stages.core.work import Outcome, Resources, Stage, Work
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.job import Execution, Trained, TrainInput, TrainJob
from gristmill.stages.train.result import TrainFacts, put_result


@dataclass(frozen=True)
class Train(Stage[TrainInput]):
    """A stage of training, the config of its model, and how it is carried out, which is no part of its identity."""

    name: ClassVar[str] = "train"
    VERSION: ClassVar[int] = 1
    deterministic = False

    stage: TrainStage
    config: ModelConfig
    execution: Execution

    @property
    def resources(self) -> Resources:
        """In process, those of its one rank. Ranks on Ray reserve their own: what waits for them must hold nothing that
        they wait for."""
        if self.execution.trainer == "ray":
            return Resources(cpus=0)
        return Resources(cpus=1, gpus=self.execution.gpus)

    @property
    def held(self) -> tuple[float, float]:
        """Those of all ranks."""
        if self.execution.trainer == "ray":
            return self.execution.ranks * self.execution.cpus, self.execution.ranks * self.execution.gpus
        return self.resources.cpus, self.resources.gpus

    def identity(self) -> tuple[StageId, ...]:
        """What decides the weights beside the inputs."""
        return (train_identity(self.stage, self.config),)

    def run(self, store: Store, work: Work[TrainInput]) -> Outcome:
        """Outputs `weights` (trained parts), `model` (the shape), `metrics`; facts: TrainFacts. Goes on where a run of
        the same work stopped; where another one ended while this one waited for it, with its result. Raises
        RunsElsewhere, Diverged, and what a trainer raises."""
        job = TrainJob(self.stage, self.config, work.payload, self.execution)
        folder = RunFolder(store, work.key)
        with folder.held():
            if (earlier := finished(store, work.key)) is not None:
                return Outcome(outputs=earlier.outputs, facts=earlier.facts_as(TrainFacts))
            trained = _carry_out(store, job, folder)
            outputs, facts = put_result(store, job, folder, trained)
        return Outcome(outputs=outputs, facts=facts)


def train_identity(stage: TrainStage, config: ModelConfig) -> StageId:
    """Of `Train`, however it is carried out."""
    values = {**stage.identity(), "model": config.to_dict()}
    # by way of JSON, as a receipt that is read back has it
    return StageId.model_validate_json(canonical({"name": Train.name, "version": Train.VERSION, "config": values}))


def _carry_out(store: Store, job: TrainJob, folder: RunFolder) -> Trained:
    from gristmill.stages.train import local, ray_train  # torch takes seconds to import

    carry = ray_train.train if job.execution.trainer == "ray" else local.train
    return carry(store, job, folder)


def train_work(stage: TrainStage, config: ModelConfig, given: TrainInput, execution: Execution) -> Work[TrainInput]:
    """The one Work of a stage."""
    return Work(Train(stage, config, execution), given.digests, given, received=Tally(), label=stage.name)
