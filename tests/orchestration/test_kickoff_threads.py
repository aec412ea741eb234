"""On how many threads the process of a node computes: as many as the node holds CPUs, where nobody else decides."""

from __future__ import annotations

from typing import Any

import pytest

from gristmill.orchestration.kickoff.local import THREADS, environment
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.registry import PIPELINES


def config(pipeline: str, **run: Any) -> PipelineConfig:
    """A pipeline's config, of which only how it runs matters."""
    recipe = {"evaluate": {"model": "m@v1", "data": ["d@v1"]}, "web": {"inputs": ["a.jsonl"]}}[pipeline]
    return PIPELINES[pipeline].model_validate({"recipe": recipe, "run": run})


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("pipeline", "run", "threads"), [("web", {}, "1"), ("evaluate", {"cpus": 3}, "3")])
def test_a_node_has_as_many_threads_as_it_holds_cpus(pipeline: str, run: dict[str, Any], threads: str) -> None:
    variables = environment(config(pipeline, workers=0, **run))
    assert {name: variables[name] for name in THREADS} == dict.fromkeys(THREADS, threads)
    assert "PATH" in variables


def test_ray_decides_for_its_workers() -> None:
    assert not set(THREADS) & set(environment(config("web", workers=2)))


def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS[0], "7")
    variables = environment(config("web", workers=0))
    assert variables[THREADS[0]] == "7" and variables[THREADS[1]] == "1"
