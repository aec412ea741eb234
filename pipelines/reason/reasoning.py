"""The reasoning pipeline: problems with known answers in, chains of thought that were verified out.

A chain of three versions. `DATASET.rollouts`: problems -> not held out -> samples in waves, judged -> settled. Of it
`DATASET.pairs`, a chosen and a rejected chain for each problem that has both, and `DATASET`, distinct right chains to
fine-tune on. Each is a version like any other: what a kill interrupts goes on at the first piece without a receipt.
Source: Phi-4-Mini, arXiv 2503.01743, section 3.3; STaR, arXiv 2203.14465; adaptive sampling as in `synth.sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.config import DTYPES
from gristmill.pipelines.frame.flow import Flow, Step
from gristmill.pipelines.frame.recipe import Chain, InputRecipe, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.frame.steps import ExactDuplicates
from gristmill.pipelines.reason.contamination import Decontamination, refs_of
from gristmill.pipelines.reason.roll_out import RollOut
from gristmill.pipelines.reason.select import PairsRecipe, QuestionsRecipe, SelectRecipe
from gristmill.pipelines.reason.settings import ReasoningRun
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.dedup.exact import Exact
from gristmill.stages.generate.contamination import Decontaminate
from gristmill.stages.generate.draw import EngineSpec, Generate, Hosts, Prompt
from gristmill.stages.generate.engines.protocol import Draws
from gristmill.stages.generate.engines.vllm_server import BadServer, installed
from gristmill.stages.generate.judge import Verify
from gristmill.stages.generate.problems import Problems
from gristmill.stages.generate.settle import Settle, WriteRollouts
from gristmill.stages.generate.verifiers import Checks
from gristmill.stages.models.model_versions import shape_of, tokenizer_shard
from gristmill.stages.read.scan import Scan
from gristmill.synth.sampling import Stop, Waves
from gristmill.synth.selection import Selection

IF_NONE = (
    "not one of {records} lines is a problem: {reasons}. Do recipe.problems.question and answer name the fields, and is"
    " recipe.problems.kind right? Nothing was committed."
)
ENGINE, JUDGE = "drawn_by", "judged_by"
"""The roles of the model that drew the samples, and of the one that judged them."""


class Asking(InputRecipe):
    """What decides a sample. `problems`: what a line is; `engine`: who draws, `draws`: how; `prompt`: how a problem is
    posed. `checks`: what is asked of a chain beside its answer. `attempts` at a verdict; `max_undecided_rate`: of
    samples without one. `decontaminate`: what is held out."""

    scan: Scan = Scan(chunk_records=64)  # problems per piece of work: what a kill can cost
    problems: Problems = Problems()
    exact: Exact = Exact()
    decontaminate: Decontaminate | None = None
    engine: EngineSpec = EngineSpec()
    draws: Draws = Draws()
    prompt: Prompt = Prompt()
    checks: Checks = Checks()
    attempts: int = Field(default=3, ge=1)
    max_undecided_rate: float = Field(default=0.05, ge=0, le=1)
    rollouts: WriteRollouts = WriteRollouts()

    @model_validator(mode="after")
    def _fits(self) -> Asking:
        if self.draws.max_tokens >= self.engine.context:
            raise ValueError(
                f"draws.max_tokens={self.draws.max_tokens}: less than engine.context={self.engine.context}, which has"
                " to hold the prompt too"
            )
        if self.engine.dtype is not None and self.engine.dtype not in DTYPES:
            raise ValueError(f"engine.dtype={self.engine.dtype!r}: one of {', '.join(DTYPES)}, or null: as stored")
        votes, kind = self.checks.votes, self.problems.kind
        if kind in ("code", "seed") and (votes is not None or self.checks.judge is not None):
            raise ValueError(
                "checks.votes, checks.judge: programs are judged by their tests, problems from seeds by their form;"
                " leave them null"
            )
        if kind == "seed" and self.prompt == Prompt():
            raise ValueError("prompt.template: say what to write from {question}, and to begin it with `Problem:`")
        if kind not in ("code", "seed") and (votes is None) == (self.problems.answer is None):
            raise ValueError(
                f"problems.answer={self.problems.answer!r}: a field with the gold answer; or null, with checks.votes,"
                " where problems have none"
            )
        return self


class Sampling(Asking):
    """What decides the samples. `waves` and `stop`: how many of a problem."""

    waves: Waves = Waves()
    stop: Stop = Stop()

    @model_validator(mode="after")
    def _enough_vote(self) -> Sampling:
        votes = self.checks.votes
        if votes is not None and votes.at_least > self.stop.at_most:
            raise ValueError(
                f"checks.votes.at_least={votes.at_least}: so many samples vote, and stop.at_most={self.stop.at_most}"
            )
        return self


class RolloutRecipe(Sampling, RecordRecipe):
    """Problems with their samples, judged."""

    form: ClassVar[Form] = "rollouts"

    @property
    def flow(self) -> Flow:
        """From a line to a problem with its samples, in order."""
        votes = self.checks.votes
        voters = 0 if votes is None else votes.at_least
        generate = Generate(self.engine, self.draws, self.prompt, self.waves, self.stop, voters)
        verify = Verify.of(self.problems.kind, self.checks, self.stop)
        roll_out = RollOut(generate, verify, Settle(self.stop), self.attempts, self.max_undecided_rate)
        return Flow(self.problems, (*self.before_drawing(), roll_out), self.rollouts, IF_NONE)

    def before_drawing(self) -> list[Step]:
        """Which problems samples are drawn for, in order."""
        steps: list[Step] = [ExactDuplicates(self.exact)]
        if self.decontaminate is not None:
            steps.append(Decontamination(self.decontaminate))
        return steps

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig for a model or a held-out version that cannot be used."""
        models = {ENGINE: engine_of(self, versions), JUDGE: judge_of(self, versions)}
        named = tuple(
            manifest.ref.model_copy(update={"role": role})
            for role, manifests in models.items()
            for manifest in manifests
        )
        resolved = super().resolve(versions, suppression)
        judge = self.checks.judge
        reproducible = (
            resolved.reproducible and self.engine.kind == "compact" and (judge is None or judge.kind == "compact")
        )
        sources = (*resolved.sources, *named, *refs_of(versions, self.decontaminate))
        return replace(resolved, sources=sources, reproducible=reproducible)

    def fixed_by(self, base: Manifest) -> Mapping[str, str]:
        """What one dataset cannot have two of."""
        return {
            "problems": "its problems are of another kind, or were read otherwise",
            "prompt": "its samples answer another prompt, and a row of training data has one",
        }


class ReasoningRecipe(Sampling, Chain):
    """What decides the data. `select`: which right chains are fine-tuned on; `names`: group -> names of people, for the
    report of what selection did to groups; None: common first names of English. `pairs`: whether preferences are made
    too."""

    form: ClassVar[Form] = "samples"

    dataset: str = "reasoning"
    select: Selection = Selection()
    names: dict[str, tuple[str, ...]] | None = None
    pairs: bool = True

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for a model or a held-out version that cannot be used."""
        engine_of(self, versions)
        judge_of(self, versions)
        refs_of(versions, self.decontaminate)

    def stages(self, suppression: str = "") -> tuple[Any, ...]:
        """Raises TypeError, as `resolve`."""
        raise TypeError(f"{self.dataset}: a chain has stages link by link")

    def link(self, done: Sequence[Manifest]) -> Recipe | None:
        """Rollouts, pairs, fine-tuning samples."""
        if not done:
            own = {name: getattr(self, name) for name in Sampling.model_fields}
            extends = None if self.extends is None else f"{self.dataset}.rollouts"
            return RolloutRecipe(**own | {"dataset": f"{self.dataset}.rollouts", "extends": extends})
        kinds = self._selections()
        if len(done) > len(kinds):
            return None
        kind, dataset = kinds[len(done) - 1]
        return kind(
            dataset=dataset,
            limit=self.limit,
            of=str(done[0]),
            prompt=self.prompt,
            select=self.select,
            decontaminate=self.decontaminate,
            names=self.names,
        )

    def _selections(self) -> list[tuple[type[SelectRecipe], str]]:
        """What is made of the rollouts, in order, and the dataset of each."""
        writes = QuestionsRecipe if self.problems.kind == "seed" else SelectRecipe
        kinds: list[tuple[type[SelectRecipe], str]] = [(writes, self.dataset)]
        if self.pairs and self.problems.kind != "seed":
            kinds.insert(0, (PairsRecipe, f"{self.dataset}.pairs"))
        return kinds

    def makes(self) -> Mapping[str, Form]:
        """Rollouts, pairs, fine-tuning samples."""
        suffix = "" if self.limit is None else ".limit"
        selections = {f"{dataset}{suffix}": kind.form for kind, dataset in self._selections()}
        return {f"{self.dataset}.rollouts{suffix}": RolloutRecipe.form, **selections}


class ReasoningConfig(PipelineConfig):
    """`conf/reasoning.yaml`."""

    pipeline: str = "reasoning"
    recipe: ReasoningRecipe = ReasoningRecipe()
    run: ReasoningRun = ReasoningRun()

    def check(self, versions: Versions) -> None:
        """Raises BadConfig as the recipe does, for a server without an address, and for an interpreter without vLLM."""
        super().check(versions)
        check_servers(self.recipe, self.run)


def check_servers(recipe: Asking, run: ReasoningRun) -> None:
    """Raises BadConfig for a server without an address, and for an interpreter without vLLM."""
    endpoint = run.hosts.endpoint
    if recipe.engine.kind == "openai" and not endpoint.url and not endpoint.batch_folder:
        raise BadConfig(
            "run.hosts.endpoint.url is empty: give the address of the server, up to and with /v1; or batch_folder,"
            " for batch files of a provider"
        )
    judge, there = recipe.checks.judge, run.judge or run.hosts
    if judge is not None and judge.kind == "openai" and not there.endpoint.url:
        raise BadConfig("run.judge.endpoint.url is empty: give the address of the judge's server, up to and with /v1")
    _check_vllm(recipe.engine, run.hosts, "run.hosts.vllm")
    if judge is not None:
        _check_vllm(judge, there, "run.judge.vllm, or run.hosts.vllm")


def _check_vllm(engine: EngineSpec, hosts: Hosts, key: str) -> None:
    """Raises BadConfig where the engine is vLLM, and the interpreter has none."""
    if engine.kind == "vllm":
        try:
            installed(hosts.vllm.python)
        except BadServer as error:
            raise BadConfig(f"{key}: {error}") from error


def engine_of(recipe: Asking, versions: Versions) -> list[Manifest]:
    """The versions that the engine is made of: a model, and its tokenizer where that is another version; none of a
    server. Raises BadConfig."""
    return _models(recipe.engine, "recipe.engine", versions)


def judge_of(recipe: Asking, versions: Versions) -> list[Manifest]:
    """The versions that a model that judges is made of, as `engine_of`; none where no model judges."""
    judge = recipe.checks.judge
    return [] if judge is None else _models(judge, "recipe.checks.judge", versions)


def _models(engine: EngineSpec, key: str, versions: Versions) -> list[Manifest]:
    if not engine.model:
        raise BadConfig(f"{key}.model is empty: give an exact version of a model, or what a server calls its own")
    if engine.kind == "openai":
        if engine.tokenizer:
            raise BadConfig(f"{key}.tokenizer: {engine.tokenizer!r}: a server has its own; leave it empty")
        return []
    model = _exact(versions, engine.model, f"{key}.model")
    if model.form != "model":
        raise BadConfig(f"{key}.model: {model} is no model: it holds {model.layout.called}")
    most = shape_of(versions.store, model).config.text.max_position_embeddings
    if engine.context > most:
        raise BadConfig(f"{key}.context: {engine.context}; the context of {model} is {most} tokens")
    if not engine.tokenizer:
        if tokenizer_shard(model) is None:
            raise BadConfig(f"{key}.tokenizer is empty, and {model} brings none: give an exact version")
        return [model]
    tokenizer = _exact(versions, engine.tokenizer, f"{key}.tokenizer")
    own, given = tokenizer_shard(model), tokenizer_shard(tokenizer)
    if given is None:
        raise BadConfig(f"{key}.tokenizer: {tokenizer} has none: it holds {tokenizer.layout.called}")
    if own is not None and own.sha256 != given.sha256:
        raise BadConfig(f"{key}.tokenizer: {tokenizer} is not the tokenizer that {model} brings: leave it empty")
    return [model, tokenizer]


def _exact(versions: Versions, ref: str, key: str) -> Manifest:
    """A version by its number: a tag would be another name of the same samples."""
    manifest = exact(versions, ref, key)
    if ref != str(manifest):
        raise BadConfig(f"{key}: {ref} is a tag; give the version, {manifest}")
    return manifest
