"""Small lakes to train on: a mixture of tiny windows, and recipes of stages over it, for tests."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from image_mixtures import CUT, pictures
from mixtures import documents, mix, texts, tokenizer

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.train import TrainConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.train import local

WINDOW = 64
SEES = ("lora_vision", "vision_encoder", "vision_projector")
"""Parts that images reach."""


def prepare(store: Store) -> None:
    """`web@v1`, `bpe@v1` and `mix@v1`, a mixture of a few windows of WINDOW tokens; `pics@v1`, and `seen@v1` of it."""
    documents(store, "web", texts(40, longest=60))
    tokenizer(store, "web@v1")
    mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.1)
    with tempfile.TemporaryDirectory() as folder:
        pictures(store, Path(folder), [([(32, 32)], "It is {}, that is all there is.") for _ in range(4)])
    mix(store, {"pics@v1": 1}, window=WINDOW, max_waste=0.5, dataset="seen", images=CUT)


def stage(name: str = "pretrain", **changes: Any) -> dict[str, Any]:
    """A stage of 3 steps of 2 windows that trains `language`, as a recipe has it."""
    return {
        "name": name,
        "trainable": ["language"],
        "data": "mix@v1",
        "batch": 2,
        "steps": 3,
        "optim": {"lr": 1e-3},
        "gates": ["frozen_parts", "trained_parts"],
        **changes,
    }


def adapt(language: str = "stage:pretrain", **changes: Any) -> dict[str, Any]:
    """A stage that trains what sees, an adapter with it, upon a language model."""
    fields = {"init_from": {"language": language}, "trainable": [*SEES], "data": "seen@v1"}
    return stage(**{"name": "adapt", **fields, **changes})


def adapted(source: str) -> dict[str, str]:
    """All parts of what `adapt` made, as a stage starts from them."""
    return dict.fromkeys(("language", *SEES), source)


def config(*stages: dict[str, Any], run: dict[str, Any] | None = None, **recipe: Any) -> TrainConfig:
    """A config of these stages over the lake of `prepare`."""
    given = {"dataset": "nano", "model": "nano", "tokenizer": "bpe@v1", "stages": list(stages), **recipe}
    return TrainConfig.model_validate({"recipe": given, "run": {"workers": 0, "checkpoint_every": 2, **(run or {})}})


def train(store: Store, *stages: dict[str, Any], runner: Runner | None = None, **recipe: Any) -> Result:
    """Runs a recipe of these stages to its end."""
    return run_pipeline(config(*stages, **recipe), store, runner or Runner(store, workers=0))


def refusals(store: Store) -> None:
    """Beside what `prepare` makes: versions that a stage may not name, each for a reason of its own."""
    versions = Versions(store)
    mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.1, dataset="gone")
    versions.withdraw("gone", 1, "request 17")
    mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.1, limit=2)  # mix.limit@v1
    versions.tag("mix", 1, "best")
    documents(store, "math", texts(30, seed=1))
    tokenizer(store, "math@v1", vocab_size=380)
    mix(store, {"web@v1": 1}, window=WINDOW, max_waste=0.1, dataset="other", tokenizer="bpe@v2")


class Stopped(OSError):
    """In place of a machine that goes away."""


def stop_at(monkeypatch: Any, step: int) -> None:
    """Lets a training end at a step, before anybody is shown it."""

    shown = local.reporting

    @contextmanager
    def stopping(*run: Any) -> Any:
        with shown(*run) as show:

            def show_or_stop(progress: Any) -> None:
                if progress.step == step:
                    raise Stopped("the disk is gone")
                show(progress)

            yield show_or_stop

    monkeypatch.setattr(local, "reporting", stopping)
