"""The web pipeline: crawls in, an accounted, versioned dataset of clean text out.

scan (input side of the balance) -> extract (read + HTML to text) -> screen (language, Gopher quality) -> exact
duplicates -> repeated paragraphs -> near duplicates -> shards -> ledger; the order stands in pipelines/web_build.py.
Leaves of the recipe stand beside the stages that use them; `conf/web.yaml` has each key with its default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from filters.gopher import GopherQuality
from filters.language import LanguageFilter
from filters.minhash import MinHash
from lake.manifest import Draft, Manifest
from lake.receipt import StageId
from lake.versions import Versions
from pipelines.config import BadConfig, Run
from pipelines.recipe import BuildContext, InputRecipe, PipelineConfig, Resolved
from pipelines.web_build import COMPARED, build
from stages.choose import Choose
from stages.clusters import Clusters
from stages.exact import Exact
from stages.extract import Extract
from stages.gather import Gather
from stages.link import Link, MergeForests
from stages.minhash import N_WORDS, Collect, Sign
from stages.paragraphs import Paragraphs
from stages.screen import Screen
from stages.shards import MergeLedger, WriteShards
from stages.suppress import suppressed


class WebRecipe(InputRecipe):
    """What decides the data."""

    form: ClassVar[str] = "documents"

    dataset: str = "web"
    extract: Extract = Extract()
    language: LanguageFilter = LanguageFilter()
    gopher_quality: GopherQuality = GopherQuality()
    exact: Exact = Exact()
    paragraphs: Paragraphs | None = None
    minhash: MinHash | None = MinHash()
    survivor: tuple[str, ...] = (N_WORDS,)
    min_similarity: float | None = Field(default=0.7, gt=0, le=1)
    shards: WriteShards = WriteShards()

    @model_validator(mode="after")
    def _has_survivors(self) -> WebRecipe:
        if not self.survivor:
            raise ValueError(f"survivor: name at least one measure, such as {N_WORDS}")
        return self

    @property
    def screen(self) -> Screen:
        return Screen(filters=(self.language, self.gopher_quality))

    @property
    def sign(self) -> Sign:
        return Sign(self.minhash or MinHash())

    @property
    def collect(self) -> Collect:
        settings = self.minhash or MinHash()
        return Collect(settings.bands, settings.rows, self.survivor)

    @property
    def gather(self) -> Gather:
        return Gather(signatures=self.min_similarity is not None)

    @property
    def choose(self) -> Choose:
        return Choose(self.min_similarity)

    def check(self) -> None:
        try:
            self.language.check()
        except (OSError, ValueError, RuntimeError) as error:
            raise BadConfig(f"recipe.language: {error}") from error
        measures = [N_WORDS, *self.screen.measures()]
        if unknown := sorted({name.removeprefix("-") for name in self.survivor} - set(measures)):
            known = ", ".join(measures)
            raise BadConfig(f"recipe.survivor: no measure is called {', '.join(unknown)}; there are {known}")

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        reading = (self.scan, suppressed(self.extract, suppression), self.screen)
        repeated = (self.paragraphs,) if self.paragraphs else ()
        compared = (Link(), MergeForests(), self.gather, self.choose, Clusters())
        near = (self.sign, self.collect, *compared) if self.minhash else ()
        in_order = (*reading, self.exact, *repeated, *near, self.shards, MergeLedger())
        return tuple(identity for stage in in_order for identity in stage.identity())

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Without the address of the language model as well: its bytes count."""
        kept = super().identity(suppression)
        del kept["language"]["model_path"]
        return kept

    @property
    def compared(self) -> Collection[str]:
        return COMPARED

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        if not (self.minhash or base.recipe.get("minhash")):
            return {}
        return dict.fromkeys(("minhash", "survivor"), "signatures of other settings cannot be compared")

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        return Resolved(self.identity(suppression), self.stages(suppression), self._build)

    def _build(self, run: BuildContext) -> Draft:
        return build(self, run.runner, run.inputs, run.key, run.suppression, run.base)


class WebConfig(PipelineConfig):
    pipeline: str = "web"
    recipe: WebRecipe = WebRecipe()
    run: Run = Run()
