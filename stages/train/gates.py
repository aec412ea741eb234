"""Gates: what a stage's result has to pass before it becomes a version, as Work on the weights in the lake.

Each gives a verdict with its reason and what it measured; the manifest keeps them. A result that fails stays what it
is: the training has its receipt and is not done again, and with other gates the verdicts are given anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import part_of
from gristmill.model.train.stage import TrainStage
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.models.model_versions import WEIGHTS
from gristmill.stages.train.job import TrainInput
from gristmill.stages.train.result import part_digest


@dataclass(frozen=True)
class Verdict:
    """Of one gate. `why`: in a sentence, what it saw; `facts`: what it measured."""

    passed: bool
    why: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdicts:
    """By the names of gates, in their order."""

    verdicts: dict[str, Verdict]


@dataclass(frozen=True)
class GateInput:
    """Pointers. `given`: what the stage started from; `result`: the shards of the version to be; `data`, `held_out`:
    exact versions, of the mixture and of evaluation data."""

    stage: TrainStage
    config: ModelConfig
    given: TrainInput
    result: tuple[ObjectRef, ...]
    data: str
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gates(Stage[GateInput]):
    """`gates`: names of model.train.stage.GATES; `trainable`: parts that were to be trained."""

    name: ClassVar[str] = "gates"
    VERSION: ClassVar[int] = 1

    gates: tuple[str, ...]
    trainable: tuple[str, ...]

    def run(self, store: Store, work: Work[GateInput]) -> Outcome:
        """No outputs; facts: Verdicts."""
        return Outcome(outputs=(), facts=Verdicts({name: _judged(name, work.payload) for name in self.gates}))


def gate_work(payload: GateInput) -> Work[GateInput]:
    """The one Work on a result."""
    stage = gates_of(payload.stage)
    inputs = (*payload.given.digests, *(ref.sha256 for ref in payload.result), *payload.held_out)
    return Work(stage, inputs, payload, received=Tally(), label=payload.stage.name)


def gates_of(stage: TrainStage) -> Gates:
    """The gates that a stage asks for."""
    return Gates(stage.gates, tuple(sorted(stage.trainable)))


def _judged(name: str, payload: GateInput) -> Verdict:
    before = {str(part): part_digest(refs) for part, refs in payload.given.parts.items()}
    shards: dict[str, list[ObjectRef]] = {}
    for ref in payload.result:
        if ref.kind == WEIGHTS:
            shards.setdefault(str(part_of(ref.first)), []).append(ref)
    after = {part: part_digest(refs) for part, refs in shards.items()}
    trained = set(payload.stage.trainable)
    if name == "frozen_parts":
        moved = sorted(part for part in before if part not in trained and after.get(part) != before[part])
        return Verdict(not moved, f"changed: {', '.join(moved)}" if moved else "no frozen part changed")
    if name == "trained_parts":
        still = sorted(part for part in trained if after.get(part) == before.get(part))
        return Verdict(not still, f"unchanged: {', '.join(still)}" if still else "every trained part changed")
    raise ValueError(f"gates={name!r}: not there yet")
