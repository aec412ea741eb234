"""Sinks of metrics: no point twice over a resume, none missing, and nothing that a sink does ends or delays a run."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_services import EventWriter, MLflowServer, Wandb
from waiting import PATIENCE

from gristmill.model.train.metrics import MetricsFile, Progress
from gristmill.stages.report import sinks as sinks_module
from gristmill.stages.report.reporter import Reporter
from gristmill.stages.report.sinks import About, Report, Sink, sinks_of, values_of

STEP = Progress(1, 12, 3, 2.5, 1e-2, 0.7, 30, 66, False, 0.5, 132.0, 5.5, None)
ABOUT = About("ab" * 32, "nano.pretrain", {"batch": 8, "data": "mix@v1"})


class Recorder:
    """A sink that keeps what it is given; `held` is what it says that it holds."""

    name = "recorder"

    def __init__(self, held: int = 0) -> None:
        self.held, self.steps, self.closed = held, [], []  # type: int, list[int], list[bool]

    def open(self, first: Progress) -> int:
        return self.held

    def write(self, steps: Sequence[Progress]) -> None:
        self.steps += [progress.step for progress in steps]

    def close(self, done: bool) -> None:
        self.closed.append(done)


def train(
    folder: Path,
    sinks: Sequence[Sink],
    first: int,
    last: int,
    killed: bool = False,
    patience: float = PATIENCE,
    before_end: Callable[[], object] = lambda: None,
) -> Reporter:
    """Steps first to last of a run whose file of metrics is in the folder; `killed`: it ends by an exception."""
    path = folder / "metrics.jsonl"
    reporter = Reporter(sinks, path, patience=patience)
    with MetricsFile(path, first - 1) as file:
        try:
            with reporter:
                for step in range(first, last + 1):
                    progress = replace(STEP, step=step, loss=10 / step, since=first - 1)
                    file.write(progress)
                    reporter(progress)
                before_end()
                if killed:
                    raise InterruptedError
        except InterruptedError:
            assert killed
    return reporter


def test_every_step_reaches_every_sink_once_and_in_order(tmp_path: Path) -> None:
    sinks = [Recorder(), Recorder()]
    reporter = train(tmp_path, sinks, 1, 2_500)
    assert all(sink.steps == list(range(1, 2_501)) and sink.closed == [True] for sink in sinks)
    assert reporter.problems == []


def test_a_resumed_run_sends_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    train(tmp_path, [], 1, 9, killed=True)
    ahead, behind, new = Recorder(held=9), Recorder(held=3), Recorder()
    train(tmp_path, [ahead, behind, new], 6, 12)  # from the checkpoint of step 5
    assert ahead.steps == [10, 11, 12]  # it has what the run repeats
    assert behind.steps == list(range(4, 13))  # what a killed process never sent
    assert new.steps == list(range(1, 13))


def test_a_run_that_is_broken_off_says_so_to_the_sink(tmp_path: Path) -> None:
    sink = Recorder()
    train(tmp_path, [sink], 1, 3, killed=True)
    assert sink.steps == [1, 2, 3] and sink.closed == [False]


def test_a_run_without_a_step_opens_no_sink(tmp_path: Path) -> None:
    sink = Recorder()
    assert train(tmp_path, [sink], 1, 0).problems == []
    assert sink.closed == []


@pytest.mark.parametrize("where", ["open", "write", "close"])
@pytest.mark.parametrize("error", [RuntimeError("quota\nmore"), SystemExit(3)])
def test_a_sink_that_fails_is_switched_off_said_once_and_again_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str, error: BaseException
) -> None:
    caplog.set_level(logging.WARNING, "gristmill")
    failing, whole = Recorder(), Recorder()
    failed = threading.Event()

    def fail(*_: Any) -> int:
        failed.set()
        raise error

    setattr(failing, where, fail)
    wait = (lambda: failed.wait(PATIENCE)) if where != "close" else (lambda: None)
    reporter = train(tmp_path, [failing, whole], 1, 50, before_end=wait)
    assert whole.steps == list(range(1, 51)) and whole.closed == [True]
    (problem,) = reporter.problems
    last = 50 if where == "close" else 0
    kind = "RuntimeError: quota" if isinstance(error, RuntimeError) else "SystemExit: 3"
    assert problem == f"recorder has this run's steps up to {last} only: it was switched off by {kind}"
    assert [record.message for record in caplog.records] == [
        f"recorder is switched off, the training goes on: {kind}",
        problem,
    ]


def test_a_sink_that_hangs_holds_up_no_step_and_not_the_end(tmp_path: Path) -> None:
    slow, go_on = Recorder(), threading.Event()
    writing = threading.Event()

    def write(steps: Sequence[Progress]) -> None:
        writing.set()
        go_on.wait()

    slow.write = write  # type: ignore[method-assign]
    try:
        reporter = train(tmp_path, [slow], 1, 500, patience=0.0, before_end=lambda: writing.wait(PATIENCE))
        assert reporter.problems == [
            "recorder has this run's steps up to 0 only: it was too slow, and is no longer waited for"
        ]
    finally:
        go_on.set()


def test_what_is_no_number_is_not_sent() -> None:
    values = values_of(replace(STEP, loss=float("nan"), norm=float("inf"), skipped=True, mfu=0.4))
    assert values == {
        "train/lr": 1e-2,
        "train/targets": 30,
        "train/skipped": 1.0,
        "speed/tokens_per_second": 132.0,
        "speed/mfu": 0.4,
    }
    assert "speed/mfu" not in values_of(STEP) and values_of(STEP)["train/loss"] == 2.5


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sinks_module.PACKAGES, name, "no_such_package")
    with pytest.raises(ValueError, match=rf"run.report.{name}='x': .* no_such_package is not .* 'gristmill\[{name}\]'"):
        Report(**{name: "x"}).check()
    Report().check()
    assert sinks_of(Report(), ABOUT) == []


def test_nothing_is_imported_that_is_not_asked_for() -> None:
    before = set(sys.modules)
    assert [sink.name for sink in sinks_of(Report("a", "b", "c"), ABOUT)] == ["tensorboard", "wandb", "mlflow"]
    assert set(sys.modules) == before


def test_wandb_is_resumed_by_the_work_key_at_the_right_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for first, last, killed in ((1, 7, True), (6, 12, False)):
        assert train(tmp_path, sinks_of(Report(wandb="proj"), ABOUT), first, last, killed).problems == []
    (history,) = wandb.runs.values()
    assert list(history) == list(range(1, 13)) and history[12]["train/loss"] == 10 / 12
    assert wandb.ended == [1, 0]
    asked = wandb.asked[1]
    assert (asked["project"], asked["id"], asked["resume"]) == ("proj", ABOUT.key[:32], "allow")
    assert asked["name"] == "nano.pretrain-abababab" and asked["config"] == {"batch": 8, "data": "mix@v1"}


def test_wandb_without_a_key_never_asks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Wandb(login=False))
    (problem,) = train(tmp_path, sinks_of(Report(wandb="p"), ABOUT), 1, 3).problems
    assert "PermissionError: there is no API key; `wandb login` stores one" in problem
    monkeypatch.setitem(sys.modules, "wandb", Wandb(login=False, mode="offline"))
    assert train(tmp_path, sinks_of(Report(wandb="p"), ABOUT), 1, 3).problems == []


def test_mlflow_finds_its_run_again_and_adds_no_point_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MLflowServer()
    for name, module in server.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    report = Report(mlflow="http://tracking")
    assert train(tmp_path, sinks_of(report, ABOUT), 1, 700, killed=True).problems == []
    assert server.status == "FAILED"
    assert train(tmp_path, sinks_of(report, ABOUT), 601, 1_200).problems == []
    assert server.status == "FINISHED" and server.params == {"batch": "8", "data": "mix@v1"}
    assert [step for name, step, _ in server.points if name == "train/loss"] == list(range(1, 1_201))
    assert max(server.requests) <= 1000


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    """With the package itself, where it is installed: the extra `tensorboard`."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = Report(tensorboard=str(tmp_path / "events"))
    report.check()
    for first, last, killed in ((1, 7, True), (6, 12, False)):
        assert train(tmp_path, sinks_of(report, ABOUT), first, last, killed).problems == []
    shown = EventAccumulator(str(tmp_path / "events" / ABOUT.title))
    shown.Reload()
    points = [(event.step, event.value) for event in shown.Scalars("train/loss")]
    assert points == [(step, pytest.approx(10 / step)) for step in range(1, 13)]
    assert "speed/mfu" not in shown.Tags()["scalars"]


def test_tensorboard_is_told_from_where_on_points_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = EventWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(EventWriter, "opened", [])
    monkeypatch.setattr(EventWriter, "points", [])
    monkeypatch.setattr(sinks_module, "WRITTEN_AGAIN", 3)
    for first, last, killed in ((1, 7, True), (6, 8, False)):
        assert train(tmp_path, sinks_of(Report(tensorboard=str(tmp_path)), ABOUT), first, last, killed).problems == []
    assert EventWriter.opened == [("nano.pretrain-abababab", 1), ("nano.pretrain-abababab", 3)]
    assert [step for name, step in EventWriter.points if name == "train/lr"] == [1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7, 8]
