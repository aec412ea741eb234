"""A training is seen from where it was started: the live line, services, and what `grist runs` says of it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from fake_services import Wandb
from training import config, prepare, stage, train

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.model.runs.curve import curve_of
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.report.sinks import PACKAGES
from gristmill.stages.run.runner import Runner
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.reporting import RunProgress
from gristmill.stages.train.seen import metrics_of_version, run_rows


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A lake with a mixture of tiny windows. Each test trains stages of a name of its own."""
    store = open_store(str(tmp_path_factory.mktemp("seen") / "lake"))
    prepare(store)
    return store


def line_of(caplog: pytest.LogCaptureFixture, beginning: str) -> str:
    """The last message in the log that begins so."""
    return [message for message in caplog.messages if message.startswith(beginning)][-1]


def test_a_run_is_seen_while_it_runs_and_after_it_was_broken_off(
    prepared: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that other processes read is followed; a run that goes on says where, and reports to services."""
    caplog.set_level(logging.INFO, "gristmill")
    beat, beats = RunFolder.alive, []

    def broken_off(folder: RunFolder) -> None:
        beat(folder)
        beats.append(folder.key)
        if len(beats) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "alive", broken_off)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, stage(steps=6))
    (row,) = run_rows(prepared)
    assert (row.dataset, row.state, row.step, row.steps) == ("nano.pretrain", "ended", 3, 6)
    assert row.loss is not None and row.loss > 0
    assert line_of(caplog, "nano.pretrain: ").startswith("nano.pretrain: step 3 of 6, loss ")

    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(PACKAGES, "wandb", "json")  # as if it were installed
    reported = config(stage(steps=6), run={"report": {"wandb": "proj"}})
    manifest = run_pipeline(reported, prepared, Runner(prepared, workers=0)).manifest
    assert line_of(caplog, "nano.pretrain: ").startswith("nano.pretrain: step 6 of 6, loss ")
    assert run_rows(prepared) == []
    curve = curve_of(metrics_of_version(prepared, manifest))
    assert curve.steps == (1, 2, 3, 4, 5, 6) and curve.resumed == (2,)
    (history,) = wandb.runs.values()
    assert list(history) == [1, 2, 3, 4, 5, 6] and wandb.ended == [0]
    assert wandb.asked[0]["config"]["optim.lr"] == 1e-3 and wandb.asked[0]["id"] == row.key[:32]


def test_a_service_whose_package_is_missing_is_refused_before_anything_is_trained(
    prepared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "mlflow", "no_such_package")
    reported = config(stage("other"), run={"report": {"mlflow": "http://x"}})
    with pytest.raises(BadConfig, match=r"run.report.mlflow='http://x': .*pip install 'gristmill\[mlflow\]'"):
        run_pipeline(reported, prepared, Runner(prepared, workers=0))
    assert run_rows(prepared) == []


def test_a_service_that_fails_costs_the_run_nothing(
    prepared: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "gristmill")
    monkeypatch.setitem(sys.modules, "wandb", Wandb(login=False))
    monkeypatch.setitem(PACKAGES, "wandb", "json")
    reported = config(stage("failing"), run={"report": {"wandb": "proj"}})
    assert run_pipeline(reported, prepared, Runner(prepared, workers=0)).new
    assert line_of(caplog, "wandb has this run's steps up to 0 only: it was switched off by PermissionError")


def test_a_training_that_was_done_before_has_no_live_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gristmill")
    progress = RunProgress(RunFolder(open_store(str(tmp_path / "lake")), "ab" * 32), "nano.x", terminal=False)
    with progress.stage("train", total=1, done=1) as advance:
        assert advance is not None
    assert caplog.messages == ["train: its only piece was done before"]
