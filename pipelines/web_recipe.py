"""The recipe of the web pipeline: every key that decides the data, and what follows from them.

Leaves stand beside the stages that use them. `conf/web.yaml` has each with its default. What was taken down
(`grist forget`) is no key, but decides the data as well: its digest enters run keys, stages and the manifest's recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from filters.docs import Docs
from filters.gopher import GopherQuality
from filters.language import LanguageFilter
from filters.minhash import MinHash
from lake.manifest import VersionRef, run_key
from lake.receipt import StageId
from pipelines.config import Named, Root, Run
from pipelines.flow import Flow, Step
from pipelines.steps import ExactDuplicates, NearDuplicates, RepeatedParagraphs, Screening
from stages.choose import Choose
from stages.exact import Exact
from stages.extract import Extract
from stages.gather import Gather
from stages.minhash import N_WORDS, Collect, Sign
from stages.paragraphs import Paragraphs
from stages.scan import Scan
from stages.screen import Screen
from stages.shards import WriteShards


class Recipe(Named):
    """What decides the data. `inputs` count by content: their paths are no part of the run key.

    `extends` names the dataset itself: only inputs it has not seen are taken, on top of its latest version.
    """

    dataset: str = "web"
    extends: str | None = None
    inputs: tuple[str, ...] = ()
    allow_empty: bool = False
    scan: Scan = Scan()
    extract: Extract = Extract()
    language: LanguageFilter = LanguageFilter()
    gopher_quality: GopherQuality = GopherQuality()
    exact: Exact = Exact()
    paragraphs: Paragraphs | None = None
    minhash: MinHash | None = MinHash()
    survivor: tuple[str, ...] = (N_WORDS,)
    min_similarity: float | None = Field(default=0.7, gt=0, le=1)
    shards: WriteShards = WriteShards()
    max_quarantine_rate: float = Field(default=0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _can_grow(self) -> Recipe:
        if self.extends is not None and self.extends != self.dataset:
            raise ValueError(f"extends: {self.extends!r} is not {self.dataset!r}; a dataset extends itself")
        if self.extends is not None and self.limit is not None:
            raise ValueError("limit: a look at a few records, on which nothing is built; leave extends out")
        if not self.survivor:
            raise ValueError(f"survivor: name at least one measure, such as {N_WORDS}")
        return self

    @property
    def flow(self) -> Flow:
        """From a page to a document, in order."""
        steps: list[Step] = [Screening(self.screen), ExactDuplicates(self.exact)]
        if self.paragraphs is not None:
            steps.append(RepeatedParagraphs(self.paragraphs))
        if self.minhash is not None:
            sign, collect = Sign(self.minhash), Collect(self.minhash.bands, self.minhash.rows, self.survivor)
            gather = Gather(signatures=self.min_similarity is not None)
            steps.append(NearDuplicates(sign, collect, gather, Choose(self.min_similarity)))
        return Flow(self.extract, tuple(steps), self.shards)

    @property
    def screen(self) -> Screen[Docs]:
        return Screen((self.language, self.gopher_quality), Docs)

    def stages(self, suppression: str = "") -> tuple[StageId, ...]:
        """Every stage that decides the data. `suppression`: digest of what was taken down; "" for nothing."""
        return (*self.scan.identity(), *self.flow.stages(suppression))

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """The recipe as the manifest keeps it: without addresses, with the digest of what was taken down."""
        kept = self.model_dump(mode="json", exclude={"inputs": True, "language": {"model_path"}})
        return kept | {"suppression": suppression} if suppression else kept

    def run_key(self, inputs: Sequence[str], suppression: str = "", sources: Sequence[VersionRef] = ()) -> str:
        """Of these input digests, with what was taken down so far left out."""
        identity, stages = self.identity(suppression), self.stages(suppression)
        return run_key(self.target, identity, inputs, stages, sources)


class WebConfig(Root):
    pipeline: str = "web"
    recipe: Recipe = Recipe()
    run: Run = Run()
