"""Two nights of problems whose chains are drawn, judged and selected, and a mixture of what was selected, as programs
that get killed run them.

The lake they begin in holds a model that was taught, in seconds, to end with one of two numbers: so that the verifier
accepts some of what it draws, and waves follow each other.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mixtures
import reasonings
import training

from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.stages.run.runner import Runner

DATASETS = ("reasoning.rollouts", "reasoning.pairs", "reasoning", "mix")
MODEL = "nano.taught@v1"
_ENDS = ("#### 1", "#### 2", "I add.\n#### 2", "I add.\n#### 1")
REASONING = {
    "extends": "reasoning",
    "engine": {"model": MODEL, "context": 256},
    "draws": {"max_tokens": 20, "seed": 3},
    "waves": {"first": 2, "then": 2},
    "stop": {"accept": 2, "at_most": 6},
    "scan": {"chunk_records": 5},
    "checks": {"symbolic": False},
}
HOSTS = {"hosts": {"max_num_seqs": 8}}
MIXTURE = {
    "tokenizer": "bpe@v1",
    "sources": {"reasoning@v2": {"weight": 1, "max_epochs": 1}},
    "window": 128,
    "max_waste": 0.6,
}


def _problem(number: int) -> dict[str, str]:
    return {"question": reasonings.problem(number)["question"], "answer": f"#### {1 + number % 2}"}


def write_nights(folder: Path) -> None:
    """What comes in, and `lake`: where the first run begins."""
    store = open_store(str(folder / "lake"))
    reasonings.lake(store, folder)
    lessons = [{"question": _problem(100 + n)["question"], "answer": _ENDS[n % len(_ENDS)]} for n in range(64)]
    mixtures.samples(store, folder / "in", "lessons", lessons, form="pair")
    mixtures.mix(store, {"lessons@v1": 1}, dataset="lessons-mix", window=256)
    upon = {"init_from": {"language": "base@v1"}, "data": "lessons-mix@v1", "optim": {"lr": 0.003}}
    training.train(store, training.stage("taught", **upon, steps=60, batch=4), model="base@v1", tokenizer="")
    for name, numbers in (("first", range(12)), ("second", (*range(3), *range(12, 22)))):
        reasonings.lines(folder / f"{name}.jsonl", [_problem(number) for number in numbers])


def recipes(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(pipeline, recipe) of each run, in turn."""
    first, second = (str(folder / f"{name}.jsonl") for name in ("first", "second"))
    return [
        ("reasoning", {**REASONING, "inputs": [first]}),
        ("reasoning", {**REASONING, "inputs": [first, second]}),
        ("mixture", MIXTURE),
    ]


def settings(pipeline: str, recipe: dict[str, Any]) -> list[str]:
    """As `--set` of the command line."""
    given = {f"recipe.{key}": value for key, value in recipe.items()}
    given |= {f"run.{key}": value for key, value in HOSTS.items()} if pipeline == "reasoning" else {}
    return [part for key, value in given.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def begin(folder: Path, lake: Path) -> None:
    """A lake to run in."""
    if not lake.exists():
        shutil.copytree(folder / "lake", lake)


def run_in_process(folder: Path, lake: Path) -> None:
    """All of them, without Ray and without a child process."""
    begin(folder, lake)
    for pipeline, recipe in recipes(folder):
        run: dict[str, Any] = HOSTS if pipeline == "reasoning" else {}
        if pipeline == "reasoning":
            recipe = {**recipe, "problems": {"seconds_per_record": None}}
        config = PIPELINES[pipeline].model_validate({"recipe": recipe, "run": {"workers": 0, **run}})
        store = open_store(str(lake))
        run_pipeline(config, store, Runner(store, workers=0))
