"""The preference pipeline: lines with a prompt, a chosen and a rejected answer in, a versioned dataset of pairs out.

scan -> preference (rules of a conversation, one prompt, two answers) -> exact duplicates -> shards -> ledger. A mixture
of such versions has windows of pairs, for a stage of training with `loss: dpo`.
"""

from __future__ import annotations

from typing import ClassVar

from gristmill.lake.versions.form import Form
from gristmill.pipelines.frame.flow import Flow
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates
from gristmill.pipelines.settings.config import Run
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.text.preference import Preference, WritePairs

IF_NONE = (
    "not one of {records} lines is a pair: {reasons}. Do recipe.preference.prompt, chosen and rejected name the fields?"
    " Nothing was committed."
)


class PreferenceRecipe(RecordRecipe):
    """What decides the data. `preference`: what the fields of a line are called."""

    form: ClassVar[Form] = "preferences"

    dataset: str = "preference"
    preference: Preference = Preference()
    exact: Exact = Exact()
    shards: WritePairs = WritePairs()

    @property
    def flow(self) -> Flow:
        """From a line to a pair, in order."""
        return Flow(self.preference, (ExactDuplicates(self.exact),), self.shards, IF_NONE)


class PreferenceConfig(PipelineConfig):
    """`conf/preference.yaml`."""

    pipeline: str = "preference"
    recipe: PreferenceRecipe = PreferenceRecipe()
    run: Run = Run()
