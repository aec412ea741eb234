"""The gate of preferences: the chosen answers are preferred more than before, and have not become unlikely with it.

A margin rises as well when both answers fall and the rejected one falls further, which is how training on preferences
fails: the model then says neither. So both are asked, of the weights in the lake, on windows that it was trained on.
Sources: Pal et al. 2024, arXiv 2402.13228; Razin et al. 2024, arXiv 2410.08847.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.model.shards.files import ShardReader
from gristmill.stages.core.work import Outcome, Work
from gristmill.stages.gates.gate import GateInput, WeightsGate
from gristmill.stages.models.model_versions import load_weights

WINDOWS = 32
"""That are looked at at most: the first ones in the order of training."""
MOST_LOST = math.log(2)
"""Nats a token that chosen answers may lose on average: half of a token's probability."""


@dataclass(frozen=True)
class PreferenceFinding:
    """Means over `pairs`. `margin`: by how many nats the chosen answer is preferred more than by the reference;
    `accuracy`: the share of pairs in which it is preferred more; `gained`: by which the chosen answer is likelier, in
    nats a token, negative where it is less likely. A mean that is no number is None, and no pass."""

    passed: bool
    why: str
    pairs: int
    margin: float | None
    accuracy: float
    gained: float | None


@dataclass(frozen=True)
class PreferenceWorked(WeightsGate):
    """The margin over the reference is above 0, in more than half of the pairs, and the chosen answers lose at most
    MOST_LOST."""

    name: ClassVar[str] = "gate_preference"
    VERSION: ClassVar[int] = 2
    """2: not more windows than were trained on."""

    def identity(self) -> tuple[StageId, ...]:
        """As of any gate; the precision is that of the references."""
        (own,) = super().identity()
        return (own.model_copy(update={"config": {**own.config, "precision": self.stage.precision}}),)

    def inputs(self, payload: GateInput) -> tuple[str, ...]:
        """The windows and references too, and how many windows are looked at."""
        return (*payload.digests, *payload.given.digests, f"first {self.looked_at(payload)} windows")

    def looked_at(self, payload: GateInput) -> int:
        """How many windows: a short stage did not draw WINDOWS of them, and others say nothing of what it learned."""
        return min(WINDOWS, payload.given.steps * self.stage.batch)

    def run(self, store: Store, work: Work[GateInput]) -> Outcome:
        """Facts: PreferenceFinding. Raises DamagedObject, NotFound, DamagedShard."""
        from gristmill.model.train.objective import segment_logprobs
        from gristmill.stages.train.local import device_of

        payload = work.payload
        model = load_weights(store, self.config, payload.weights, device=device_of(self.execution.device)).eval()
        source = self.job(payload).source(store)
        margins: list[np.ndarray] = []
        gains: list[np.ndarray] = []
        with closing(ShardReader(source.shards, source.open, seed=self.stage.seed)) as reader:
            for position in range(min(len(reader), self.looked_at(payload))):
                arrays = source.arrays(reader.sample(reader.at(position)))
                sums, counts = segment_logprobs(model, arrays, self.config, self.stage.precision)
                gain = sums.double().cpu().numpy() - arrays["reference_logprobs"]
                margins.append(gain[::2] - gain[1::2])
                gains.append(gain[::2] / counts[::2].clamp(min=1).cpu().numpy())
        return Outcome(outputs=(), facts=finding(margins, gains))


def finding(margins: Sequence[np.ndarray], gains: Sequence[np.ndarray]) -> PreferenceFinding:
    """Of the pairs of windows: margins in nats, and what a token of the chosen answer gained."""
    of_pairs, of_tokens = np.concatenate(margins), np.concatenate(gains)
    margin, accuracy, gained = float(of_pairs.mean()), float((of_pairs > 0).mean()), float(of_tokens.mean())
    saw = (
        f"over {len(of_pairs):,} pairs that it was trained on the margin is {margin:.3g} nats above the reference's,"
        f" higher in {accuracy:.0%} of them, and a token of the chosen answers {gained:+.3g} nats likelier"
    )
    faults: list[str] = []
    if not (0 < margin < math.inf and accuracy > 0.5):  # NaN is no rise either
        faults.append("the preferences were not learned: train longer, or with a higher optim.lr")
    if not -MOST_LOST <= gained < math.inf:
        faults.append(
            f"chosen answers may lose {MOST_LOST:.2g} nats a token: raise nll_weight, or beta, or lower optim.lr"
        )
    why = f"{saw}; {'; '.join(faults)}" if faults else saw
    return PreferenceFinding(not faults, why, len(of_pairs), _known(margin), accuracy, _known(gained))


def _known(mean: float) -> float | None:
    return mean if math.isfinite(mean) else None  # JSON has no other numbers
