"""Work: one stage on one piece of input, run anywhere, proved by a receipt.

A Work is a pointer of a few hundred bytes; data goes through the store. Its key hashes the stage (name, VERSION,
config) and the digests of its input, so a changed threshold redoes what it must and nothing before it, and the
receipt of a finished Work serves every later run. `execute` runs it, balances it, and writes the receipt last.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from lake.balance import Tally, check_balance
from lake.objects import ObjectRef
from lake.receipt import Receipt, StageId, canonical, work_key, write_receipt
from lake.store import Store


class Stage(Protocol):
    """A frozen dataclass whose fields are its config. VERSION is raised whenever its output changes."""

    name: ClassVar[str]
    VERSION: ClassVar[int]

    def identity(self) -> tuple[StageId, ...]:
        """Every (stage, VERSION, config) that decides the output, in order: several when stages run fused."""
        ...

    def run(self, store: Store, work: Work) -> Outcome:
        """Reads `work.payload`, writes objects, and says what became of every record."""
        ...


def stage_id(part: Any) -> StageId:
    """The identity of a frozen dataclass with `name` and `VERSION`: a stage, or one filter in it."""
    config = canonical(asdict(part))  # as JSON will read it back: tuples become lists
    return StageId.model_validate_json(
        canonical({"name": part.name, "version": part.VERSION}).replace(b"}", b',"config":' + config + b"}")
    )


@dataclass(frozen=True)
class Work:
    """`inputs` are digests of what it reads, or None where only reading will tell (see Outcome.inputs).

    `payload` says where to find it (addresses, pointers) and never decides the result. `came_in` is what the stage
    before passed on: the receipt must balance against it. `None`: the stage itself counts what it finds.
    """

    stage: Stage
    inputs: tuple[str, ...] | None
    payload: Mapping[str, Any] = field(default_factory=dict)
    came_in: Tally | None = None
    label: str = ""

    @property
    def key(self) -> str:
        if self.inputs is None:
            raise ValueError(f"{self.label or self.stage.name}: its key is known only after it was read")
        return work_key(self.stage.identity(), self.inputs)


@dataclass(frozen=True)
class Outcome:
    """What a stage did: objects written, and every record passed on, kept, dropped or quarantined."""

    outputs: tuple[ObjectRef, ...]
    passed: Tally = Tally()
    kept: Tally = Tally()
    dropped: Tally = Tally()
    quarantined: Tally = Tally()
    reasons: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    machine_fates: int = 0
    came_in: Tally | None = None
    inputs: tuple[str, ...] | None = None


def execute(store: Store, work: Work) -> Receipt:
    """Runs the work and returns the receipt that counts. Raises BalanceError if a record was lost or doubled."""
    started = time.time()
    return write_receipt(store, receipt_of(work, work.stage.run(store, work), started))


def receipt_of(work: Work, outcome: Outcome, started: float) -> Receipt:
    """What the work will be proved by. Raises BalanceError if a record was lost or doubled."""
    came_in = work.came_in if work.came_in is not None else outcome.came_in
    if came_in is None:
        raise ValueError(f"{work.stage.name}: neither the work nor its outcome says what came in")
    fates = {
        "passed": outcome.passed,
        "kept": outcome.kept,
        "dropped": outcome.dropped,
        "quarantined": outcome.quarantined,
    }
    check_balance(work.label or work.stage.name, came_in, fates)
    inputs = work.inputs if work.inputs is not None else outcome.inputs
    if inputs is None:
        raise ValueError(f"{work.stage.name}: neither the work nor its outcome names its inputs")
    return Receipt(
        work_key=work_key(work.stage.identity(), inputs),
        stages=work.stage.identity(),
        inputs=inputs,
        outputs=outcome.outputs,
        came_in=came_in,
        reasons=dict(outcome.reasons),
        errors=dict(outcome.errors),
        facts=dict(outcome.facts),
        machine_fates=outcome.machine_fates,
        passed=outcome.passed,
        kept=outcome.kept,
        dropped=outcome.dropped,
        quarantined=outcome.quarantined,
        info={
            "started": started,
            "seconds": round(time.time() - started, 3),
            "host": platform.node(),
            "pid": os.getpid(),
        },
    )
