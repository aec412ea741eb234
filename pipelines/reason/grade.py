"""The version of samples with advantages that is made of rollouts: grade (one Work a shard of rollouts) -> ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gristmill.lake.accounts.balance import BalanceError, total
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import BuildContext, Recipe, Resolved
from gristmill.pipelines.reason.derived import ROLE, draft_of, most_frequent, samples_of, summed
from gristmill.stages.core.shards import MergeLedger
from gristmill.stages.generate.draw import Prompt
from gristmill.stages.select.grade import GRADED, Grade, GradeFacts, grade_works

DECIDER = "graded"


class GradeRecipe(Recipe):
    """The samples of the version `of` of rollouts, with their advantages."""

    form: ClassVar[Form] = "graded"

    of: str
    prompt: Prompt = Prompt()

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Looks up the rollouts."""
        rollouts = versions.resolve(self.of)
        grading = Grading(Grade(self.prompt), rollouts)
        sources = (rollouts.ref.model_copy(update={"role": ROLE}),)
        return Resolved(self.model_dump(mode="json"), grading.stages, grading.build, sources=sources)


@dataclass(frozen=True)
class Grading:
    """A recipe with its version of rollouts looked up."""

    grade: Grade
    rollouts: Manifest

    @property
    def stages(self) -> tuple[StageId, ...]:
        """In the order in which they run."""
        return (*self.grade.identity(), *MergeLedger().identity())

    def build(self, run: BuildContext) -> Draft:
        """Raises GateFailed where no group says anything, Incomplete, PlanOnly, BalanceError."""
        shards = [ref for ref in self.rollouts.shards if ref.records]
        written = run.runner.map("grade", grade_works(self.grade, shards))
        there, stated = total(receipt.received for receipt in written).count, samples_of(self.rollouts)
        if there != stated:
            raise BalanceError(f"grade: {there:,} samples in the shards of {self.rollouts}, {stated:,} in its ledger")
        if not total(receipt.kept for receipt in written).count:
            raise GateFailed(
                f"{run.dataset}: no problem of {self.rollouts} has both an accepted and a rejected sample, and nothing"
                f" is to be learned of them: {most_frequent(written)}. Draw more samples of a problem (recipe.group),"
                " of other problems, or with another model"
            )
        facts = [receipt.facts_as(GradeFacts) for receipt in written]
        judged, accepted = sum(each.judged for each in facts), sum(each.accepted for each in facts)
        rewards = {"judged": judged, "accepted": accepted, "mean": round(accepted / judged, 6)}
        return draft_of(run, self.rollouts, DECIDER, GRADED, written, (), summed(facts), rewards=rewards)
