"""The grpo pipeline: a policy learns from its own samples, by what a verifier says of them, round after round.

A chain of four versions a round. `DATASET.rollouts`: samples of a share of the problems, drawn by the policy as it is
-> `DATASET.graded`: those samples with their advantages over each other -> `DATASET.windows` -> `DATASET`: the policy,
trained by a stage with `loss: grpo` and held to the model that the first round began with. Each is a version like any
other, so what a kill interrupts goes on where it was, and every policy names what it was made from.
Source: DeepSeekMath, arXiv 2402.03300, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field, model_validator

from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.parts import Part
from gristmill.model.train.optim_config import Optim
from gristmill.pipelines.frame.chunk_steps import NOTHING
from gristmill.pipelines.frame.flow import State, Step
from gristmill.pipelines.frame.recipe import BuildContext, Chain, PipelineConfig, Recipe
from gristmill.pipelines.frame.sources import tokenizer_version
from gristmill.pipelines.mixture import MixtureRecipe
from gristmill.pipelines.reason.contamination import refs_of
from gristmill.pipelines.reason.grade import GradeRecipe
from gristmill.pipelines.reason.reasoning import Asking, RolloutRecipe, check_servers, engine_of, judge_of
from gristmill.pipelines.reason.roll_out import posings
from gristmill.pipelines.reason.settings import ReasoningRun
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.train import StageRecipe, TrainRecipe
from gristmill.pipelines.training.run import TrainRun
from gristmill.pipelines.training.spec import StageSettings, StageSpec
from gristmill.stages.core.work import Stage
from gristmill.stages.generate.share import TakeShare, share_works
from gristmill.stages.mix.mix import Share
from gristmill.stages.models.model_versions import shape_of
from gristmill.synth.sampling import Stop, Waves

_LINKS = 4
"""Versions of a round."""
_WINDOWS = "windows@v1"
"""Stands for the windows of a round that are still to be made: what is checked does not depend on which they are."""


@dataclass(frozen=True)
class RoundStep(Step):
    """Leaves in the problems of a round."""

    take: TakeShare

    grows: ClassVar[Mapping[str, tuple[str, ...]]] = NOTHING
    deciders: ClassVar[tuple[str, ...]] = (TakeShare.name,)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        return (self.take,)

    def run(self, run: BuildContext, state: State) -> State:
        """Drops the others, for this round."""
        done = run.runner.map("share", share_works(self.take, posings(run.runner.store, state.records)))
        records = state.records.judged("share", done, ())
        return state.after(records, done, measures=[receipt.output("screened") for receipt in done])


class RoundRecipe(RolloutRecipe):
    """Rollouts of the problems of a round."""

    take: TakeShare

    def before_drawing(self) -> list[Step]:
        """As of any rollouts; then the round's share is taken."""
        return [*super().before_drawing(), RoundStep(self.take)]


class GrpoRecipe(Asking, Chain):
    """What decides the policies. `engine.model`: the one that the first round begins with, and that all are held to;
    `rounds` of `share` of the problems each, with `group` samples a problem; `window`: tokens of a window; `training`:
    how a round is trained."""

    form: ClassVar[Form] = "model"

    dataset: str = "grpo"
    rounds: int = Field(default=4, ge=1)
    share: float = Field(default=1.0, gt=0, le=1)
    group: int = Field(default=8, ge=2)
    window: int = Field(default=4096, ge=16)
    training: StageSettings = StageSettings(batch=8, optim=Optim(lr=1e-6, weight_decay=0.0), epochs=1, beta=0.04)

    @model_validator(mode="after")
    def _can_be(self) -> GrpoRecipe:
        if self.extends is not None or self.limit is not None:
            raise ValueError("extends, limit: a policy is trained whole; give fewer rounds, and dataset another name")
        if self.problems.kind == "seed":
            raise ValueError(
                "problems.kind='seed': a policy is rewarded for right answers, and what is written from a seed has"
                " none; allowed are maths, choice and code. `conf/reasoning.yaml` makes problems of seeds"
            )
        draws = self.draws
        if draws.temperature != 1 or draws.top_p != 1 or draws.stop:
            raise ValueError(
                f"draws: temperature={draws.temperature}, top_p={draws.top_p}, stop={list(draws.stop)}: the loss"
                " compares policies as they are; allowed are temperature 1, top_p 1 and no stop"
            )
        if self.engine.kind != "compact":
            raise ValueError(f"engine.kind={self.engine.kind!r}: the policy is trained here, so allowed is compact")
        votes = self.checks.votes
        if votes is not None and votes.at_least > self.group:
            raise ValueError(f"checks.votes.at_least={votes.at_least}: so many samples vote, and group={self.group}")
        self.stage(0, "policy@v1", _WINDOWS)
        return self

    def check(self, versions: Versions) -> None:
        """Raises BadConfig for a model, a tokenizer or a held-out version that cannot be used."""
        (model, *_) = engine_of(self, versions)
        judge_of(self, versions)
        if not self.engine.tokenizer:
            raise BadConfig("recipe.engine.tokenizer is empty: give the exact version, by which windows are made")
        tokenizer_version(versions, self.engine.tokenizer)
        most = shape_of(versions.store, model).config.text.max_position_embeddings
        if self.window > most:
            raise BadConfig(f"recipe.window: {self.window}; the context of {model} is {most} tokens")
        refs_of(versions, self.decontaminate)

    def stages(self, suppression: str = "") -> tuple[Any, ...]:
        """Raises TypeError, as `resolve`."""
        raise TypeError(f"{self.dataset}: a chain has stages link by link")

    def link(self, done: Sequence[Manifest]) -> Recipe | None:
        """Of each round the rollouts, their samples with advantages, windows of these, and the policy."""
        number, at = divmod(len(done), _LINKS)
        if number == self.rounds:
            return None
        policy = str(done[number * _LINKS - 1]) if number else self.engine.model
        if at == 0:
            return self._rollouts(number, policy)
        last = str(done[-1])
        if at == 1:
            return GradeRecipe(dataset=f"{self.dataset}.graded", of=last, prompt=self.prompt)
        if at == 2:
            return MixtureRecipe(
                dataset=f"{self.dataset}.windows",
                tokenizer=self.engine.tokenizer,
                sources={last: Share(weight=1, max_epochs=1)},
                window=self.window,
                shard_tokens=max(self.window, MixtureRecipe().shard_tokens),
                seed=self.training.seed + number,
            )
        stage = self.stage(number, policy, last)
        whole = TrainRecipe(dataset=self.dataset, model=policy, tokenizer=self.engine.tokenizer, stages=(stage,))
        return StageRecipe(dataset=self.dataset, of=whole, done=())

    def makes(self) -> Mapping[str, Form]:
        """Of each round four versions, of the same datasets: they are told apart by their numbers."""
        name = self.dataset
        before: dict[str, Form] = {f"{name}.rollouts": "rollouts", f"{name}.graded": "graded"}
        return {**before, f"{name}.windows": "windows", name: self.form}

    def stage(self, number: int, policy: str, windows: str) -> StageSpec:
        """That trains the policy in a round. Raises ValueError for settings that cannot be."""
        settings = {name: getattr(self.training, name) for name in StageSettings.model_fields}
        return StageSpec(
            **settings | {"seed": self.training.seed + number},
            name="round",
            trainable=(Part.LANGUAGE,),
            data=windows,
            init_from={Part.LANGUAGE: policy},
            loss="grpo",
            reference=self.engine.model if "@" in self.engine.model else "",
        )

    def _rollouts(self, number: int, policy: str) -> RoundRecipe:
        own = {name: getattr(self, name) for name in Asking.model_fields}
        return RoundRecipe(
            **own
            | {
                "dataset": f"{self.dataset}.rollouts",
                "engine": replace(self.engine, model=policy),
                "draws": replace(self.draws, seed=self.draws.seed + number),
            },
            waves=Waves(self.group, self.group),
            stop=Stop(self.group, self.group, least_chance=0),  # a group is whole
            take=TakeShare(self.share, number, self.draws.seed),
        )


class GrpoRun(TrainRun, ReasoningRun):
    """How engines run (`hosts`), and how stages are trained."""


class GrpoConfig(PipelineConfig):
    """`conf/grpo.yaml`."""

    pipeline: str = "grpo"
    recipe: GrpoRecipe = GrpoRecipe()
    run: GrpoRun = GrpoRun()

    def check(self, versions: Versions) -> None:
        """Raises BadConfig as the recipe does, and for a judge's server without an address."""
        super().check(versions)
        check_servers(self.recipe, self.run)
