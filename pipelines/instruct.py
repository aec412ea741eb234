"""The instruct pipeline: lines of instruction data in, a versioned dataset of samples out.

scan -> instruct (conversation rules, tool calls, holes in code) -> filters, where there are any -> exact duplicates ->
shards -> ledger. One run makes one dataset of one form; a mixture says what several of them are worth. Refusals are a
dataset like any other, with a share of their own.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gristmill.filters.classify.filter import Quality, Toxicity
from gristmill.filters.classify.words import ToxicWords
from gristmill.filters.decontaminate import Decontaminate
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import Screening
from gristmill.pipelines.frame.flow import Flow
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.gates.texts import Samples
from gristmill.stages.text.instruct import Instruct, WriteSamples
from gristmill.stages.text.screen import Screen

_FILTERS = ("quality", "toxic_words", "toxicity", "decontaminate")
IF_NONE = (
    "not one of {records} lines is a sample: {reasons}. Is recipe.instruct.form another one, or the name of a field?"
    " Nothing was committed."
)


class InstructRecipe(RecordRecipe):
    """What decides the data. `instruct.form`: what a line is (chat, pair, code); one run reads lines of one form.
    `decontaminate`: benchmarks whose items no sample may give away; None: it is not asked."""

    form: ClassVar[Form] = "samples"

    dataset: str = "instruct"
    instruct: Instruct = Instruct()
    quality: Quality | None = None
    toxic_words: ToxicWords | None = None
    toxicity: Toxicity | None = None
    decontaminate: Decontaminate | None = None
    exact: Exact = Exact()
    shards: WriteSamples = WriteSamples()

    @property
    def flow(self) -> Flow:
        """From a line to a sample, in order."""
        screens = (Screening(self.screen),) if self.screen.filters else ()
        return Flow(self.instruct, (*screens, ExactDuplicates(self.exact)), self.shards, IF_NONE)

    @property
    def screen(self) -> Screen[Samples]:
        """All filters among the recipe's keys, in the order in which they stand there."""
        values = [getattr(self, name) for name in _FILTERS]
        return Screen(tuple(value for value in values if value is not None), Samples)

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for a benchmark that cannot be read."""
        try:
            if self.decontaminate is not None:
                self.decontaminate.check()
        except (OSError, ValueError) as error:
            raise BadConfig(f"recipe.decontaminate: {error}") from error

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Without `extends` and filters where they are off: a run has the key that it had before the recipe knew
        them. Of benchmarks the names, whose bytes count."""
        kept = super().identity(suppression)
        for name in ("extends", *_FILTERS):
            if kept[name] is None:
                del kept[name]
        if self.decontaminate is not None:
            kept["decontaminate"]["benchmarks"] = self.decontaminate.names
        return kept


class InstructConfig(PipelineConfig):
    """`conf/instruct.yaml`."""

    pipeline: str = "instruct"
    recipe: InstructRecipe = InstructRecipe()
    run: Run = Run()
