"""Steps that judge each chunk by itself (filters, edits), and how a flow runs: in stretches of them, without a barrier.

A chunk is screened as soon as it was read, then edited, then signed, whatever the others are at: a large file that is
still read leaves no worker idle. Only a step that compares records of all chunks waits for all. What it wants of each
chunk by itself (`Comparing`) belongs to the stretch before it, where no step between changes chunks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.objects import ObjectRef
from gristmill.pipelines.frame.flow import Comparing, Prepared, State, Step
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.stages.core.records import Chunk, Edited
from gristmill.stages.core.work import Stage, Work
from gristmill.stages.run.sources import Phase
from gristmill.stages.text.edit import EditTexts
from gristmill.stages.text.screen import Screen, screen_work

NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})
"""Of a step that judges each record by itself: it leaves nothing for later versions to compare with."""
Begun = Callable[[int, Sequence[Receipt]], tuple[Chunk, Sequence[Receipt]]]
"""The chunk of a number as a stretch gets it, and those of its receipts that are of the stretch."""


class ChunkStep(Step):
    """A step that judges each chunk by itself. `title`: what the progress calls it."""

    title: str

    @abstractmethod
    def work(self, chunk: Chunk, exclusions: ObjectRef | None) -> Work[Any]:
        """On one chunk, with those who are excluded of all chunks (a list object; None: nobody)."""

    @abstractmethod
    def judged(self, chunk: Chunk, receipt: Receipt) -> Chunk:
        """The chunk after it."""

    @abstractmethod
    def concluded(self, state: State, receipts: Sequence[Receipt]) -> State:
        """The state after it, of the receipts of all chunks. Raises BalanceError."""

    def run(self, run: BuildContext, state: State) -> State:
        """The state after it alone. Raises as `Step.run`."""
        return Stretch((self,)).run(run, state)


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps that judge each chunk by itself, and what steps behind them want of each chunk then."""

    steps: tuple[ChunkStep, ...]
    prepares: tuple[Prepared, ...] = ()

    @classmethod
    def ahead(cls, steps: Sequence[Step]) -> Stretch:
        """The one that these steps begin with: of none, where the first compares."""
        own: list[ChunkStep] = []
        for step in steps:
            if not isinstance(step, ChunkStep):
                break
            own.append(step)
        return cls(tuple(own), tuple(_wanted(steps[len(own) :])))

    def phases(self, begun: Begun, exclusions: ObjectRef | None) -> list[Phase]:
        """A phase a step, and one for each work that is wanted behind them."""

        def chunk(number: int, receipts: Sequence[Receipt]) -> Chunk:
            at, own = begun(number, receipts)
            for step, receipt in zip(self.steps, own, strict=False):  # as far as it is
                at = step.judged(at, receipt)
            return at

        def judges(step: ChunkStep) -> Phase:
            return Phase(step.title, lambda number, receipts: step.work(chunk(number, receipts), exclusions))

        def prepares(wanted: Prepared) -> Phase:
            return Phase(wanted.title, lambda number, receipts: wanted.work(chunk(number, receipts)))

        return [*map(judges, self.steps), *map(prepares, self.prepares)]

    def concluded(self, state: State, done: Sequence[Sequence[Receipt]]) -> State:
        """The state after all of it. `done`: receipts of all chunks, a list a phase. Raises BalanceError."""
        count = len(self.steps)
        for step, receipts in zip(self.steps, done[:count], strict=True):
            state = step.concluded(state, receipts)
        return replace(state, prepared={receipt.work_key: receipt for of_all in done[count:] for receipt in of_all})

    def run(self, run: BuildContext, state: State) -> State:
        """The state after all of it. Raises as `Step.run`."""
        chunks, store = state.records.chunks, run.runner.store
        exclusions = state.records.put_exclusions(store) if state.records.exclusions else None
        phases = self.phases(lambda number, receipts: (chunks[number], receipts), exclusions)
        return self.concluded(state, run.runner.pipelined(len(chunks), phases))


def _wanted(steps: Sequence[Step]) -> Iterator[Prepared]:
    """What of these steps those want which get the chunks as they are before the first."""
    for step in steps:
        if not isinstance(step, Comparing):  # it may change chunks
            return
        yield from step.prepares
        if not step.keeps_chunks:
            return


def run_steps(run: BuildContext, state: State, steps: Sequence[Step]) -> State:
    """The state after all steps, in order. Raises as `Step.run`."""
    while steps:
        stretch = Stretch.ahead(steps)
        state = stretch.run(run, state) if stretch.steps else steps[0].run(run, state)
        steps = steps[max(1, len(stretch.steps)) :]
    return state


@dataclass(frozen=True)
class Screening(ChunkStep):
    """Filters over every chunk, each with a table of verdicts. `title`: what the progress calls it, where a flow has
    several."""

    screen: Screen[Any]
    title: str = "screen"

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = NOTHING

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return (self.screen,)

    @property
    def deciders(self) -> tuple[str, ...]:
        return tuple(filter_.name for filter_ in self.screen.filters)

    def work(self, chunk: Chunk, exclusions: ObjectRef | None) -> Work[Any]:
        return screen_work(self.screen, chunk, exclusions)

    def judged(self, chunk: Chunk, receipt: Receipt) -> Chunk:
        return chunk.judged(receipt, self.screen.schema.names)

    def concluded(self, state: State, receipts: Sequence[Receipt]) -> State:
        """Without what a filter has a reason against."""
        records = state.records.judged(self.title, receipts, self.screen.schema.names)
        return state.after(records, receipts, measures=[receipt.output("screened") for receipt in receipts])


@dataclass(frozen=True)
class Editing(ChunkStep):
    """Texts rewritten, chunk by chunk. What it counts of the texts that are left is `edits` in the statistics."""

    edit: EditTexts
    title: str = "edit"

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = NOTHING

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return (self.edit,)

    @property
    def deciders(self) -> tuple[str, ...]:
        return tuple(edit.name for edit in self.edit.edits)

    def work(self, chunk: Chunk, exclusions: ObjectRef | None) -> Work[Any]:
        return screen_work(self.edit, chunk, exclusions)

    def judged(self, chunk: Chunk, receipt: Receipt) -> Chunk:
        return chunk.judged(receipt, self.edit.measures)

    def concluded(self, state: State, receipts: Sequence[Receipt]) -> State:
        """With what is in rewritten, and without what nothing is left of."""
        records = state.records.judged(self.title, receipts, self.edit.measures)
        screened = [receipt.output("screened") for receipt in receipts]
        return state.after(records, receipts, measures=screened, edits=edits_of(receipts))


def edits_of(receipts: Sequence[Receipt]) -> dict[str, int]:
    """What stages that edit say they did, in all texts that passed: `pii.email` -> how many, zeros too."""
    edits: Counter[str] = Counter()
    for receipt in receipts:
        edits.update(receipt.facts_as(Edited).edits)
    return dict(edits)
