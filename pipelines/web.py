"""The web pipeline: crawls in, an accounted, versioned dataset of clean text out.

scan (input side of the balance) -> extract (read + HTML to text) -> screen (language, Gopher quality) -> edits (C4's
lines, personal data) -> exact duplicates -> repeated paragraphs -> repeated substrings -> near duplicates -> shards ->
ledger. Edits and what is repeated are off by default. Leaves of the recipe stand beside the stages that use them;
`conf/web.yaml` has each key with its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from gristmill.filters.base import Filter
from gristmill.filters.c4 import C4Quality
from gristmill.filters.classify.filter import Quality, Toxicity
from gristmill.filters.classify.words import ToxicWords
from gristmill.filters.datatrove_filter import DatatroveFilter
from gristmill.filters.decontaminate import Decontaminate
from gristmill.filters.edits.c4_lines import C4Lines
from gristmill.filters.edits.pii import Pii
from gristmill.filters.fineweb import FineWebQuality
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.language import LanguageFilter, deciding
from gristmill.filters.language_quality import LanguageQuality
from gristmill.filters.repetition import GopherRepetition
from gristmill.filters.rights import DeclaredDocs, Rights
from gristmill.filters.signatures.minhash import MinHash
from gristmill.filters.text.docs import Docs
from gristmill.filters.url import UrlRules
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.chunk_steps import Editing, Screening
from gristmill.pipelines.frame.flow import Flow, Step
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates, NearDuplicates, RepeatedParagraphs, RepeatedSubstrings
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.clusters.select_survivors import SelectSurvivors
from gristmill.stages.core.shards import WriteShards
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.dedup.paragraphs import Paragraphs
from gristmill.stages.dedup.substrings import Substrings
from gristmill.stages.near.gather import Gather
from gristmill.stages.near.minhash import N_WORDS, GatherSignatures, Sign
from gristmill.stages.text.declared import DeclaredFields
from gristmill.stages.text.edit import EditTexts
from gristmill.stages.text.extract import Extract, ExtractWanted, WriteDeclared
from gristmill.stages.text.screen import Screen

_LATER = (
    "rights",
    "url",
    "gopher_repetition",
    "c4_quality",
    "fineweb_quality",
    "language_quality",
    "datatrove",
    "quality",
    "toxic_words",
    "toxicity",
    "decontaminate",
    "c4_lines",
    "pii",
    "substrings",
)
NO_PAGE = (
    "recipe.inputs: not one of {records} records is a page or a text to read; mostly {reasons}. WAT files and files of"
    " requests hold none: read the WARC or WET beside them. Set recipe.allow_empty=true if that is as it should be;"
    " nothing was committed."
)


class WebRecipe(RecordRecipe):
    """What decides the data. Every key whose value is a filter or an edit is one, in the order of the keys.

    `survivor`: measures by which the best of near duplicates is chosen; the first that differs decides, the greater is
    better, with `-` before a name the smaller. `min_similarity`: estimated Jaccard similarity to a survivor from which
    a record is dropped; None: sharing bands is enough. A filter or step whose default is None, and `minhash`: None
    leaves it out.
    """

    form: ClassVar[Form] = "documents"

    dataset: str = "web"
    extract: Extract = Extract()
    rights: Rights | None = None
    url: UrlRules | None = None
    language: LanguageFilter = LanguageFilter()
    gopher_repetition: GopherRepetition | None = None
    gopher_quality: GopherQuality | None = GopherQuality()
    c4_quality: C4Quality | None = None
    fineweb_quality: FineWebQuality | None = None
    language_quality: LanguageQuality | None = None
    datatrove: DatatroveFilter | None = None
    quality: Quality | None = None
    toxic_words: ToxicWords | None = None
    toxicity: Toxicity | None = None
    decontaminate: Decontaminate | None = None
    c4_lines: C4Lines | None = None
    pii: Pii | None = None
    exact: Exact = Exact()
    paragraphs: Paragraphs | None = None
    substrings: Substrings | None = None
    minhash: MinHash | None = MinHash()
    survivor: tuple[str, ...] = (N_WORDS,)
    min_similarity: float | None = Field(default=0.7, gt=0, le=1)
    shards: WriteShards = WriteShards()

    @property
    def flow(self) -> Flow:
        """From a page to a document, in order."""
        steps: list[Step] = [Screening(self.screen)]
        if edits := tuple(edit for edit in (self.c4_lines, self.pii) if edit is not None):
            steps.append(Editing(EditTexts(edits)))
        steps.append(ExactDuplicates(self.exact))
        if self.paragraphs is not None:
            steps.append(RepeatedParagraphs(self.paragraphs))
        if self.substrings is not None:
            steps.append(RepeatedSubstrings(self.substrings))
        if self.minhash is not None:
            steps.append(
                NearDuplicates(
                    sign=Sign(self.minhash),
                    gather_signatures=GatherSignatures(self.minhash.bands, self.minhash.rows, self.survivor),
                    gather=Gather(signatures=self.min_similarity is not None),
                    select_survivors=SelectSurvivors(self.min_similarity),
                )
            )
        extract = self.reading
        write = self.shards if extract.rights is None else WriteDeclared(target_bytes=self.shards.target_bytes)
        # A preview may begin with whatever a file begins with, and an increment may bring nothing.
        may_be_empty = self.allow_empty or self.limit is not None or self.extends is not None
        return Flow(extract, tuple(steps), write, None if may_be_empty else NO_PAGE)

    @property
    def reading(self) -> Extract:
        """The extraction; it keeps what is declared where a filter asks for it, and knows the language filter where it
        is to ask for the language first."""
        extract = self.extract
        if self.rights is not None and extract.rights is None:
            extract = replace(extract, rights=DeclaredFields())
        return extract if extract.language_first is None else ExtractWanted.of(extract, self.language)

    @property
    def screen(self) -> Screen[Docs]:
        """All filters among the recipe's keys, in the order in which they stand there."""
        values = [getattr(self, name) for name in type(self).model_fields]
        filters = tuple(value for value in values if isinstance(value, Filter))
        return Screen(filters, Docs if self.rights is None else DeclaredDocs)

    @model_validator(mode="after")
    def _has_survivors(self) -> WebRecipe:
        if not self.survivor:
            raise ValueError(f"survivor: name at least one measure, such as {N_WORDS}")
        return self

    @model_validator(mode="after")
    def _has_unwanted_languages(self) -> WebRecipe:
        if self.extract.language_first is not None and not self.language.keep:
            raise ValueError(
                "extract.language_first: language.keep is empty, so that every language is wanted and no page can be"
                " dropped for its own; name languages there, or set extract.language_first to null"
            )
        return self

    @property
    def decides_reading(self) -> Mapping[str, str]:
        """The languages that are kept, where pages in others are not extracted."""
        return {} if self.extract.language_first is None else {"language.keep": "extract.language_first"}

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for a language model, block list or filter that cannot be used, and for a measure that no
        filter takes."""
        for key in ("language", "url", "datatrove", "decontaminate"):
            checked = getattr(self, key)
            try:
                if checked is not None:
                    checked.check()
            except (OSError, ValueError, RuntimeError) as error:
                raise BadConfig(f"recipe.{key}: {error}") from error
        measures = [N_WORDS, *self.screen.measures()]
        if unknown := sorted({name.removeprefix("-") for name in self.survivor} - set(measures)):
            known = ", ".join(measures)
            raise BadConfig(f"recipe.survivor: no measure is called {', '.join(unknown)}; there are {known}")

    def identity(self, suppression: str = "") -> dict[str, Any]:
        """Without the addresses of the language model, block lists and benchmarks as well, whose bytes count, without
        settings that decide nothing beside others, and without filters that came later and are off: a recipe that does
        not use them is what it was before there were any."""
        kept = super().identity(suppression)
        kept["language"] = deciding(kept["language"])
        for name in ("rights", "language_first"):
            if kept["extract"][name] is None:
                del kept["extract"][name]
        for name in _LATER:
            if kept[name] is None:
                del kept[name]
        if "url" in kept:
            del kept["url"]["block_lists"]
        if self.substrings is not None:
            for name in self.substrings.unused:
                del kept["substrings"][name]
        if "decontaminate" in kept:
            kept["decontaminate"]["benchmarks"] = self.decontaminate.names  # type: ignore[union-attr]  # it is on
        return kept

    def check_form(self, base: Manifest) -> None:
        """Raises BadConfig also where the rows of `base` have other columns than those that this recipe makes."""
        super().check_form(base)
        before = base.recipe.get("rights") is not None or base.recipe.get("extract", {}).get("rights") is not None
        if before != (self.reading.rights is not None):
            has, keeps = ("has", "does not keep") if before else ("does not have", "keeps")
            raise BadConfig(
                f"recipe.extract.rights: {base} {has} columns of what is declared, which this recipe {keeps}; rows of"
                " one dataset have the same columns. Take its setting, or make another dataset of all inputs"
            )

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        """Near duplicates are compared by signatures, whatever else the two recipes are."""
        if not (self.minhash or base.recipe.get("minhash")):
            return {}
        return dict.fromkeys(("minhash", "survivor"), "signatures of other settings cannot be compared")


class WebConfig(PipelineConfig):
    """`conf/web.yaml`."""

    pipeline: str = "web"
    recipe: WebRecipe = WebRecipe()
    run: Run = Run()
