"""The instruct pipeline: lines of instruction data in, a versioned dataset of samples out.

scan -> instruct (conversation rules, tool calls, holes in code) -> exact duplicates -> shards -> ledger. One run makes
one dataset of one form; a mixture says what several of them are worth. Refusals are a dataset like any other, with a
share of their own.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gristmill.lake.versions.form import Form
from gristmill.pipelines.frame.flow import Flow
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates
from gristmill.pipelines.settings.config import Run
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.text.instruct import Instruct, WriteSamples

IF_NONE = (
    "not one of {records} lines is a sample: {reasons}. Is recipe.instruct.form another one, or the name of a field?"
    " Nothing was committed."
)


class InstructRecipe(RecordRecipe):
    """What decides the data. `instruct.form`: what a line is (chat, pair, code); one run reads lines of one form."""

    form: ClassVar[Form] = "samples"

    dataset: str = "instruct"
    instruct: Instruct = Instruct()
    exact: Exact = Exact()
    shards: WriteSamples = WriteSamples()

    @property
    def flow(self) -> Flow:
        """From a line to a sample, in order."""
        return Flow(self.instruct, (ExactDuplicates(self.exact),), self.shards, IF_NONE)

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Without `extends` where it is off: a run has the key that it had before the recipe knew it."""
        kept = super().identity(suppression)
        if self.extends is None:
            del kept["extends"]
        return kept


class InstructConfig(PipelineConfig):
    """`conf/instruct.yaml`."""

    pipeline: str = "instruct"
    recipe: InstructRecipe = InstructRecipe()
    run: Run = Run()
