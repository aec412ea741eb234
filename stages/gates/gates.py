"""The gates of a stage: what is asked of its result before it becomes a version, in which order, and the verdicts.

What it was trained on is looked through before anything is trained (contamination); weights are judged afterwards, as
they lie in the lake (all others). Each is a Work with a receipt, passed or not: a result that failed is neither trained
nor judged again, the same run says at once what it said before. The manifest keeps verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.filters.overlap import Overlap
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.train.stage import ON_PAIRS, TrainStage
from gristmill.stages.core.work import Work
from gristmill.stages.gates.contamination import ancestry, contamination, contamination_stages
from gristmill.stages.gates.gate import GateInput, Verdict, WeightsGate
from gristmill.stages.gates.kinds import READS, KindFinding, SpeechAlone, TextAlone, VisionAlone, not_for
from gristmill.stages.gates.preference import PreferenceFinding, PreferenceWorked
from gristmill.stages.gates.weights import FrozenFinding, FrozenParts, TrainedFinding, TrainedParts
from gristmill.stages.run.runner import Runner
from gristmill.stages.train.job import Execution

CONTAMINATION = "contamination"
_ON_WEIGHTS: dict[str, tuple[type[WeightsGate], type[Any]]] = {
    "frozen_parts": (FrozenParts, FrozenFinding),
    "trained_parts": (TrainedParts, TrainedFinding),
    "text": (TextAlone, KindFinding),
    "vision": (VisionAlone, KindFinding),
    "speech": (SpeechAlone, KindFinding),
    "preference": (PreferenceWorked, PreferenceFinding),
}
"""By name, the stage of a gate and what it finds."""


@dataclass
class Gates:
    """The gates that a stage of this model asks for. `overlap`: what counts as a leak of `held_out`. `receipts`: of
    what was asked so far."""

    stage: TrainStage
    config: ModelConfig
    execution: Execution
    held_out: Sequence[Manifest] = ()
    overlap: Overlap = Overlap()
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def identity(self) -> tuple[StageId, ...]:
        """Of the stages that run, in this order."""
        data = contamination_stages(self.overlap) if CONTAMINATION in self.stage.gates else ()
        return tuple(part for stage in (*data, *self._on_weights().values()) for part in stage.identity())

    def of_data(self, runner: Runner, mixture: Manifest, bases: Sequence[Manifest]) -> dict[str, Verdict]:
        """What can be said before anything is trained, on this mixture, from these models. Raises what a runner
        raises, ValueError for held-out versions without texts."""
        if CONTAMINATION not in self.stage.gates:
            return {}
        trained_on = ancestry(Versions(runner.store), mixture, bases)
        finding, receipts = contamination(runner, self.overlap, self.held_out, trained_on)
        self.receipts += receipts
        return {CONTAMINATION: Verdict.of(finding)}

    def of_weights(self, runner: Runner, payload: GateInput) -> dict[str, Verdict]:
        """What can be said of a result. Raises what a runner raises."""
        reasons = {name: self._not_for(name) for name in self.stage.gates}
        verdicts = {name: Verdict(None, reason) for name, reason in reasons.items() if reason is not None}
        gates = self._on_weights()
        works = [
            Work(gate, gate.inputs(payload), payload, received=Tally(), label=f"{self.stage.name}: {name}")
            for name, gate in gates.items()
        ]
        if not works:
            return verdicts
        for name, receipt in zip(gates, runner.map("gates", works), strict=True):
            self.receipts.append(receipt)
            verdicts[name] = Verdict.of(receipt.facts_as(_ON_WEIGHTS[name][1]))
        return verdicts

    def _on_weights(self) -> dict[str, WeightsGate]:
        """Those that load weights, by name."""
        return {
            name: _ON_WEIGHTS[name][0](self.stage, self.config, self.execution)
            for name in dict.fromkeys(self.stage.gates)
            if name in _ON_WEIGHTS and self._not_for(name) is None
        }

    def _not_for(self, name: str) -> str | None:
        """Why a gate does not apply to the stage; None: it does."""
        if name in READS:
            return not_for(name, self.stage, self.config)
        if name == "preference" and self.stage.loss not in ON_PAIRS:
            return f"does not apply: the stage learns by {self.stage.loss}, without preferences"
        return None
