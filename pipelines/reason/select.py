"""The versions that are made of rollouts: fine-tuning samples, and pairs of preferences.

choose (one Work: caps, distinct chains, shares, held-out texts) -> write (one Work a shard of rollouts) -> ledger. Both
versions make the same choice, which is done once: its receipt serves the other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

from gristmill.lake.accounts.balance import Tally, check_balance, total
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import BuildContext, Recipe, Resolved
from gristmill.pipelines.reason.contamination import held_out, indexed, refs_of
from gristmill.pipelines.reason.derived import ROLE, draft_of, most_frequent, samples_of, summed
from gristmill.stages.core.shards import MergeLedger, Statistics
from gristmill.stages.core.work import Stage
from gristmill.stages.gates.held_out import HeldOutIndex, IndexHeldOut
from gristmill.stages.generate.contamination import Decontaminate
from gristmill.stages.generate.draw import Prompt
from gristmill.stages.select.choose import CHOSEN, Choose, ChooseFacts, choose_work, report
from gristmill.stages.select.questions import WriteQuestions
from gristmill.stages.select.write import WriteChains, WriteStepPairs, write_works
from gristmill.synth.first_names import COMMON
from gristmill.synth.selection import Selection

log = logging.getLogger("gristmill")


class SelectRecipe(Recipe):
    """Fine-tuning samples of the version `of` of rollouts. `names`: group -> names, for the report of groups;
    None: common first names of English."""

    form: ClassVar[Form] = "samples"
    per_sample: ClassVar[bool] = True
    """Whether its records are samples of the rollouts, or their problems."""

    of: str
    prompt: Prompt = Prompt()
    select: Selection = Selection()
    decontaminate: Decontaminate | None = None
    names: dict[str, tuple[str, ...]] | None = None

    @property
    def write(self) -> WriteChains | WriteQuestions | WriteStepPairs:
        """What writes the shards."""
        return WriteChains(self.prompt)

    @property
    def decider(self) -> str:
        """What its reasons begin with."""
        return "select"

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for a held-out version that cannot be used."""
        rollouts = versions.resolve(self.of)
        selecting = Selecting(self, rollouts)
        identity = self.model_dump(mode="json")
        sources = (rollouts.ref.model_copy(update={"role": ROLE}), *refs_of(versions, self.decontaminate))
        return Resolved(identity, selecting.stages, selecting.build, sources=sources)


class QuestionsRecipe(SelectRecipe):
    """Problems that were written from seeds, as texts."""

    form: ClassVar[Form] = "documents"

    @property
    def write(self) -> WriteQuestions:
        """What writes the shards."""
        return WriteQuestions()


class PairsRecipe(SelectRecipe):
    """Pairs of preferences, one a problem, of the same rollouts."""

    form: ClassVar[Form] = "preferences"
    per_sample: ClassVar[bool] = False

    @property
    def write(self) -> WriteStepPairs:
        """What writes the shards."""
        return WriteStepPairs(self.prompt)

    @property
    def decider(self) -> str:
        """What its reasons begin with."""
        return "pairs"


@dataclass(frozen=True)
class Selecting:
    """A recipe with its version of rollouts looked up."""

    recipe: SelectRecipe
    rollouts: Manifest

    @property
    def choose(self) -> Choose:
        """What decides."""
        recipe = self.recipe
        overlap = None if recipe.decontaminate is None else recipe.decontaminate.overlap
        return Choose(recipe.select, overlap, COMMON if recipe.names is None else recipe.names)

    @property
    def stages(self) -> tuple[StageId, ...]:
        """In the order in which they run."""
        asked = self.recipe.decontaminate
        index: tuple[Stage[Any], ...] = () if asked is None else (IndexHeldOut(asked.overlap),)
        stages: tuple[Stage[Any], ...] = (*index, self.choose, self.recipe.write, MergeLedger())
        return tuple(part for stage in stages for part in stage.identity())

    def build(self, run: BuildContext) -> Draft:
        """Raises GateFailed where nothing was selected, Incomplete, PlanOnly, BalanceError."""
        runner, store, recipe = run.runner, run.runner.store, self.recipe
        index: HeldOutIndex | None = None
        receipts = []
        if recipe.decontaminate is not None:
            index, indexing = indexed(runner, held_out(Versions(store), recipe.decontaminate), recipe.decontaminate)
            receipts.append(indexing)
        shards = [ref for ref in self.rollouts.shards if ref.records]
        (chosen,) = runner.map("choose", [choose_work(self.choose, store, shards, index)])
        facts = chosen.facts_as(ChooseFacts)
        self._check_whole(facts)
        counts = facts.samples if recipe.per_sample else [ref.records for ref in shards]
        written = runner.map(recipe.decider, write_works(recipe.write, shards, counts, chosen.output(CHOSEN)))
        if not total(receipt.kept for receipt in written).count:
            self._nothing(run.dataset, facts, most_frequent(written))
        statistics = summed([receipt.facts_as(Statistics) for receipt in written])
        more = {"selection": report(facts)} if recipe.per_sample else {}
        rows = recipe.write.rows
        return draft_of(run, self.rollouts, recipe.decider, rows, written, [*receipts, chosen], statistics, **more)

    @property
    def form(self) -> Form:
        """Of the version."""
        return self.recipe.form

    def _nothing(self, dataset: str, facts: ChooseFacts, mostly: str) -> None:
        """Says that a version is empty, where that is no fault: no problem has a right chain and a wrong one, and there
        are chains to fine-tune on. Raises GateFailed where nothing at all came of the rollouts."""
        if self.form == "preferences" and facts.selected:
            log.warning(
                "%s is empty, and no stage can be trained on it: not one of %s problems has both a right chain and a"
                " wrong one: %s. The right chains go into their own version; for pairs draw more samples of a problem"
                " (recipe.stop), or harder problems",
                *(dataset, f"{sum(ref.records for ref in self.rollouts.shards):,}", mostly),
            )
            return
        raise GateFailed(
            f"{dataset}: nothing is left: {mostly or 'there are no samples'}. The rollouts are kept; change recipe."
            f"{'stop' if self.form == 'preferences' else 'select'}, or draw more samples"
        )

    def _check_whole(self, facts: ChooseFacts) -> None:
        """Raises BalanceError unless there are as many samples as the rollouts' ledger accounts for."""
        there = sum(facts.samples)
        stated = samples_of(self.rollouts)
        counted = {"chosen": Tally.of(f"{n}".encode() for n in range(there))}
        check_balance("choose", Tally.of(f"{n}".encode() for n in range(stated)), counted, what="samples", end="reason")
