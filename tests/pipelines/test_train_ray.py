"""A stage that is trained in two ranks on Ray is the version that it is in one process, but for rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from training import config, prepare, stage, train
from waiting import PATIENCE

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.train import TrainRun
from gristmill.stages.core.work import Resources
from gristmill.stages.train.work import Train

ROOT = Path(__file__).parents[2]


def test_two_ranks_commit_a_version_and_leave_nothing_behind(s3_lake: str, tmp_path: Path) -> None:
    # In a process of its own: clients of S3 and Ray's threads do not go with the forks of other tests. A lake in a
    # folder is trained on by tests/test_ray_job.py
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    program = Path(__file__).parents[1] / "train_lake.py"
    child = subprocess.run(
        [sys.executable, str(program), s3_lake, "ray", "2"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch), "RAY_ADDRESS": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    ray = json.loads(child.stdout.splitlines()[-1])
    local = open_store(str(tmp_path / "local"))
    prepare(local)
    training = train(local, stage(batch=4, steps=6)).manifest.statistics["training"]
    assert (ray["world"], ray["steps"], ray["order"]) == (2, 6, training["order"])
    assert ray["final_loss"] == pytest.approx(training["final_loss"], abs=1e-4)
    assert ray["metrics"] == [1, 2, 3, 4, 5, 6] == ray["shown"]
    assert ray["left"] == []  # no folder of a run in the lake
    assert not list(scratch.glob("grist-*")), "scratch folders, also Ray's"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"ranks": 2}, "ranks=2: one process trains in process; give trainer: ray"),
        ({"trainer": "ray", "gpus": 1.5}, "gpus=1.5: 0 or more, and whole above 1"),
        ({"trainer": "spark"}, "'in_process' or 'ray'"),
    ],
)
def test_what_does_not_go_together_is_refused_when_the_config_is_read(run: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainRun.model_validate(run)


def test_what_waits_for_ranks_holds_nothing_that_they_wait_for(store: Store) -> None:
    prepare(store)
    config_of_run = config(stage(), run={"trainer": "ray", "ranks": 2})
    assert isinstance(config_of_run.run, TrainRun)
    lookup = config_of_run.recipe.lookups(Versions(store))[0]
    assert Train(lookup.stage, lookup.config, config_of_run.run.execution).resources == Resources(cpus=0)
