"""The train pipeline: a recipe of stages in, a version of a model for each of them out.

train (one Work, in a folder of the lake until it has its receipt) -> gates (one Work on the weights in the lake) ->
commit. A recipe is a chain (pipelines/frame/recipe.py): all stages are looked up and checked before the first one
starts, each becomes a version of a dataset of its own, and the same command goes on at the first without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt, StageId
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.parts import ADAPTERS, Part, part_of
from gristmill.model.train.settings import Settings
from gristmill.model.train.stage import TrainStage
from gristmill.pipelines.frame.assembly import GateFailed, bundle_receipts
from gristmill.pipelines.frame.recipe import BuildContext, Chain, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.pipelines.train_lookup import ModelParts, StageLookup, Whole
from gristmill.pipelines.train_spec import STAGE, StageSpec
from gristmill.stages.models.model_versions import SHAPE, WEIGHTS
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.gates import GateInput, Verdicts, gate_work, gates_of
from gristmill.stages.train.job import Execution
from gristmill.stages.train.reporting import Report, RunProgress
from gristmill.stages.train.result import METRICS, TrainFacts, model_shards, part_digest
from gristmill.stages.train.work import train_identity, train_work


class TrainRecipe(Chain):
    """What decides the models. `dataset`: its stage NAME makes versions of `dataset.NAME`. `model`: the shape, a preset
    (model/phi4/presets.py) or an exact version of a model. `tokenizer`: an exact version; empty: the model's."""

    form: ClassVar[Form] = "model"

    dataset: str = "model"
    model: str = "nano"
    tokenizer: str = ""
    stages: tuple[StageSpec, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> TrainRecipe:
        if self.limit is not None:
            raise ValueError(
                f"limit: {self.limit}: a model is trained whole; give its stages fewer steps and dataset another name"
            )
        before: list[str] = []
        for number, spec in enumerate(self.stages):
            if spec.name in before:
                raise ValueError(f"stages.{number}.name: {spec.name!r} is the name of an earlier stage too")
            for part, ref in spec.init_from.items():
                if ref.startswith(STAGE) and ref.removeprefix(STAGE) not in before:
                    there = ", ".join(f"{STAGE}{name}" for name in before) or "none"
                    raise ValueError(
                        f"stages.{number}.init_from.{part}: {ref!r} is no earlier stage; there are {there}"
                    )
            before.append(spec.name)
        return self

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for whatever in any of the stages cannot be used, or does not fit the rest."""
        if not self.stages:
            raise BadConfig("recipe.stages is empty: give one or more, as in conf/train-nano.yaml")
        self.lookups(versions)

    def lookups(self, versions: Versions) -> list[StageLookup]:
        """Every stage, with what it names; of what earlier stages make, as much as is known before. Raises
        BadConfig."""
        lookups: list[StageLookup] = []
        results: dict[str, ModelParts] = {}
        whole = Whole.of(self.model, self.tokenizer, versions)
        for number, spec in enumerate(self.stages):
            lookups.append(StageLookup.of(spec, number, whole, versions, results))
            results[spec.name] = lookups[-1].result()
        return lookups

    def link(self, done: Sequence[Manifest]) -> Recipe | None:
        """The next stage."""
        if len(done) == len(self.stages):
            return None
        name = f"{self.dataset}.{self.stages[len(done)].name}"
        return StageRecipe(dataset=name, of=self, done=tuple(map(str, done)))


class StageRecipe(Recipe):
    """A stage of a recipe, where those before it came to the versions `done`."""

    form: ClassVar[Form] = "model"

    of: TrainRecipe
    done: tuple[str, ...]

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for a version that cannot be used, or does not fit."""
        number = len(self.done)
        key = f"recipe.stages.{number}"
        results: dict[str, ModelParts] = {}
        for spec, ref in zip(self.of.stages, self.done, strict=False):
            results[spec.name] = ModelParts.of(versions, versions.resolve(ref), key)
        whole = Whole.of(self.of.model, self.of.tokenizer, versions)
        resolved = ResolvedStage(StageLookup.of(self.of.stages[number], number, whole, versions, results), self.of)
        return Resolved(
            resolved.identity, resolved.stages, resolved.build, sources=resolved.lookup.sources, reproducible=False
        )


@dataclass(frozen=True)
class ResolvedStage:
    """A stage whose names are looked up and whose sources are there."""

    lookup: StageLookup
    recipe: TrainRecipe

    @property
    def identity(self) -> dict[str, Any]:
        """The recipe of the stage, as the manifest keeps it, every version by its own name."""
        held_out = [str(manifest) for manifest in self.lookup.held_out]
        return {"model": self.recipe.model, "stage": self.lookup.stage.to_dict(), "held_out": held_out}

    @property
    def stages(self) -> tuple[StageId, ...]:
        """In the order in which they run."""
        stage = self.lookup.stage
        gates = gates_of(stage).identity() if stage.gates else ()
        return (train_identity(stage, self.lookup.config), *gates)

    def build(self, run: BuildContext) -> Draft:
        """Raises GateFailed, Incomplete, PlanOnly."""
        assert isinstance(run.how, TrainRun)
        lookup = self.lookup
        given = lookup.given(run.dataset)
        work = train_work(lookup.stage, lookup.config, given, run.how.execution)
        _check_report(run.how.report)
        with run.runner.shown_by(RunProgress(RunFolder(run.runner.store, work.key), run.dataset)):
            receipts = run.runner.map("train", [work])
        trained = receipts[0]
        RunFolder(run.runner.store, work.key).close(done=True)
        weights = [ref for ref in trained.outputs if ref.kind == WEIGHTS]
        shards = model_shards(given.parts, weights, trained.output(SHAPE), given.tokenizer)
        verdicts: dict[str, Any] = {}
        if lookup.stage.gates:
            held_out = tuple(str(manifest) for manifest in lookup.held_out)
            payload = GateInput(lookup.stage, lookup.config, given, shards, str(lookup.mixture), held_out)
            receipts += run.runner.map("gates", [gate_work(payload)])
            verdicts = _passed(run.dataset, receipts[-1])
        zero = Tally()
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            sources=run.resolved.sources,
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=shards,
            attachments=(trained.output(METRICS), bundle_receipts(run.runner.store, receipts)),
            received=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
            statistics=_statistics(lookup.stage, trained.facts_as(TrainFacts), shards, verdicts),
        )


def _check_report(report: Report) -> None:
    """Raises BadConfig for a service whose package is not installed, before anything is trained."""
    try:
        report.check()
    except ValueError as error:
        raise BadConfig(str(error)) from error


def _passed(dataset: str, receipt: Receipt) -> dict[str, Any]:
    """The verdicts of the gates, for the manifest. Raises GateFailed with those that did not pass."""
    verdicts = receipt.facts_as(Verdicts).verdicts
    failed = [f"  {name}: {verdict.why}" for name, verdict in verdicts.items() if not verdict.passed]
    if failed:
        lines = "\n".join(failed)
        raise GateFailed(
            f"{dataset}: the trained model did not pass its gates, and is not committed:\n{lines}\nThe training is kept"
            " and not done again: mend what the gate found and train with another recipe, or ask for other gates"
        )
    return {name: asdict(verdict) for name, verdict in verdicts.items()}


def _statistics(
    stage: TrainStage, facts: TrainFacts, shards: Sequence[ObjectRef], verdicts: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters, what the training was like, upon which language model adapters were trained, verdicts of gates."""
    training = {"stage": stage.name, **asdict(facts)}
    model = training.pop("model")
    language = part_digest([ref for ref in shards if ref.kind == WEIGHTS and part_of(ref.first) == Part.LANGUAGE])
    bases = {part: language for part in ADAPTERS.values() if part in model["parts"]}
    return {**model, "training": training, "bases": bases, "gates": dict(verdicts)}


class TrainRun(Run):
    """How and where a training runs: none of it decides what is trained."""

    workers: int = Field(default=0, ge=0)
    trainer: Literal["in_process", "ray"] = "in_process"
    ranks: int = Field(default=1, ge=1)
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)
    windows_per_pass: int = Field(default=1, ge=1)
    checkpoint_every: int = Field(default=100, ge=1)
    keep: int = Field(default=2, ge=1)
    ahead: int = Field(default=0, ge=0)
    shard: bool = False
    device: str = "auto"
    report: Report = Report()

    @model_validator(mode="after")
    def _can_be(self) -> TrainRun:
        _ = self.execution  # refuses what cannot be
        return self

    @property
    def execution(self) -> Execution:
        """How a stage is carried out."""
        settings = Settings(self.windows_per_pass, self.checkpoint_every, self.keep, self.ahead, self.shard)
        return Execution(
            trainer=self.trainer,
            ranks=self.ranks,
            cpus=self.cpus,
            gpus=self.gpus,
            device=self.device,
            settings=settings,
            report=self.report,
            shared_filesystem=self.shared_filesystem,
        )


class TrainConfig(PipelineConfig):
    """`conf/train-nano.yaml`, `conf/train-paper.yaml`."""

    pipeline: str = "train"
    recipe: TrainRecipe = TrainRecipe()
    run: TrainRun = TrainRun()

    def check(self, versions: Versions) -> None:
        """Raises BadConfig as the recipe does, and for a stage with fewer windows a step than ranks."""
        super().check(versions)
        for number, spec in enumerate(self.recipe.stages):
            if spec.batch < self.run.ranks:
                raise BadConfig(
                    f"run.ranks={self.run.ranks}: recipe.stages.{number}.batch={spec.batch} leaves ranks without a"
                    f" window of a step; allowed are up to {spec.batch} ranks, or a larger batch"
                )
