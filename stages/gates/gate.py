"""What a gate is: a Work on the weights of a result in the lake, whose facts are a finding: passed or not, and why.

Gates are in files of their own beside this one; which a stage asks for, and when, `stages.gates.gates` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from gristmill.lake.accounts.facts import facts_to_json
from gristmill.lake.accounts.receipt import StageId, canonical
from gristmill.lake.store.objects import ObjectRef
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.train.stage import TrainStage
from gristmill.stages.core.work import Resources, Stage
from gristmill.stages.models.model_versions import WEIGHTS
from gristmill.stages.train.job import Execution, TrainInput, TrainJob

SHOWN = 5
"""Names that a finding lists of what may be hundreds."""


class Finding(Protocol):
    """What every gate says, beside what it measured."""

    @property
    def passed(self) -> bool:
        """Whether the result may become a version, as far as this gate is concerned."""

    @property
    def why(self) -> str:
        """In a sentence, what it saw; where it failed, with what to do."""


@dataclass(frozen=True)
class Verdict:
    """Of one gate, as the manifest keeps it. `passed` None: the gate does not apply, and `why` says so. `facts`: what
    it measured."""

    passed: bool | None
    why: str
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, finding: Finding) -> Verdict:
        """Of what a gate's Work found, a dataclass."""
        facts = facts_to_json(finding)
        return cls(facts.pop("passed"), facts.pop("why"), facts)


@dataclass(frozen=True)
class GateInput:
    """Pointers. `given`: what the stage started from; `result`: the shards of the version to be."""

    given: TrainInput
    result: tuple[ObjectRef, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the weights before and after, each with its part."""
        before = (f"before {part} {ref.sha256}" for part in sorted(self.given.parts) for ref in self.given.parts[part])
        return (*before, *(f"after {part_of(ref.first)} {ref.sha256}" for ref in self.weights))

    @property
    def weights(self) -> tuple[ObjectRef, ...]:
        """Those of the result."""
        return tuple(ref for ref in self.result if ref.kind == WEIGHTS)

    def of_part(self, part: Part) -> tuple[ObjectRef, ...]:
        """Those of one part of the result."""
        return tuple(ref for ref in self.weights if part_of(ref.first) == part)


@dataclass(frozen=True)
class WeightsGate(Stage[GateInput]):
    """A gate that loads weights. All but `execution`, which says how, is its identity."""

    stage: TrainStage
    config: ModelConfig
    execution: Execution

    @property
    def resources(self) -> Resources:
        """As in process a rank has them."""
        return Resources(cpus=1, gpus=self.execution.gpus)

    def identity(self) -> tuple[StageId, ...]:
        """The gate, for these parts of such a model; of a fresh part the seed says what it was before."""
        values = {"trained": sorted(self.stage.trainable), "seed": self.stage.seed, "model": self.config.to_dict()}
        # by way of JSON, as a receipt that is read back has it
        document = {"name": self.name, "version": self.VERSION, "config": values}
        return (StageId.model_validate_json(canonical(document)),)

    def inputs(self, payload: GateInput) -> tuple[str, ...]:
        """Digests of all that the gate reads."""
        return payload.digests

    def job(self, payload: GateInput) -> TrainJob:
        """The training whose result is judged."""
        return TrainJob(self.stage, self.config, payload.given, self.execution)
