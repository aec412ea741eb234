"""The mixture pipeline: exact versions in, by weights of tokens, a dataset of packed windows out.

tokenize (one Work a shard of a source, serves every mixture) -> plan (what is drawn, into which shard) -> account (each
record's fate) -> pack (windows, as WebDataset tars with an index) -> ledger -> commit. A window's members and the
ledger say which records of which versions a model saw, and how often.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from gristmill.lake.accounts import media
from gristmill.lake.accounts.balance import Tally, check_balance, total
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.objects import ObjectRef, put_refs, read_table
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.processing.text import MissingToken
from gristmill.model.windows.placeholders import Cut, LogMel
from gristmill.pipelines.frame.assembly import bundle_receipts, funnel
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.sources import as_inputs, check_alike, check_apart, check_texts, exact, tokenizer_version
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.core.shards import MergeLedger, ledger_works
from gristmill.stages.core.work import Stage
from gristmill.stages.mix.account import DRAWN, Account, account_works
from gristmill.stages.mix.kinds import Clips, Images
from gristmill.stages.mix.media import NotTaken, TokenizeMedia
from gristmill.stages.mix.mix import MediaBudget, Plan, Share, Source, plan_work
from gristmill.stages.mix.pack import Pack, pack_works
from gristmill.stages.mix.pack_facts import schemas_of, statistics_of
from gristmill.stages.mix.pairs import TokenizePairs
from gristmill.stages.mix.plan_rows import PlanFacts, Tokenized
from gristmill.stages.mix.tokenize import Tokenize, tokenize_works
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

FUNNEL = ("tokenize", "mix")
KEYS = {
    "images": ("images", "max_window_crops", "shard_crops"),
    "audio": ("audio", "max_window_frames", "shard_frames"),
}
"""The recipe's keys for media of a form of records: how they are taken, and the budgets of a window and of a shard.
They are no part of the identity of a mixture without such media: it is what it was before them."""
TAKEN_AS = {"images": "{max_crops: 36, crop: 448, patch: 14}", "audio": "{reduction: 8}"}
"""What to write, for example."""


class MixtureRecipe(Recipe):
    """What decides the data. `sources`: exact versions and their shares; a bare number is a weight.

    `tokens`: of the whole mixture; None: as many as `max_epochs` of the sources allow. `limit`: windows, for a
    preview, drawn from the first shard of each source. `images`: how those of records are cut, `audio`: how clips
    become log-Mel frames; None: there are no such sources. `max_window_crops`: of a window, as the encoder sees them,
    and `max_window_frames`; None: as many as tokens have room for. `shard_crops`, `shard_frames`: of a shard, about.
    """

    form: ClassVar[Form] = "windows"

    dataset: str = "mix"
    tokenizer: str = ""
    sources: dict[str, Share] = {}
    window: int = Field(default=4096, ge=16, le=1 << 20)
    tokens: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    max_waste: float = Field(default=0.02, ge=0, lt=1)
    shard_tokens: int = Field(default=32 << 20, ge=1)
    images: Cut | None = None
    max_window_crops: int | None = Field(default=None, ge=2)
    shard_crops: int = Field(default=4096, ge=1)
    audio: LogMel | None = None
    max_window_frames: int | None = Field(default=None, ge=1)
    shard_frames: int = Field(default=4 << 20, ge=1)

    @field_validator("sources", mode="before")
    @classmethod
    def _weights(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        shares = {}
        for name, share in given.items():
            bare = isinstance(share, int | float) and not isinstance(share, bool)
            shares[name] = {"weight": share} if bare else share
        return shares

    @model_validator(mode="after")
    def _fits(self) -> MixtureRecipe:
        if self.shard_tokens < self.window:
            raise ValueError(f"shard_tokens={self.shard_tokens}: at least one window of {self.window}")
        for settings, of_window, _ in KEYS.values():
            most = getattr(self, of_window)
            if getattr(self, settings) is None and most is not None:
                raise ValueError(f"{of_window}={most}: for mixtures with {settings}; give {settings}, too")
        return self

    @property
    def budget(self) -> int | None:
        """Tokens to draw; None: as many as the sources allow."""
        most = None if self.limit is None else self.limit * self.window
        return most if self.tokens is None else min(self.tokens, most or self.tokens)

    @property
    def pack(self) -> Pack:
        """The stage that fills windows."""
        of_images, of_clips = (self.images, self.max_window_crops), (self.audio, self.max_window_frames)
        return Pack(self.window, self.max_waste, self.seed, *of_images, *of_clips)

    @property
    def crops(self) -> MediaBudget | None:
        """Where there are images, how many crops there can be."""
        return None if self.images is None else MediaBudget(self.max_window_crops, self.shard_crops)

    @property
    def frames(self) -> MediaBudget | None:
        """Where there are clips, how many frames there can be."""
        return None if self.audio is None else MediaBudget(self.max_window_frames, self.shard_frames)

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for versions that cannot be used, or not together."""
        mixture = Mixture.of(self, versions)
        return Resolved(mixture.identity, mixture.stages, mixture.build, sources=mixture.refs)


class MixtureConfig(PipelineConfig):
    """`conf/mixture.yaml`."""

    pipeline: str = "mixture"
    recipe: MixtureRecipe = MixtureRecipe()
    run: Run = Run()


@dataclass(frozen=True)
class Mixture:
    """A recipe with its versions looked up: `sources` in order of names; of a preview, only their first shards."""

    recipe: MixtureRecipe
    tokenizer: Manifest
    sources: tuple[Manifest, ...]
    plan: Plan

    @classmethod
    def of(cls, recipe: MixtureRecipe, versions: Versions) -> Mixture:
        """Raises BadConfig for versions that cannot be used, or not together."""
        if not recipe.sources:
            raise BadConfig(
                "recipe.sources is empty: give exact versions and weights, e.g. {web@v3: 0.7, math@v1: 0.3}"
            )
        tokenizer = tokenizer_version(versions, recipe.tokenizer)
        named = {name: exact(versions, name, "recipe.sources") for name in recipe.sources}
        check_apart(named)
        shares: list[Source] = []
        manifests: list[Manifest] = []
        for name, manifest in sorted(named.items(), key=lambda item: (item[1].dataset, item[1].version)):
            samples = check_texts(manifest, "recipe.sources")
            if manifest.form in KEYS and getattr(recipe, manifest.form) is None:
                raise BadConfig(
                    f"recipe.{manifest.form} is null, and {manifest} holds records with {manifest.form}: say how they"
                    f" are taken, as the model takes them, e.g. {TAKEN_AS[manifest.form]}"
                )
            shares.append(Source(str(manifest), recipe.sources[name], samples))
            preview = manifest.model_copy(update={"shards": manifest.shards[:1]})
            manifests.append(manifest if recipe.limit is None else preview)
        check_alike(manifests)
        is_preview = recipe.limit is not None
        size = (recipe.window, recipe.shard_tokens, recipe.budget)
        plan = Plan(tuple(shares), *size, recipe.seed, is_preview, recipe.crops, recipe.frames)
        return cls(recipe, tokenizer, tuple(manifests), plan)

    @property
    def refs(self) -> tuple[VersionRef, ...]:
        """The versions that it is made from, each with its role."""
        tokenizer = self.tokenizer.ref.model_copy(update={"role": "tokenizer"})
        return (*(source.ref.model_copy(update={"role": "mixed"}) for source in self.sources), tokenizer)

    @property
    def identity(self) -> dict[str, Any]:
        """The recipe with the versions' own names: a tag and the version that it names are the same."""
        left_out = {"sources", "tokenizer"}
        for settings, *budgets in KEYS.values():
            if getattr(self.recipe, settings) is None:
                left_out |= {settings, *budgets}
        data = self.recipe.model_dump(mode="json", exclude=left_out)
        shares = {
            source.name: {"weight": source.share.weight, "max_epochs": source.share.max_epochs}
            for source in self.plan.sources
        }
        return data | {"tokenizer": str(self.tokenizer), "sources": shares}

    @property
    def stages(self) -> tuple[StageId, ...]:
        """In the order in which they run."""
        tokenize = {stage.name: stage for stage in map(self._tokenize, self.sources)}
        stages: tuple[Stage[Any], ...] = (*tokenize.values(), self.plan, Account(), self.recipe.pack, MergeLedger())
        return tuple(part for stage in stages for part in stage.identity())

    def _tokenize(self, source: Manifest) -> Tokenize:
        """What makes tokens of a source."""
        digest = self.tokenizer.shards[0].sha256
        if source.form == "preferences":
            return TokenizePairs(digest)
        if source.form not in KEYS:
            return Tokenize(digest)
        return TokenizeMedia(digest, self.recipe.images, self.recipe.audio)

    def build(self, run: BuildContext) -> Draft:
        """Raises BadConfig where the weights cannot be drawn, Incomplete, PlanOnly, BalanceError."""
        runner, store = run.runner, run.runner.store

        # What the manifests of the sources say came in is what the tokenized shards hold.
        received, tokenized = self._tokenized(runner)
        receipts = [receipt for shards in tokenized for _, receipt in shards]
        check_balance("tokenize", received, {"read": total(r.received for r in receipts)})

        # One plan for the whole mixture, from lengths alone; then each record's fate, shard by shard of the sources.
        planned, facts = self._planned(runner, tokenized)
        accounted = runner.map("account", account_works(self.plan, facts.sources, tokenized))
        check_balance("account", total(r.passed for r in receipts), {"looked at": total(r.received for r in accounted)})

        # Windows are filled shard by shard of the mixture. Every draw that the fates speak of is in a window, and that
        # is counted anew from the windows' members.
        slices = read_table(store, plan := planned.output("plan"), ["shard", "tokens", "input"])
        packed = runner.map(
            "pack", pack_works(self.recipe.pack, plan, facts.shards, receipts, slices, self._shards_with_media)
        )
        draws = total(r.children[DRAWN] for r in accounted)
        windows = {"packed": total(r.passed for r in packed)}
        check_balance("pack", draws, windows, what="draws", end="place in a window")

        decided = [*receipts, *accounted]
        fates = put_refs(store, [r.output("fates") for r in decided])
        merged = runner.map("ledger", ledger_works(fates, received.count))
        everything = bundle_receipts(store, [*decided, planned, *packed, *merged])
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            sources=run.resolved.sources,
            inputs=tuple(file for source in self.sources for file in as_inputs(source)),
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=tuple(ref for r in packed for ref in (r.output("pack"), r.output("index"))),
            ledgers=(*(r.output("ledger") for r in merged), *(r.output("members") for r in packed)),
            attachments=(plan, everything, *self._tables_of_media),
            schemas=schemas_of(self.recipe.pack.kinds, self.sources[0].form),
            received=received,
            kept=total(r.kept for r in merged),
            dropped=total(r.dropped for r in merged),
            quarantined=total(r.quarantined for r in merged),
            samples=draws,
            verdicts=windows,
            funnel=funnel(received.count, FUNNEL, decided),
            statistics=statistics_of(packed, facts.sources, self.recipe.window, self._budgets),
        )

    @property
    def _tables_of_media(self) -> list[ObjectRef]:
        """By which media in windows are found when their source is long gone."""
        return media.tables_of(chain.from_iterable(source.attachments for source in self.sources))

    @property
    def _shards_with_media(self) -> list[ObjectRef]:
        return [ref for source in self.sources if source.form in KEYS for ref in source.shards]

    @property
    def _budgets(self) -> dict[tuple[str, str], MediaBudget]:
        """Of the kinds that there are, by what statistics call them."""
        both = {(Images.listed, Images.unit): self.recipe.crops, (Clips.listed, Clips.unit): self.recipe.frames}
        return {names: budget for names, budget in both.items() if budget is not None}

    def _planned(self, runner: Runner, tokenized: list[list[tuple[str, Receipt]]]) -> tuple[Receipt, PlanFacts]:
        """The plan of all draws. Raises BadConfig where the weights cannot be drawn."""
        objects = [[Tokenized.of(digest, receipt) for digest, receipt in shards] for shards in tokenized]
        planned = runner.map("plan", [plan_work(self.plan, objects)])[0]
        facts = planned.facts_as(PlanFacts)
        if facts.problem:
            raise BadConfig(f"recipe.sources: {facts.problem}")
        return planned, facts

    def _tokenized(self, runner: Runner) -> tuple[Tally, list[list[tuple[str, Receipt]]]]:
        """What comes in, and for each source (digest of the shard, receipt) in order."""
        works = [
            list(tokenize_works(source, self.tokenizer.shards[0], self._tokenize(source))) for source in self.sources
        ]
        try:
            done = iter(runner.map("tokenize", chain.from_iterable(works)))
        except Incomplete as error:
            if missing := [str(cause) for cause in error.errors if isinstance(cause, MissingToken)]:
                raise BadConfig(f"recipe.tokenizer: {missing[0]}") from error  # no rerun will help
            if not_taken := [str(cause) for cause in error.errors if isinstance(cause, NotTaken)]:
                raise BadConfig(f"recipe.images, recipe.audio: {not_taken[0]}") from error
            raise
        # one work a shard, in order: the shards' own digests, and what manifests say came in
        tokenized = [[(ref.sha256, next(done)) for ref in source.shards] for source in self.sources]
        return total(work.received or Tally() for work in chain.from_iterable(works)), tokenized
