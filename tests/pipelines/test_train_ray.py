"""What a stage that is trained on Ray is refused, and what it holds meanwhile. That it is the version that one process
makes, but for rounding: tests/test_cluster.py, and in a folder tests/test_ray_job.py."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from training import config, prepare, stage

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.train import TrainRun
from gristmill.stages.core.work import Resources
from gristmill.stages.train.work import Train


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
