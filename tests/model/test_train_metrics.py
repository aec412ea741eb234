"""What is seen of a run: a line a step, none twice after a kill, times and the share of a known device's peak."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from train_windows import tiny_trainer, write_windows

from gristmill.model.train.metrics import MetricsFile, Progress, utilisation
from gristmill.model.train.settings import Settings, Source

pytestmark = pytest.mark.usefixtures("one_thread")

STEP = Progress(1, 12, 3, 2.5, 1e-2, 0.7, 30, 66, False, 0.5, 132.0, 5.5, None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """11 windows in two shards."""
    return write_windows(tmp_path_factory.mktemp("windows"))


def lines(path: Path) -> list[dict[str, Any]]:
    """What a file of metrics holds."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_is_seen_and_written(source: Source, tmp_path: Path) -> None:
    seen: list[Progress] = []
    tiny_trainer(source, on_step=seen.append, metrics=tmp_path / "m.jsonl").train()
    assert lines(tmp_path / "m.jsonl") == [asdict(progress) for progress in seen]
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert [progress.position for progress in seen] == list(range(3, 37, 3))
    assert all(progress.seconds > 0 and progress.mfu is None for progress in seen)
    assert all(progress.tokens_per_second == progress.tokens / progress.seconds for progress in seen)
    assert seen[0].seconds_left > 0 and seen[-1].seconds_left == 0
    assert all(0 < progress.targets < progress.tokens <= 72 for progress in seen)


def test_a_run_that_goes_on_has_each_step_once(source: Source, tmp_path: Path) -> None:
    metrics, whole = tmp_path / "m.jsonl", tmp_path / "whole.jsonl"
    tiny_trainer(source, metrics=whole).train()

    def stop(progress: Progress) -> None:
        if progress.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(
            source, tmp_path / "c", on_step=stop, metrics=metrics, settings=Settings(checkpoint_every=5)
        ).train()
    assert [line["step"] for line in lines(metrics)] == list(range(1, 8))
    with metrics.open("a") as stream:
        stream.write('{"step": 8, "lo')  # as a kill leaves it
    tiny_trainer(source, tmp_path / "c", metrics=metrics, settings=Settings(checkpoint_every=5)).train()
    shared = ("step", "position", "loss", "lr", "norm", "targets", "tokens")
    assert [[line[key] for key in shared] for line in lines(metrics)] == [
        [line[key] for key in shared] for line in lines(whole)
    ]
    assert [line["since"] for line in lines(metrics)] == [0] * 5 + [5] * 7


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    with MetricsFile(tmp_path / "a" / "m.jsonl", 0) as file:
        file.write(replace(STEP, loss=math.nan, norm=math.inf, skipped=True))
    (line,) = lines(tmp_path / "a" / "m.jsonl")
    assert line["loss"] is None and line["norm"] is None and line["skipped"] is True
    assert line["lr"] == 1e-2 and line["mfu"] is None


def test_the_share_of_the_peak() -> None:
    assert utilisation(989e12, 2.0, "NVIDIA H100 80GB HBM3", 1) == 0.5
    assert utilisation(989e12, 2.0, "NVIDIA H100 80GB HBM3", 4) == 0.125
    assert utilisation(1.0, 1.0, "cpu", 1) is None


@pytest.mark.parametrize("name", ["windows_per_pass", "checkpoint_every", "keep", "ahead"])
def test_settings_that_cannot_be_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1: allowed is"):
        Settings(**{name: -1})
