"""The gates of parts: those that were not trained are what they were, those that were have changed.

Read back from the lake through the loader that everybody uses, and compared with what the stage started from, which is
read without it: a loader that changes a weight is seen too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import scratch
from gristmill.stages.core.work import Outcome, Work
from gristmill.stages.gates.gate import SHOWN, GateInput, WeightsGate
from gristmill.stages.models.model_versions import fetched, load_weights
from gristmill.stages.train.result import part_digest


@dataclass(frozen=True)
class FrozenFinding:
    """`parts`: those that were not trained, with `tensors` in all. `moved`: parts whose objects are others;
    `changed`: how many tensors have other bits when they are loaded, `names` the first of them."""

    passed: bool
    why: str
    parts: tuple[str, ...]
    tensors: int
    moved: tuple[str, ...]
    changed: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class TrainedFinding:
    """By trained part: `tensors` that it trains; how many are `unchanged` or `infinite` (a NaN too), and the first
    names of either."""

    passed: bool
    why: str
    tensors: dict[str, int]
    unchanged: dict[str, int]
    infinite: dict[str, int]
    names: tuple[str, ...]


@dataclass(frozen=True)
class FrozenParts(WeightsGate):
    """Every part that was not trained is the same objects, and the same bits when it is loaded."""

    name: ClassVar[str] = "gate_frozen_parts"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GateInput]) -> Outcome:
        """Facts: FrozenFinding. Raises DamagedObject, NotFound."""
        from gristmill.model.gates.parts import Stored, changed_tensors

        payload = work.payload
        frozen = sorted(set(payload.given.parts) - self.stage.trainable)
        moved = [
            part for part in frozen if part_digest(payload.of_part(part)) != part_digest(payload.given.parts[part])
        ]
        changed: list[str] = []
        tensors = 0
        with scratch() as folder:
            model = load_weights(store, self.config, payload.weights)
            for part in frozen:
                base = Stored(fetched(store, ref, folder) for ref in payload.given.parts[part])
                changed += changed_tensors(model, base, part)
                tensors += len(base)
        finding = FrozenFinding(
            passed=not moved and not changed,
            why=_frozen_why(frozen, moved, changed, tensors),
            parts=tuple(frozen),
            tensors=tensors,
            moved=tuple(moved),
            changed=len(changed),
            names=tuple(changed[:SHOWN]),
        )
        return Outcome(outputs=(), facts=finding)


def _frozen_why(frozen: Sequence[str], moved: Sequence[str], changed: Sequence[str], tensors: int) -> str:
    defect = "Whatever is not trained may not change: this is a defect of the trainer, please report it"
    if moved:
        which = f"; {len(changed)} of {tensors} tensors, {', '.join(changed[:SHOWN])}" if changed else ""
        return f"{', '.join(moved)} was not trained, and is stored as something else{which}. {defect}"
    if changed:
        names = ", ".join(changed[:SHOWN])
        return (
            f"{len(changed)} of {tensors} tensors that were not trained ({names}) are stored as they were, and are"
            f" others when they are loaded. {defect}"
        )
    if not frozen:
        return "all of its parts were trained"
    return f"{', '.join(frozen)}: {tensors} tensors are bit for bit those that the stage started from"


@dataclass(frozen=True)
class TrainedParts(WeightsGate):
    """Every tensor that was trained and reaches the output has changed, and all of them are finite."""

    name: ClassVar[str] = "gate_trained_parts"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[GateInput]) -> Outcome:
        """Facts: TrainedFinding. Raises DamagedObject, NotFound."""
        from gristmill.model.gates.parts import Stored, part_changes

        start = self.job(work.payload).model(store).state_dict()
        with scratch() as folder:
            refs = [ref for part in self.stage.trainable for ref in work.payload.of_part(part)]
            result = Stored(fetched(store, ref, folder) for ref in refs)
            changes = part_changes(self.config, self.stage.trainable, start.__getitem__, result)
        unchanged = {str(part): change.unchanged for part, change in changes.items() if change.unchanged}
        infinite = {str(part): change.infinite for part, change in changes.items() if change.infinite}
        tensors = {str(part): change.tensors for part, change in changes.items()}
        names = [name for listed in (*unchanged.values(), *infinite.values()) for name in listed[:SHOWN]]
        finding = TrainedFinding(
            passed=not unchanged and not infinite,
            why=_trained_why(tensors, unchanged, infinite),
            tensors=tensors,
            unchanged={part: len(listed) for part, listed in unchanged.items()},
            infinite={part: len(listed) for part, listed in infinite.items()},
            names=tuple(names),
        )
        return Outcome(outputs=(), facts=finding)


def _trained_why(
    tensors: dict[str, int], unchanged: dict[str, tuple[str, ...]], infinite: dict[str, tuple[str, ...]]
) -> str:
    reasons = [
        f"{part} was to be trained, and {len(names)} of its {tensors[part]} tensors are what they were"
        f" ({', '.join(names[:SHOWN])}): does anything in the mixture reach them (images, clips), and are steps and"
        " optim.lr large enough"
        for part, names in unchanged.items()
    ]
    reasons += [
        f"{part} has numbers that are not finite in {len(names)} of its {tensors[part]} tensors"
        f" ({', '.join(names[:SHOWN])}): train with a lower optim.lr, or longer warm-up"
        for part, names in infinite.items()
    ]
    if reasons:
        return "; ".join(reasons)
    return ", ".join(f"{part}: all of {count} tensors changed" for part, count in tensors.items()) + ", and are finite"
