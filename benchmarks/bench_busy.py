"""How busy is the engine in a run of the reasoning pipeline: the share of its slots that is held over its time?

A model that learned for some seconds answers new word problems, on Ray, by the pipeline as it is configured by default:
waves to every problem's stop, verdicts between them. Time of generation is from the first request to the last sample;
a slot is held in a step in which it grows a sample. Beside it as many pieces of work as one, for which the engine waits
while a wave is judged. Which samples count is the same, whoever shares the engine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.harness import Differ, Report, Row, figure
from benchmarks.reasoning_lake import import_trained, problems
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import scratch
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.reason.reasoning import ReasoningConfig, RolloutRecipe
from gristmill.pipelines.reason.settings import ReasoningRun
from gristmill.stages.run.runner import Runner

DEFAULT, ALONE = "as many pieces of work as the default says", "one piece of work at a time"


class RolloutConfig(PipelineConfig):
    """The first version of the pipeline's chain."""

    pipeline: str = "rollouts"
    recipe: RolloutRecipe
    run: ReasoningRun


def rolled_out(store: Store, file: Path, dataset: str, workers: int, hosts: dict[str, Any]) -> Manifest:
    """The version of rollouts of a run. Its samples are those of its seed: each run has another, to draw its own."""
    recipe = {
        "inputs": [str(file)],
        "dataset": dataset,
        "engine": {"model": "base@v1", "context": 128},
        "draws": {"max_tokens": 64},
        "checks": {"symbolic": False},
    }
    given = ReasoningConfig.model_validate({"recipe": recipe, "run": {"workers": workers, "hosts": hosts}})
    link = given.recipe.link([])
    assert isinstance(link, RolloutRecipe)
    return run_pipeline(RolloutConfig(recipe=link, run=given.run), store, Runner(store, workers=workers)).manifest


def run(tiny: bool) -> Report:
    """The runs. `tiny`: on next to nothing and without Ray, for the tests."""
    count, steps, workers = (3, 2, 0) if tiny else (300, 170, 2)
    with scratch() as folder:
        learned = folder / "learned"
        learned.mkdir()
        import_trained(open_store(str(learned / "lake")), learned, steps)
        file, manifests = problems(folder / "problems.jsonl", count), dict[str, Manifest]()
        for name, hosts in ((DEFAULT, {}), (ALONE, {"works": 1})):
            place = folder / str(len(manifests))  # a lake of its own, in which nothing was drawn yet
            shutil.copytree(learned / "lake", place)
            manifests[name] = rolled_out(open_store(str(place)), file, "busy", workers, hosts)
    digests = {manifest.content_digest for manifest in manifests.values()}
    if len(digests) != 1:
        raise Differ("busy: other samples, by who shared the engine")
    statistics = {name: manifest.statistics["rollouts"] for name, manifest in manifests.items()}
    rows = tuple(
        Row(f"slots held over the time of generation, {name}", figure([100 * of_run["busy"]]), "%", "same digest")
        for name, of_run in statistics.items()
    )
    notes = ("the last samples of a run leave slots empty whatever is done: a longer run is busier",)
    kept = ("samples", "surplus", "tokens", "distinct", "ends", "busy")
    details = {name: {key: of_run[key] for key in kept} for name, of_run in statistics.items()}
    return Report("busy", f"{count} word problems", 1, rows, notes, json.loads(json.dumps(details)))
