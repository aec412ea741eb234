"""Curves: the smoothed loss by hand, resumes and skipped steps, the loss that a run came to, lines read back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from gristmill.model.runs.curve import Smoothed, curve_of, final_loss, half_life
from gristmill.model.train.metrics import MetricsFile, Progress, read_metrics

STEP = Progress(1, 12, 3, 2.5, 1e-2, 0.7, 30, 66, False, 0.5, 132.0, 5.5, None)


def run(losses: list[float], steps: int | None = None, targets: int = 10) -> list[Progress]:
    """Metrics with these losses; those that are not finite were skipped."""
    whole = steps or len(losses)
    return [
        replace(STEP, step=i, steps=whole, loss=loss, targets=targets, skipped=not math.isfinite(loss))
        for i, loss in enumerate(losses, 1)
    ]


def test_a_value_weighs_half_as_much_a_half_life_later_and_the_mean_begins_at_the_first() -> None:
    smooth = Smoothed(1)
    assert math.isnan(smooth.value)
    assert smooth.add(4.0) == 4.0
    assert smooth.add(1.0) == pytest.approx((4.0 * 0.5 + 1.0) / 1.5)
    assert smooth.add(math.nan) == smooth.add(math.inf) == pytest.approx(2.0)
    assert smooth.add(5.0, weight=3) == pytest.approx((4 * 0.25 + 1 * 0.5 + 5 * 3) / 3.75)


def test_the_curve_marks_what_was_skipped_and_where_the_run_was_resumed() -> None:
    metrics = run([5.0, 4.0, math.nan, 3.0, 2.0, 2.0], steps=8)
    metrics = [replace(progress, since=0 if progress.step < 3 else 2) for progress in metrics]
    curve = curve_of(metrics)
    assert curve.steps == (1, 2, 3, 4, 5, 6) and curve.planned == 8
    assert curve.skipped == (3,) and curve.resumed == (2,)
    assert curve.smoothed[0] == 5.0 and curve.smoothed[2] == curve.smoothed[1]
    assert 2.0 < curve.smoothed[-1] < 4.0
    values = json.loads(json.dumps(curve.to_json(), allow_nan=False))
    assert values["losses"] == [5.0, 4.0, None, 3.0, 2.0, 2.0] and values["planned"] == 8
    assert values["resumed"] == [2] and values["skipped"] == [3] and len(values["rates"]) == 6


def test_the_final_loss_is_the_mean_of_a_target_in_the_last_twentieth_of_the_steps() -> None:
    metrics = run([9.0] * 37 + [3.0, math.nan, 1.0])
    assert final_loss(metrics) == 1.0  # of 40 steps the last two, of which one is no number
    assert final_loss(run([9.0] * 38 + [3.0, 1.0])) == 2.0
    uneven = [
        replace(progress, targets=30 if progress.loss == 3.0 else 10) for progress in run([9.0] * 38 + [3.0, 1.0])
    ]
    assert final_loss(uneven) == 2.5
    assert final_loss(run([7.0, 5.0])) == 5.0
    assert math.isnan(final_loss([])) and math.isnan(final_loss(run([math.nan])))
    assert final_loss(run([9.0] * 38 + [3.0, 1.0], steps=80)) == final_loss(run([9.0, 9.0, 3.0, 1.0], steps=80)) == 5.5


def test_a_run_without_a_step_has_no_curve() -> None:
    with pytest.raises(ValueError, match="no step"):
        curve_of([])


def test_the_smoothing_follows_the_length_of_the_run() -> None:
    assert [half_life(steps) for steps in (10, 1_000, 1_000_000)] == [2, 10, 100]


def test_metrics_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    assert read_metrics(path) == []
    steps = [replace(STEP, since=4), replace(STEP, step=2, mfu=0.5)]
    with MetricsFile(path, 0) as file:
        for progress in steps:
            file.write(progress)
        file.write(replace(STEP, step=3, loss=math.inf, norm=math.nan, skipped=True))
    with path.open("a") as stream:
        stream.write('{"step": 4, "lo')  # not whole yet
    whole = read_metrics(path)
    assert whole[:2] == steps and math.isnan(whole[2].loss) and math.isnan(whole[2].norm) and len(whole) == 3


def test_a_line_of_another_release_is_read_and_what_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with MetricsFile(path, 0) as file:
        file.write(STEP)
    line = json.loads(path.read_text())
    del line["since"]
    path.write_text(json.dumps({**line, "later": 1}) + "\n")
    assert read_metrics(path) == [STEP]
    for text in ("[1]\n", '{"step": 1}\n', "no\n"):
        path.write_text(text)
        with pytest.raises(ValueError):
            read_metrics(path)
