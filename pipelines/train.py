"""The train pipeline: a recipe of stages in, a version of a model for each of them out.

gates on the data -> train (one Work, in a folder of the lake until it has its receipt) -> gates on the weights in the
lake -> commit. A recipe is a chain (pipelines/frame/recipe.py): all stages are looked up and checked before the first
one starts, each becomes a version of a dataset of its own, and the same command goes on at the first without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import model_validator

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt, StageId, finished
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.parts import ADAPTERS, Part, part_of
from gristmill.model.train.stage import Origin, TrainStage
from gristmill.pipelines.frame.assembly import GateFailed, bundle_receipts
from gristmill.pipelines.frame.recipe import BuildContext, Chain, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.training.lookup import ModelParts, StageLookup, Whole
from gristmill.pipelines.training.run import TrainRun
from gristmill.pipelines.training.spec import STAGE, StageSpec
from gristmill.stages.core.work import Work
from gristmill.stages.gates.gate import GateInput, Verdict
from gristmill.stages.gates.gates import Gates
from gristmill.stages.models.model_versions import SHAPE, WEIGHTS
from gristmill.stages.run.unfinished import Outlook
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.job import Execution, TrainInput
from gristmill.stages.train.reporting import Report, RunProgress
from gristmill.stages.train.result import METRICS, TrainFacts, model_shards, part_digest
from gristmill.stages.train.work import train_identity, train_work


class TrainRecipe(Chain):
    """What decides the models. `dataset`: its stage NAME makes versions of `dataset.NAME`. `model`: the shape, a preset
    (model/phi4/presets.py) or an exact version of a model. `tokenizer`: an exact version; empty: the model's.
    `until`: the last stage that is trained now, where what later ones learn from is still to be made; empty: all."""

    form: ClassVar[Form] = "model"

    dataset: str = "model"
    until: str = ""
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
            names = {f"init_from.{part}": Origin.of(part, ref).model for part, ref in spec.init_from.items()}
            for key, ref in {**names, "reference": spec.reference}.items():
                if ref.startswith(STAGE) and ref.removeprefix(STAGE) not in before:
                    there = ", ".join(f"{STAGE}{name}" for name in before) or "none"
                    raise ValueError(f"stages.{number}.{key}: {ref!r} is no earlier stage; there are {there}")
            before.append(spec.name)
        if self.until and self.until not in before:
            raise ValueError(f"until: {self.until!r} is no stage; there are {', '.join(before) or 'none'}")
        return self

    @property
    def trained_now(self) -> tuple[StageSpec, ...]:
        """The stages up to `until`."""
        names = [spec.name for spec in self.stages]
        return self.stages[: names.index(self.until) + 1] if self.until else self.stages

    def makes(self) -> Mapping[str, Form]:
        """A model a stage."""
        return {f"{self.dataset}.{spec.name}": self.form for spec in self.trained_now}

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for whatever in any of the stages cannot be used, or does not fit the rest."""
        if not self.stages:
            raise BadConfig("recipe.stages is empty: give one or more, as in conf/train-nano.yaml")
        self.lookups(versions)

    def lookups(self, versions: Versions) -> list[StageLookup]:
        """Every stage that is trained now, with what it names; of what earlier stages make, as much as is known before.
        Raises BadConfig."""
        lookups: list[StageLookup] = []
        results: dict[str, ModelParts] = {}
        whole = Whole.of(self.model, self.tokenizer, versions)
        for number, spec in enumerate(self.trained_now):
            lookups.append(StageLookup.of(spec, number, whole, versions, results))
            results[spec.name] = lookups[-1].result()
        return lookups

    def link(self, done: Sequence[Manifest]) -> StageRecipe | None:
        """The next stage."""
        if len(done) == len(self.trained_now):
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
        stage = self.looked_up(versions)
        return Resolved(stage.identity, stage.stages, stage.build, sources=stage.lookup.sources, reproducible=False)

    def looked_up(self, versions: Versions) -> ResolvedStage:
        """The stage itself. Raises as `resolve`."""
        number = len(self.done)
        key = f"recipe.stages.{number}"
        results: dict[str, ModelParts] = {}
        for spec, ref in zip(self.of.stages, self.done, strict=False):
            results[spec.name] = ModelParts.of(versions, versions.resolve(ref), key)
        whole = Whole.of(self.of.model, self.of.tokenizer, versions)
        return ResolvedStage(StageLookup.of(self.of.stages[number], number, whole, versions, results), self.of)


@dataclass(frozen=True)
class ResolvedStage:
    """A stage whose names are looked up and whose sources are there."""

    lookup: StageLookup
    recipe: TrainRecipe

    @property
    def identity(self) -> dict[str, Any]:
        """The recipe of the stage, as the manifest keeps it, every version by its own name."""
        held_out = [str(manifest) for manifest in self.lookup.held_out]
        identity = {"model": self.recipe.model, "stage": self.lookup.stage.to_dict(), "held_out": held_out}
        return {**identity, "overlap": asdict(self.lookup.overlap)} if held_out else identity

    @property
    def stages(self) -> tuple[StageId, ...]:
        """In the order in which they run."""
        lookup = self.lookup
        trained = train_identity(lookup.stage, lookup.config)
        return (*lookup.beginning.identity, *lookup.comparison.identity, trained, *self.gates(Execution()).identity)

    def gates(self, execution: Execution) -> Gates:
        """What is asked of the stage's result. `execution`: where that is computed."""
        lookup = self.lookup
        return Gates(lookup.stage, lookup.config, execution, lookup.held_out, lookup.overlap)

    def work(self, given: TrainInput, execution: Execution, references: Sequence[Receipt] = ()) -> Work[TrainInput]:
        """The training. `references`: receipts of what its comparison asks for, if there are such works."""
        given = self.lookup.comparison.given(given, references)
        return train_work(self.lookup.stage, self.lookup.config, given, execution)

    def reached(self, store: Store, dataset: str) -> int:
        """Steps that a run without a result has done."""
        lookup, beginning, given = self.lookup, self.lookup.beginning, self.lookup.given(dataset)
        starts = _finished(store, beginning.works(given))
        if starts is None:
            return 0
        given = beginning.given(given, starts)
        references = _finished(store, lookup.comparison.works(Versions(store), given, Execution()))
        if references is None:
            return 0
        return len(RunFolder(store, self.work(given, Execution(), references).key).metrics())

    def build(self, run: BuildContext) -> Draft:
        """Raises GateFailed, Incomplete, PlanOnly."""
        assert isinstance(run.how, TrainRun)
        lookup = self.lookup
        gates = self.gates(run.how.execution)
        verdicts = gates.of_data(run.runner, lookup.mixture, lookup.bases)
        _check_passed(run.dataset, verdicts)
        _check_report(run.how.report)
        given = lookup.given(run.dataset)
        works: list[Work[Any]] = lookup.beginning.works(given)
        starts = run.runner.map("start", works) if works else []
        given = lookup.beginning.given(given, starts)
        works = lookup.comparison.works(Versions(run.runner.store), given, run.how.execution)
        references = run.runner.map("reference", works) if works else []
        work = self.work(given, run.how.execution, references)
        given = work.payload
        with run.runner.shown_by(RunProgress(RunFolder(run.runner.store, work.key), run.dataset)):
            receipts = run.runner.map("train", [work])
        trained = receipts[0]
        RunFolder(run.runner.store, work.key).close(done=True)
        weights = [ref for ref in trained.outputs if ref.kind == WEIGHTS]
        shards = model_shards(given.parts, weights, trained.output(SHAPE), given.tokenizer)
        verdicts |= gates.of_weights(run.runner, GateInput(given, shards))
        _check_passed(run.dataset, verdicts)
        zero = Tally()
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            sources=run.resolved.sources,
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=shards,
            attachments=(
                trained.output(METRICS),
                *dict.fromkeys(ref for refs in given.beside.values() for ref in refs),
                bundle_receipts(run.runner.store, [*starts, *references, *receipts, *gates.receipts]),
            ),
            received=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
            statistics=_statistics(lookup.stage, trained.facts_as(TrainFacts), shards, verdicts),
        )


def _finished(store: Store, works: Sequence[Work[Any]]) -> list[Receipt] | None:
    """Receipts of these works; None where one is not done."""
    receipts = [finished(store, work.key) for work in works]
    done = [receipt for receipt in receipts if receipt is not None]
    return done if len(done) == len(receipts) else None


def _check_report(report: Report) -> None:
    """Raises BadConfig for a service whose package is not installed, before anything is trained."""
    try:
        report.check()
    except ValueError as error:
        raise BadConfig(str(error)) from error


def _check_passed(dataset: str, verdicts: Mapping[str, Verdict]) -> None:
    """Raises GateFailed with those that did not pass."""
    if failed := [f"  {name}: {verdict.why}" for name, verdict in verdicts.items() if verdict.passed is False]:
        lines = "\n".join(failed)
        raise GateFailed(
            f"{dataset} did not pass its gates, and nothing was committed:\n{lines}\nWhat was trained is kept and not"
            " trained again, and the same run says the same: mend what the gate found, or ask for other gates"
        )


def _statistics(
    stage: TrainStage, facts: TrainFacts, shards: Sequence[ObjectRef], verdicts: Mapping[str, Verdict]
) -> dict[str, Any]:
    """Parameters, what the training was like, upon which language model adapters were trained, verdicts of gates."""
    training = {"stage": stage.name, **asdict(facts)}
    model = training.pop("model")
    language = part_digest([ref for ref in shards if ref.kind == WEIGHTS and part_of(ref.first) == Part.LANGUAGE])
    bases = {part: language for part in ADAPTERS.values() if part in model["parts"]}
    gates = {name: asdict(verdicts[name]) for name in stage.gates}
    return {**model, "training": training, "bases": bases, "gates": gates}


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

    def outlook(self, versions: Versions) -> Outlook:
        """Of every stage what it trains, on how much, and the memory and time that it needs."""
        from gristmill.pipelines.training.plan import PlannedStage, outlook  # torch takes seconds to import

        planned: list[PlannedStage] = []
        done: list[Manifest] = []
        for number, lookup in enumerate(self.recipe.lookups(versions)):
            link = self.recipe.link(done) if len(done) == number else None
            if link is None:  # what it starts from is still to be made
                planned.append(PlannedStage(lookup))
                continue
            stage = link.looked_up(versions)
            manifest = versions.find_run(link.target, link.resolve(versions, "").key(link.target))
            done += [manifest] if manifest is not None else []
            planned.append(PlannedStage(stage.lookup, manifest, stage.reached(versions.store, link.target)))
        return outlook(planned, self.run.execution)
