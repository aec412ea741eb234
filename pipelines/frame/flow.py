"""The flow of records through a pipeline: a reading, steps in order, and the writing of shards.

A step takes the state so far (which records are in, what was decided, what the version will keep) and returns the next
one; steps know nothing of each other. What the rest of the house asks of a pipeline is answered from this list: which
stages decide the data, in which order the funnel shows them, and what a version keeps for those that extend it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.stages.core.records import Chunk, Records
from gristmill.stages.core.shards import MergeLedger, WriteShards
from gristmill.stages.core.work import Stage, Work
from gristmill.stages.read.list_media import ListMedia
from gristmill.stages.read.reading import ReadStage
from gristmill.stages.read.suppress import FORGET, suppressed
from gristmill.stages.run.runner import Runner


@dataclass(frozen=True)
class Prepared:
    """Work on a chunk that depends on nothing but the chunk: not on who is excluded, nor on other chunks. `title`: what
    the progress calls it."""

    title: str
    work: Callable[[Chunk], Work[Any]]


@dataclass(frozen=True)
class State:
    """What a run came to so far: the records that are in, and all that the draft will say of the others.

    `decided`: receipts whose fates enter the ledger. `attachments`: what the version keeps for those that extend it;
    `measures`: tables kept for replay. `outranked`: records that are kept as duplicates of one with a lower id, because
    they came in an earlier version. `edits`: `pii.email` -> how many, in the texts that passed the edit. Where records
    became several: `ledgers` of the children, how many `samples` there are, and those of each verdict. `prepared`:
    receipts of what later steps asked for (`Comparing`), by work key.
    """

    records: Records
    decided: tuple[Receipt, ...] = ()
    attachments: tuple[ObjectRef, ...] = ()
    measures: tuple[ObjectRef, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
    outranked: int = 0
    edits: Mapping[str, int] = field(default_factory=dict)
    ledgers: tuple[ObjectRef, ...] = ()
    samples: Tally | None = None
    verdicts: Mapping[str, Tally] = field(default_factory=dict)
    prepared: Mapping[str, Receipt] = field(default_factory=dict)

    def receipts_of(self, runner: Runner, prepared: Prepared) -> list[Receipt]:
        """Of this work on each chunk that there is, in order: what is done already is not looked up again. Raises as
        `Runner.map`."""
        works = [prepared.work(chunk) for chunk in self.records.chunks]
        known = [receipt for work in works if (receipt := self.prepared.get(work.key)) is not None]
        return known if len(known) == len(works) else runner.map(prepared.title, works)

    def after(
        self,
        records: Records,
        decided: Sequence[Receipt],
        *,
        attachments: Sequence[ObjectRef] = (),
        measures: Sequence[ObjectRef] = (),
        statistics: Mapping[str, Any] | None = None,
        outranked: int = 0,
        edits: Mapping[str, int] | None = None,
    ) -> State:
        """The state after a step that left these records in and decided the others' fates."""
        return replace(
            self,
            records=records,
            decided=(*self.decided, *decided),
            attachments=(*self.attachments, *attachments),
            measures=(*self.measures, *measures),
            statistics={**self.statistics, **(statistics or {})},
            outranked=self.outranked + outranked,
            edits={**self.edits, **(edits or {})},
        )


class Step(Protocol):
    """A part of a flow: a stage on each chunk, or several stages that compare records of all of them."""

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        """All that decide what it does, in order."""
        ...

    @property
    def deciders(self) -> tuple[str, ...]:
        """What its reasons begin with, in order: its rows of the funnel."""
        ...

    @property
    def grows(self) -> Mapping[str, tuple[str, ...]]:
        """Kinds of the attachments with which it compares new records, and by which columns each is sorted (none: not
        at all). A version has those of the version that it extends, and its own."""
        ...

    def run(self, run: BuildContext, state: State) -> State:
        """The state after it. `run.base`: the version that is extended. Raises Incomplete, PlanOnly, BalanceError."""
        ...


class Comparing(Step):
    """A step that compares records of all chunks."""

    @property
    def prepares(self) -> tuple[Prepared, ...]:
        """What it wants of each chunk as it is when the step begins: that may be done before, as soon as the chunk is
        there, and `State.receipts_of` has it."""
        return ()

    @property
    def keeps_chunks(self) -> bool:
        """Whether it leaves content and verdicts of every chunk as they are, and excludes records alone."""
        return True


@dataclass(frozen=True)
class Flow:
    """A whole pipeline over records: what reads the inputs, the steps in order, what writes the shards.

    `if_none`: why nothing is committed where not one record passed the reading, with `{records}`, how many there are,
    and `{reasons}`, the most frequent ones; None: an empty version is fine.
    """

    read: ReadStage
    steps: tuple[Step, ...]
    write: WriteShards
    if_none: str | None = None

    def __post_init__(self) -> None:
        names = self.deciders("of any list")  # some digest, so that the suppression's row is among them
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"steps: {', '.join(twice)} decides in two places; in the ledger they could not be told apart"
            )

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        """Every stage that decides the data. `suppression`: digest of what was taken down; "" for nothing."""
        parts = (stage for step in self.steps for stage in step.stages)
        listing = (ListMedia(),) if self.read.notes_media else ()
        in_order = (suppressed(self.read, suppression), *listing, *parts, self.write, MergeLedger())
        return tuple(identity for stage in in_order for identity in stage.identity())

    def deciders(self, suppression: str = "") -> tuple[str, ...]:
        """The rows of the funnel, in order."""
        forget = (FORGET,) if suppression else ()
        return ("read", self.read.name, *forget, *(name for step in self.steps for name in step.deciders))

    @property
    def grows(self) -> dict[str, tuple[str, ...]]:
        """Of all steps: kind -> how it is sorted."""
        return {kind: keys for step in self.steps for kind, keys in step.grows.items()}


def attachments_of(base: Manifest | None, kind: str) -> list[ObjectRef]:
    """The attachments of one kind that a version has; none where nothing is extended."""
    return [] if base is None else [ref for ref in base.attachments if ref.kind == kind]
