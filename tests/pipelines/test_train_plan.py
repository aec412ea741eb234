"""What `--plan` says of a training: what is trained, on how much, memory and time, and what is done already."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from training import SEES, adapt, config, prepare, stage, train

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import counts
from gristmill.model.phi4.presets import PRESETS
from gristmill.pipelines.command import Request, run
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Outlook, PlanOnly

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def lake(store: Store) -> Store:
    prepare(store)
    return store


def adapters(**changes: Any) -> dict[str, Any]:
    return adapt(optim={"lr": 5e-4}, **changes)


def planned(store: Store, *stages: dict[str, Any], **how: Any) -> Outlook:
    with pytest.raises(PlanOnly) as plan:
        run_pipeline(config(*stages, **how), store, Runner(store, workers=0, plan=True))
    assert plan.value.outlook is not None
    return plan.value.outlook


def test_a_plan_says_of_every_stage_what_it_needs(lake: Store) -> None:
    first, second = planned(lake, stage(), adapters(steps=5, batch=3)).values
    language = counts(Multimodal.seeded(PRESETS["nano"], 0))["language"]
    assert first["trained"] == {"language": language} and first["frozen"] == {}
    assert (first["steps"], first["batch"], first["window"], first["peak_lr"]) == (3, 2, 64, 1e-3)
    mixture = Versions(lake).resolve("mix@v1").statistics
    assert first["tokens"] == round(6 * mixture["tokens"] / mixture["windows"])
    assert first["memory"]["parameters"] == first["memory"]["gradients"] == 4 * language
    assert first["checkpoint_bytes"] == pytest.approx(12 * language, rel=0.01)
    assert first["memory"]["peak"] > 16 * language and first["seconds_a_step"] > 0
    assert first["seconds_left"] == 3 * first["seconds_a_step"]
    assert second["frozen"] == {"language": language} and set(second["trained"]) == set(SEES)
    assert second["memory"]["gradients"] == 4 * sum(second["trained"].values())
    mixture = Versions(lake).resolve("seen@v1").statistics
    assert second["tokens"] == round(15 * mixture["tokens"] / mixture["windows"])
    assert (first["done"], second["done"], second["steps_reached"]) == (None, None, 0)


def test_what_is_done_is_only_named(lake: Store) -> None:
    train(lake, stage())
    plan = planned(lake, stage(), adapters())
    assert plan.lines[0] == "stage pretrain: done, nano.pretrain@v1"
    assert plan.values[0]["done"] == "nano.pretrain@v1" and "memory" not in plan.values[0]
    assert plan.values[1]["memory"]["peak"] > 0


def test_the_command_prints_lines_and_the_same_as_json(lake: Store, capsys: pytest.CaptureFixture[str]) -> None:
    given = config(stage()).model_dump(mode="json")
    assert run(Request(given, (), lake.uri, plan=True)) == 0
    captured = capsys.readouterr()
    about = json.loads(captured.out.splitlines()[-1])
    assert about["plan"] == [{"stage": "train", "done": 0, "todo": 1}]
    (outlook,) = about["outlook"]
    language = outlook["trained"]["language"]
    assert f"stage pretrain: trains language ({language:,} parameters); frozen: nothing" in captured.err
    assert "3 steps of 2 windows of 64 of mix@v1: about" in captured.err and "peak LR 1.00e-03" in captured.err
    assert "and for a pass" in captured.err and "s a step and" in captured.err
    assert not Versions(lake).numbers("nano.pretrain")


def test_a_gpu_that_is_not_here_is_reckoned_by_its_peak(lake: Store) -> None:
    (values,) = planned(lake, stage(), run={"device": "cuda"}).values
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert values["seconds_by"] == "35% of the peak of NVIDIA H100"
    assert values["seconds_a_step"] == pytest.approx(values["flops_a_step"] / (0.35 * 989e12))
