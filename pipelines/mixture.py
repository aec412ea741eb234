"""The mixture pipeline: exact versions in, by weights of tokens, a dataset of packed windows out.

tokenize (one Work a shard of a source, serves every mixture) -> plan (what is drawn, into which shard) -> account (each
record's fate) -> pack (windows, as WebDataset tars with an index) -> ledger -> commit. A window's members and the
ledger say which records of which versions a model saw, and how often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from lake.balance import Tally, check_balance, total
from lake.form import Form
from lake.manifest import Draft, Manifest, VersionRef
from lake.objects import put_refs, read_table
from lake.receipt import Receipt, StageId
from lake.versions import Versions
from model.processing.text import MissingToken
from pipelines.assembly import bundle_receipts, funnel
from pipelines.config import BadConfig, Run
from pipelines.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from pipelines.sources import as_inputs, check_texts, exact
from stages.account import Account, account_works
from stages.mix import Plan, Share, Source, plan_work
from stages.pack import Pack, pack_works
from stages.runner import Incomplete, Runner
from stages.shards import MergeLedger, ledger_works
from stages.tokenize import Tokenize, tokenize_works

FUNNEL = ("tokenize", "mix")
WINDOW_SCHEMA = "input_ids: int32, loss_mask: bool, cu_seqlens: int32"


class MixtureRecipe(Recipe):
    """What decides the data. `sources`: exact versions and their shares; a bare number is a weight.

    `tokens`: of the whole mixture; None: as many as `max_epochs` of the sources allow. `limit`: windows, for a
    look, drawn from the first shard of each source.
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

    @field_validator("sources", mode="before")
    @classmethod
    def _weights(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        number = (int, float)
        return {k: {"weight": v} if isinstance(v, number) and not isinstance(v, bool) else v for k, v in given.items()}

    @model_validator(mode="after")
    def _fits(self) -> MixtureRecipe:
        if self.shard_tokens < self.window:
            raise ValueError(f"shard_tokens={self.shard_tokens}: at least one window of {self.window}")
        return self

    @property
    def budget(self) -> int | None:
        most = None if self.limit is None else self.limit * self.window
        return most if self.tokens is None else min(self.tokens, most or self.tokens)

    @property
    def pack(self) -> Pack:
        return Pack(self.window, self.max_waste, self.seed)

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        mixture = Mixture.of(self, versions)
        return Resolved(mixture.identity, mixture.stages, mixture.build, sources=mixture.refs)


class MixtureConfig(PipelineConfig):
    pipeline: str = "mixture"
    recipe: MixtureRecipe = MixtureRecipe()
    run: Run = Run()


@dataclass(frozen=True)
class Mixture:
    """A recipe with its versions looked up, in order of their names."""

    recipe: MixtureRecipe
    tokenizer: Manifest
    sources: tuple[Manifest, ...]
    plan: Plan

    @classmethod
    def of(cls, recipe: MixtureRecipe, versions: Versions) -> Mixture:
        """Raises BadConfig."""
        if not recipe.sources:
            raise BadConfig(
                "recipe.sources is empty: give exact versions and weights, e.g. {web@v3: 0.7, math@v1: 0.3}"
            )
        if not recipe.tokenizer:
            raise BadConfig(
                "recipe.tokenizer is empty: give an exact version, e.g. bpe@v1 (`grist tokenizer` makes one)"
            )
        tokenizer = exact(versions, recipe.tokenizer, "recipe.tokenizer")
        if tokenizer.form != "tokenizer":
            raise BadConfig(
                f"recipe.tokenizer: {tokenizer} is no tokenizer; `grist tokenizer train` or `add` makes one"
            )
        found = {name: exact(versions, name, "recipe.sources") for name in recipe.sources}
        _check_apart(found)
        pairs = sorted(found.items(), key=lambda pair: (pair[1].dataset, pair[1].version))
        sources = []
        for name, manifest in pairs:
            samples = check_texts(versions.store, manifest, "recipe.sources")
            sources.append(Source(str(manifest), recipe.sources[name], samples))
        look = recipe.limit is not None
        plan = Plan(tuple(sources), recipe.window, recipe.shard_tokens, recipe.budget, recipe.seed, look)
        looked = [m if recipe.limit is None else m.model_copy(update={"shards": m.shards[:1]}) for _, m in pairs]
        return cls(recipe, tokenizer, tuple(looked), plan)

    @property
    def refs(self) -> tuple[VersionRef, ...]:
        tokenizer = self.tokenizer.ref.model_copy(update={"role": "tokenizer"})
        return (*(one.ref.model_copy(update={"role": "mixed"}) for one in self.sources), tokenizer)

    @property
    def identity(self) -> dict[str, Any]:
        """The recipe with the versions' own names: a tag and the version that it names are the same."""
        data = self.recipe.model_dump(mode="json", exclude={"sources", "tokenizer"})
        shares = {
            one.name: {"weight": one.share.weight, "max_epochs": one.share.max_epochs} for one in self.plan.sources
        }
        return data | {"tokenizer": str(self.tokenizer), "sources": shares}

    @property
    def stages(self) -> tuple[StageId, ...]:
        tokenize, account = (
            Tokenize(self.tokenizer.shards[0].sha256),
            StageId(name="account", version=Account.VERSION, config={}),
        )
        parts = [stage.identity() for stage in (tokenize, self.plan, self.recipe.pack, MergeLedger())]
        return (*parts[0], *parts[1], account, *parts[2], *parts[3])

    def build(self, run: BuildContext) -> Draft:
        """Raises BadConfig where the weights cannot be drawn, Incomplete, PlanOnly, BalanceError."""
        runner, store = run.runner, run.runner.store
        came_in, tokenized = self._tokenized(runner)
        receipts = [receipt for one in tokenized for _, receipt in one]
        check_balance("tokenize", came_in, {"read": total(r.came_in for r in receipts)})
        planned = runner.map("plan", [plan_work(self.plan, tokenized)])[0]
        if planned.facts["problem"]:
            raise BadConfig(f"recipe.sources: {planned.facts['problem']}")
        accounted = runner.map("account", account_works(self.plan, planned.facts["sources"], tokenized))
        check_balance("account", total(r.passed for r in receipts), {"looked at": total(r.came_in for r in accounted)})
        plan = planned.output("plan")
        slices = read_table(store, plan, ["shard", "tokens"])
        packed = runner.map("pack", pack_works(self.recipe.pack, plan, planned.facts["shards"], receipts, slices))
        draws = total(Tally.from_json(r.facts["draws"]) for r in accounted)
        check_balance("pack", draws, {"packed": total(r.passed for r in packed)})
        decided = [*receipts, *accounted]
        fates = put_refs(store, [r.output("fates") for r in decided])
        merged = runner.map("ledger", ledger_works(fates, came_in.count))
        everything = [*decided, planned, *packed, *merged]
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            sources=run.resolved.sources,
            inputs=tuple(one for source in self.sources for one in as_inputs(source)),
            recipe=run.resolved.identity,
            stages=run.resolved.stages,
            shards=tuple(ref for r in packed for ref in (r.output("pack"), r.output("index"))),
            ledgers=(*(r.output("ledger") for r in merged), *(r.output("members") for r in packed)),
            attachments=(plan, bundle_receipts(store, everything)),
            schemas={"window": WINDOW_SCHEMA},
            came_in=came_in,
            kept=total(r.kept for r in merged),
            dropped=total(r.dropped for r in merged),
            quarantined=total(r.quarantined for r in merged),
            samples=draws,
            verdicts={"packed": total(r.passed for r in packed)},
            funnel=funnel(came_in.count, FUNNEL, decided),
            statistics=_statistics(packed, planned.facts["sources"], self.recipe.window),
        )

    def _tokenized(self, runner: Runner) -> tuple[Tally, list[list[tuple[str, Receipt]]]]:
        """What comes in, and for each source (digest of the shard, receipt) in order."""
        works = [list(tokenize_works(one, self.tokenizer.shards[0])) for one in self.sources]
        try:
            done = iter(runner.map("tokenize", [work for one in works for work in one]))
        except Incomplete as error:
            if missing := [str(one) for one in error.errors if isinstance(one, MissingToken)]:  # no rerun will help
                raise BadConfig(f"recipe.tokenizer: {missing[0]}") from error
            raise
        tokenized = [[(work.inputs[0], next(done)) for work in one if work.inputs] for one in works]
        return total(work.came_in for one in works for work in one if work.came_in), tokenized


def _check_apart(found: dict[str, Manifest]) -> None:
    """Raises BadConfig for sources that share shards: a record has one fate."""
    seen: dict[str, str] = {}
    for name, manifest in found.items():
        for ref in manifest.shards:
            other = seen.setdefault(ref.sha256, name)
            if other != name:
                raise BadConfig(
                    f"recipe.sources: {other} and {name} share shards, so that a record would be counted twice: give"
                    " one of them, and raise its weight and max_epochs for more of it"
                )


def _statistics(packed: Sequence[Receipt], sources: list[dict[str, Any]], window: int) -> dict[str, Any]:
    def count(name: str) -> int:
        return sum(r.facts[name] for r in packed)

    places = count("windows") * window
    return {
        "windows": count("windows"),
        "tokens": count("tokens"),
        "loss_tokens": count("loss_tokens"),
        "waste": round(1 - count("tokens") / places, 6) if places else 0.0,
        "documents": count("documents"),
        "documents_cut": count("split"),
        "documents_too_long": count("forced"),
        "samples": count("samples"),
        "mixture": sources,
    }
