"""Work: one stage on one piece of input, run anywhere, proved by a receipt.

A Work is a pointer of a few hundred bytes; data goes through the store. Its key hashes the stage (name, VERSION,
config) and the digests of its input, so a changed threshold redoes what it must and nothing before it, and the
receipt of a finished Work serves every later run. `execute` runs it, balances it, and writes the receipt last.
A stage with a dear set-up (a loaded model) is a `WarmStage`: the runner sets it up once a worker.
"""

from __future__ import annotations

import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar

from gristmill.lake.accounts.balance import Tally, check_balance
from gristmill.lake.accounts.facts import NoFacts, facts_to_json
from gristmill.lake.accounts.receipt import Receipt, StageId, canonical, work_key, write_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.stages.core.releases import release_ids

P = TypeVar("P")
"""The payload of a stage: a frozen dataclass that says where its input is."""
W = TypeVar("W")
"""What a stage sets up once a worker."""


@dataclass(frozen=True)
class Resources:
    """What one piece of work holds while it runs: CPU cores and GPUs, parts of one too (0.5: two share it)."""

    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        for name, amount in (("cpus", self.cpus), ("gpus", self.gpus)):
            if not 0 <= amount < float("inf") or (amount > 1 and amount != int(amount)):
                raise ValueError(f"{name}={amount}: 0 or more, and whole above 1")

    def __str__(self) -> str:
        return " and ".join(f"{n:g} {unit}" for n, unit in ((self.cpus, "CPUs"), (self.gpus, "GPUs")) if n) or "nothing"


@dataclass(frozen=True)
class Hosting:
    """How the workers of a stage with a set-up are held: each does `works` pieces side by side, in threads that share
    what was set up, and there are at most `workers`; None: as many as fit."""

    works: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.works < 1 or (self.workers is not None and self.workers < 1):
            raise ValueError(f"works={self.works}, workers={self.workers}: 1 or more")


class Stage(ABC, Generic[P]):
    """A frozen dataclass whose fields are its config, with a `name`, a VERSION and `run`.

    VERSION is raised whenever the output of the same input and config changes. The rest has defaults, which a stage
    overrides where they do not hold: an attribute without an annotation (`deterministic = False`) is no field of the
    dataclass, so no part of its identity.
    """

    name: ClassVar[str]
    VERSION: ClassVar[int]
    releases: ClassVar[tuple[str, ...]] = ()
    """Distributions of others by whose release its output is what it is (stages/core/releases.py)."""

    @property
    def resources(self) -> Resources:
        """What the runner reserves for one piece of work."""
        return Resources()

    @property
    def held(self) -> tuple[float, float]:
        """CPUs and GPUs that one piece of work holds in all, for its receipt: more than `resources` where it starts
        workers of its own."""
        return self.resources.cpus, self.resources.gpus

    @property
    def deterministic(self) -> bool:
        """Whether two attempts give the same bytes. False: the first that wrote its receipt counts."""
        return True

    def identity(self) -> tuple[StageId, ...]:
        """Every (stage, VERSION, config) that decides the output, in order: several when stages run fused."""
        return (stage_id(self), *release_ids(self.releases))

    @abstractmethod
    def run(self, store: Store, work: Work[P]) -> Outcome:
        """Reads what `work.payload` points at, writes objects, and says what became of every record."""


class WarmStage(Stage[P], Generic[P, W]):
    """A stage that needs something dear (a loaded model, an engine), set up once a worker and used for many works.

    What `setup` returns lives as long as the worker (a Ray actor, or one `stream` in this process) and is closed at
    its end if it has `close()`. It decides nothing that is not in the identity of the stage.
    """

    @property
    def hosting(self) -> Hosting:
        """How many pieces share a set-up at a time, and how many of those there are."""
        return Hosting()

    @abstractmethod
    def setup(self, store: Store) -> W:
        """Loads or builds what `run_warm` needs. Called once a worker, before its first work."""

    @abstractmethod
    def run_warm(self, store: Store, work: Work[P], warm: W) -> Outcome:
        """As `Stage.run`, with what `setup` returned."""

    def run(self, store: Store, work: Work[P]) -> Outcome:
        """One work by itself: set up, run, closed."""
        with warmed(store, self) as warm:
            return self.run_warm(store, work, warm)


ADDED = "added"


def added() -> Any:
    """A field that a stage was given later. None, its default, is no part of the identity: what was done before the
    field was there stays done."""
    return field(default=None, metadata={ADDED: True})


def stage_id(part: Any) -> StageId:
    """The identity of a frozen dataclass with `name` and `VERSION`: a stage, or one filter in it."""
    # Validated from JSON, not from the dict: as a receipt that is read back has it, in which tuples are lists.
    left_out = {item.name for item in fields(part) if item.metadata.get(ADDED) and getattr(part, item.name) is None}
    config = canonical({name: value for name, value in asdict(part).items() if name not in left_out})
    return StageId.model_validate_json(
        canonical({"name": part.name, "version": part.VERSION}).replace(b"}", b',"config":' + config + b"}")
    )


@dataclass(frozen=True)
class Work(Generic[P]):
    """One piece of work. `inputs` are digests of what it reads, or None where only reading will tell (Outcome.inputs).

    `payload` says where to find it (addresses, pointers) and never decides the result. `received` is the tally that the
    stage before passed on, `children_in` that of the children of these records: the receipt must balance against them.
    `None`: the stage itself counts what it meets.
    """

    stage: Stage[P]
    inputs: tuple[str, ...] | None
    payload: P
    received: Tally | None = None
    label: str = ""
    children_in: Tally | None = None

    @property
    def key(self) -> str:
        """The work key. Raises ValueError where it is known only after reading."""
        if self.inputs is None:
            raise ValueError(f"{self.label or self.stage.name}: its key is known only after it was read")
        return work_key(self.stage.identity(), self.inputs)


@dataclass(frozen=True)
class Outcome:
    """What a stage did: objects written, and every record passed on, kept, dropped or quarantined.

    `children`: where records became several (samples, draws), the tally of each verdict; `children_in` is the same as
    counted on the way in. `facts`: a frozen dataclass of small results, kept in the receipt as JSON.
    """

    outputs: tuple[ObjectRef, ...]
    passed: Tally = Tally()
    kept: Tally = Tally()
    dropped: Tally = Tally()
    quarantined: Tally = Tally()
    reasons: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    facts: Any = NoFacts()
    machine_fates: int = 0
    received: Tally | None = None
    inputs: tuple[str, ...] | None = None
    children_in: Tally | None = None
    children: Mapping[str, Tally] = field(default_factory=dict)


def execute(store: Store, work: Work[Any], spent: float = 0.0) -> Receipt:
    """Runs the work and returns the receipt that counts. `spent`: seconds that went into it before.

    Raises BalanceError if a record or a child was lost or doubled, NotDeterministic if another attempt gave another
    result, and whatever the stage raises.
    """
    return _proved(store, work, work.stage.run, spent)


def execute_warm(store: Store, work: Work[Any], warm: Any) -> Receipt:
    """The same for a WarmStage, with what its `setup` returned."""
    stage = work.stage
    assert isinstance(stage, WarmStage)
    return _proved(store, work, lambda store, work: stage.run_warm(store, work, warm))


def _proved(store: Store, work: Work[Any], run: Callable[[Store, Work[Any]], Outcome], spent: float = 0.0) -> Receipt:
    """Runs, balances, and writes the receipt, in this order: a receipt proves that all before it is done."""
    started = time.time() - spent
    receipt = receipt_of(work, run(store, work), started)
    return write_receipt(store, receipt, deterministic=work.stage.deterministic)


@contextmanager
def warmed(store: Store, stage: WarmStage[Any, W]) -> Iterator[W]:
    """What the stage sets up, for as long as it is used; closed at the end if it can be."""
    warm = stage.setup(store)
    try:
        yield warm
    finally:
        close = getattr(warm, "close", None)
        if close is not None:
            close()


def receipt_of(work: Work[Any], outcome: Outcome, started: float) -> Receipt:
    """The receipt of a work with this outcome, not written yet. `started`: seconds since 1970.

    Raises BalanceError if a record or a child was lost or doubled, ValueError if neither work nor outcome says what
    came in.
    """
    name = work.label or work.stage.name
    received = work.received if work.received is not None else outcome.received
    if received is None:
        raise ValueError(f"{work.stage.name}: neither the work nor its outcome says what came in")
    fates = {
        "passed": outcome.passed,
        "kept": outcome.kept,
        "dropped": outcome.dropped,
        "quarantined": outcome.quarantined,
    }
    check_balance(name, received, fates)
    children_in = work.children_in if work.children_in is not None else outcome.children_in
    if children_in is None and outcome.children:
        raise ValueError(f"{work.stage.name}: neither the work nor its outcome says how many children came in")
    if children_in is not None:
        check_balance(name, children_in, outcome.children, what="children", end="verdict")
    inputs = work.inputs if work.inputs is not None else outcome.inputs
    if inputs is None:
        raise ValueError(f"{work.stage.name}: neither the work nor its outcome names its inputs")
    return Receipt(
        work_key=work_key(work.stage.identity(), inputs),
        stages=work.stage.identity(),
        inputs=inputs,
        outputs=outcome.outputs,
        received=received,
        reasons=dict(outcome.reasons),
        errors=dict(outcome.errors),
        children_in=children_in or Tally(),
        children=dict(outcome.children),
        facts=facts_to_json(outcome.facts),
        machine_fates=outcome.machine_fates,
        passed=outcome.passed,
        kept=outcome.kept,
        dropped=outcome.dropped,
        quarantined=outcome.quarantined,
        info=_info(work, started),
    )


def _info(work: Work[Any], started: float) -> dict[str, Any]:
    """Of a receipt, what is no part of its identity: when, how long, where, and what was held."""
    cpus, gpus = work.stage.held
    return {
        "started": started,
        "seconds": round(time.time() - started, 3),
        "host": platform.node(),
        "pid": os.getpid(),
        "cpus": cpus,
        "gpus": gpus,
    }
