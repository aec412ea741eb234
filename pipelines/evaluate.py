"""The evaluate pipeline: a model and data in, exact versions both, its answers out: judged, counted, a version too.

evaluate (one Work a piece of the data) -> tabulate (one table, scores with intervals) -> ledger -> commit. Evaluations
of two models by the same recipe on the same data are compared item by item (`stages.evaluate.compare`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field

from gristmill.lake.accounts.balance import check_balance, total
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.objects import ObjectRef, put_refs
from gristmill.lake.versions.form import TABLE, Form
from gristmill.lake.versions.manifest import Draft, Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.evaluate.answers import Extraction
from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.refusals import Judge
from gristmill.model.evaluate.samples import Rules, Task
from gristmill.model.evaluate.scores import ROWS
from gristmill.model.evaluate.transcripts import Normalisation
from gristmill.model.phi4.config import DTYPES
from gristmill.model.processing.audio_file import MAX_SECONDS
from gristmill.model.processing.text import MissingToken
from gristmill.model.windows.placeholders import LogMel
from gristmill.pipelines.frame.assembly import GateFailed, bundle_receipts, funnel
from gristmill.pipelines.frame.media import check_media
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.sources import as_inputs, exact
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.core.shards import MergeLedger, ledger_works
from gristmill.stages.evaluate.pieces import Piece, pieces_of, tally_of
from gristmill.stages.evaluate.settings import Generate, Where
from gristmill.stages.evaluate.tabulate import Tabulate, tabulate_work
from gristmill.stages.evaluate.work import Evaluate, EvaluateFacts, evaluate_works
from gristmill.stages.models.model_versions import shape_of, tokenizer_shard
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

EVALUATED, ON = "evaluated", "on"
"""Roles of an evaluation's sources: the model, and the data."""


class EvaluateRecipe(Recipe):
    """What decides the answers. `data`: exact versions of samples, images, clips, documents or windows. `tasks`: how
    the samples of a version are judged, where not as their form says. `attributes`: by name, values that are looked for
    in answers; `transcripts`: what of them counts as the same. `tokenizer`: of a model that brings none. `limit`:
    records of each version."""

    form: ClassVar[Form] = "verdicts"

    dataset: str = "eval"
    model: str = ""
    data: tuple[str, ...] = ()
    tasks: dict[str, Task] = {}
    tokenizer: str = ""
    dtype: str | None = None
    generate: Generate = Generate()
    exact: Extraction = Extraction()
    judge: Judge = Judge()
    attributes: dict[str, tuple[str, ...]] = {}
    transcripts: Normalisation = Normalisation()
    max_crops: int = Field(default=36, ge=1, description="crops that an image of a sample is cut into, at most")
    max_seconds: float = Field(default=LogMel.max_seconds, gt=0, le=MAX_SECONDS, description="of a clip of a sample")
    window: int = Field(default=4096, ge=2, description="tokens in which perplexity sees a text")
    bootstrap: Bootstrap = Bootstrap()
    chunk_items: int = Field(default=256, ge=1, description="records (of windows: windows) per piece of work")

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for versions that cannot be used, or not together."""
        evaluation = Evaluation.of(self, versions)
        return Resolved(
            evaluation.identity, evaluation.stages, evaluation.build, sources=evaluation.refs, reproducible=False
        )


class EvaluateRun(Run):
    """How and where. `device` as torch names it; `cpus` and `gpus` of each worker, which holds a model."""

    device: str = "cpu"
    cpus: float = Field(default=1, ge=0)
    gpus: float = Field(default=0, ge=0)
    max_num_seqs: int = Field(default=16, ge=4, multiple_of=4, description="answers written side by side")
    pass_tokens: int = Field(default=8192, ge=1, description="tokens scored at a time")


class EvaluateConfig(PipelineConfig):
    """`conf/evaluate.yaml`."""

    pipeline: str = "evaluate"
    recipe: EvaluateRecipe = EvaluateRecipe()
    run: EvaluateRun = EvaluateRun()


@dataclass(frozen=True)
class Evaluation:
    """A recipe with its versions looked up. `tokenizer`: the version with the tokenizer.json, which is the model if it
    brings one; `pieces` of the data, in order."""

    recipe: EvaluateRecipe
    model: Manifest
    on: tuple[Manifest, ...]
    tokenizer: Manifest
    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, recipe: EvaluateRecipe, versions: Versions) -> Evaluation:
        """Raises BadConfig for versions that cannot be used, or not together."""
        model = _model(recipe, versions)
        if not recipe.data:
            raise BadConfig("recipe.data is empty: give the exact versions to evaluate on, e.g. [math@v1]")
        on = tuple(exact(versions, name, "recipe.data") for name in dict.fromkeys(recipe.data))
        _check_apart(on)
        tokenizer = _tokenizer(recipe, model, on, versions)
        check_media(versions.store, model, on, _tokenizer_json(tokenizer))
        tasks = {str(exact(versions, name, "recipe.tasks")): task for name, task in recipe.tasks.items()}
        if strangers := sorted(tasks.keys() - set(map(str, on))):
            raise BadConfig(f"recipe.tasks: {strangers[0]} is not among recipe.data: {', '.join(map(str, on))}")
        pieces: list[Piece] = []
        for source in on:
            try:
                pieces += pieces_of(source, tasks.get(str(source)), recipe.chunk_items, recipe.limit)
            except ValueError as error:
                raise BadConfig(f"recipe.data: {error}") from error
        return cls(recipe, model, on, tokenizer, tuple(pieces))

    @property
    def refs(self) -> tuple[VersionRef, ...]:
        """The versions that it is made from, each with its role."""
        sources = [(self.model, EVALUATED), *((source, ON) for source in self.on)]
        if self.tokenizer != self.model:
            sources.append((self.tokenizer, "tokenizer"))
        return tuple(manifest.ref.model_copy(update={"role": role}) for manifest, role in sources)

    @property
    def identity(self) -> dict[str, Any]:
        """The recipe with the versions' own names."""
        recipe = self.recipe.model_dump(mode="json", exclude={"tasks"})
        tasks = {piece.source: piece.task for piece in self.pieces if piece.task is not None}
        named = {"model": str(self.model), "data": list(map(str, self.on)), "tasks": tasks}
        return recipe | named | {"tokenizer": str(self.tokenizer) if self.tokenizer != self.model else ""}

    @property
    def stage(self) -> Evaluate:
        """What answers and judges, wherever it runs."""
        recipe = self.recipe
        return Evaluate(
            model=self.model.digest,
            tokenizer=_tokenizer_json(self.tokenizer).sha256,
            dtype=recipe.dtype,
            rules=Rules(recipe.exact, recipe.judge, dict(sorted(recipe.attributes.items())), recipe.transcripts),
            generate=recipe.generate,
            window=recipe.window,
            max_crops=recipe.max_crops,
            max_seconds=recipe.max_seconds,
        )

    @property
    def stages(self) -> tuple[StageId, ...]:
        """In the order in which they run."""
        stages = (self.stage, Tabulate(self.recipe.bootstrap), MergeLedger())
        return tuple(part for stage in stages for part in stage.identity())

    def build(self, run: BuildContext) -> Draft:
        """Raises BadConfig for a tokenizer without the tokens of the template, GateFailed where nothing was answered,
        Incomplete, PlanOnly, BalanceError."""
        runner, store = run.runner, run.runner.store
        stage = replace(self.stage, where=self.where(run.how))
        receipts = self._answered(runner, stage)
        received = total(receipt.received for receipt in receipts)
        _check_answered(receipts)
        if self.recipe.limit is None:
            check_balance("evaluate", total(map(tally_of, self.on)), {"asked": received})
        tabulated = runner.map("tabulate", [tabulate_work(Tabulate(self.recipe.bootstrap), store, receipts)])[0]
        fates = put_refs(store, [receipt.output("fates") for receipt in receipts])
        merged = runner.map("ledger", ledger_works(fates, received.count))
        devices = sorted({receipt.facts_as(EvaluateFacts).device for receipt in receipts})
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            sources=run.resolved.sources,
            inputs=tuple(file for source in self.on for file in as_inputs(source)),
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=(tabulated.output(TABLE.kind),),
            ledgers=tuple(receipt.output("ledger") for receipt in merged),
            attachments=(bundle_receipts(store, [*receipts, tabulated, *merged]),),
            schemas={"verdict": str(ROWS.remove_metadata())},
            received=received,
            kept=total(receipt.kept for receipt in merged),
            dropped=total(receipt.dropped for receipt in merged),
            quarantined=total(receipt.quarantined for receipt in merged),
            funnel=funnel(received.count, ("evaluate",), receipts),
            statistics=tabulated.facts | {"devices": devices},
        )

    def where(self, how: Run) -> Where:
        """Where `stage` finds the model, and runs."""
        assert isinstance(how, EvaluateRun)
        return Where(
            model=str(self.model),
            tokenizer=_tokenizer_json(self.tokenizer),
            device=how.device,
            cpus=how.cpus,
            gpus=how.gpus,
            max_num_seqs=how.max_num_seqs,
            pass_tokens=how.pass_tokens,
        )

    def _answered(self, runner: Runner, stage: Evaluate) -> list[Receipt]:
        try:
            return runner.map("evaluate", evaluate_works(stage, self.pieces))
        except Incomplete as error:
            if missing := [str(cause) for cause in error.errors if isinstance(cause, MissingToken)]:
                raise BadConfig(f"recipe.tokenizer: {missing[0]}") from error  # no rerun will help
            raise


def _check_apart(on: Sequence[Manifest]) -> None:
    """Raises BadConfig for versions that share shards, as one that extends another does: a record has one fate."""
    holders: dict[str, Manifest] = {}
    for source in on:
        for ref in source.shards:
            other = holders.setdefault(ref.sha256, source)
            if other is not source:
                raise BadConfig(
                    f"recipe.data: {other} and {source} share shards, so that a record would be asked twice: give one"
                )


def _check_answered(receipts: Sequence[Receipt]) -> None:
    """Raises GateFailed where not one record could be evaluated."""
    if any(receipt.kept.count for receipt in receipts):
        return
    reasons: Counter[str] = Counter()
    for receipt in receipts:
        reasons.update(receipt.reasons)
    why = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common()) or "there is none"
    raise GateFailed(
        f"not one of {reasons.total():,} records could be evaluated: {why}. Is recipe.tasks right, or recipe.generate"
        " too small for their prompts? Nothing was committed."
    )


def _model(recipe: EvaluateRecipe, versions: Versions) -> Manifest:
    """The version of the model. Raises BadConfig for one that cannot be asked as the recipe says."""
    if not recipe.model:
        raise BadConfig("recipe.model is empty: give an exact version of a model, e.g. base@v1")
    if recipe.dtype is not None and recipe.dtype not in DTYPES:
        raise BadConfig(f"recipe.dtype: {recipe.dtype!r}; allowed are {', '.join(DTYPES)}, or null: as stored")
    model = exact(versions, recipe.model, "recipe.model")
    if model.form != "model":
        raise BadConfig(f"recipe.model: {model} is no model: it holds {model.layout.called}")
    most = shape_of(versions.store, model).config.text.max_position_embeddings
    for key, tokens in (("generate.context", recipe.generate.context), ("window", recipe.window)):
        if tokens > most:
            raise BadConfig(f"recipe.{key}: {tokens}; the context of {model} is {most} tokens")
    return model


def _tokenizer(recipe: EvaluateRecipe, model: Manifest, on: Sequence[Manifest], versions: Versions) -> Manifest:
    """The version with the tokenizer.json: the model's own, or that of the recipe. Raises BadConfig for none, for two,
    and for windows that another one made."""
    brings = tokenizer_shard(model) is not None
    if not recipe.tokenizer and not brings:
        raise BadConfig(f"recipe.tokenizer is empty, and {model} brings none: give an exact version, e.g. bpe@v1")
    given = exact(versions, recipe.tokenizer, "recipe.tokenizer") if recipe.tokenizer else model
    sha256 = _tokenizer_json(given).sha256
    if brings and _tokenizer_json(model).sha256 != sha256:
        raise BadConfig(f"recipe.tokenizer: {given} is not the tokenizer that {model} brings: leave it empty")
    for source in on:
        for ref in source.sources if source.form == "windows" else ():
            if ref.role != "tokenizer":
                continue
            other = _tokenizer_json(versions.manifest(ref.dataset, ref.version))
            if other.sha256 != sha256:
                raise BadConfig(
                    f"recipe.data: the windows of {source} are tokens of {ref}, and this is another tokenizer than that"
                    f" of {given}: mix its sources anew with recipe.tokenizer={given}, or evaluate on them as they are"
                )
    return model if brings else given


def _tokenizer_json(version: Manifest) -> ObjectRef:
    """The tokenizer.json of a version. Raises BadConfig for one that has none."""
    ref = tokenizer_shard(version)
    if ref is None:
        raise BadConfig(f"recipe.tokenizer: {version} has no tokenizer: it holds {version.layout.called}")
    return ref
