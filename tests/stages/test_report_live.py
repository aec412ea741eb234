"""The live line: its words, steps done anew, a log that gets a line while a step takes long, the bar."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from waiting import PATIENCE, until

from gristmill.model.train.metrics import Progress
from gristmill.stages.report.live import LiveLine, Standing

STEP = Progress(1, 300, 3, 2.5, 1.2e-3, 0.712, 30, 66, False, 0.5, 132.0, 200.4, None)


def steps(first: int, last: int, **changes: object) -> list[Progress]:
    """Consecutive steps."""
    return [replace(STEP, step=step, **changes) for step in range(first, last + 1)]  # type: ignore[arg-type]


def standing_of(progress: Sequence[Progress]) -> Standing:
    """After these steps."""
    standing = Standing("nano.pretrain")
    for step in progress:
        standing.add(step)
    return standing


def test_the_words_of_the_line() -> None:
    assert Standing("nano.pretrain").line() == "nano.pretrain: no step done yet"
    line = standing_of(steps(1, 120)).line()
    assert line == ("nano.pretrain: step 120 of 300, loss 2.5000, LR 1.20e-03, norm 0.71, 132 tok/s, 0:03:20 left")
    known = standing_of([*steps(1, 2, mfu=0.414), replace(STEP, step=3, skipped=True, loss=float("nan"), mfu=0.414)])
    assert known.numbers("  ") == "loss 2.5000  LR 1.20e-03  norm 0.71  132 tok/s  MFU 41%  1 skipped"


def test_loss_and_speed_are_means_over_the_last_steps() -> None:
    falling = standing_of([*steps(1, 200, loss=4.0, seconds=1.0), *steps(201, 203, loss=1.0, seconds=0.25)])
    # A hundredth of 300 steps is the half-life: after three steps what was before weighs half.
    assert "loss 2.5000" in falling.numbers(", ")
    assert f"{66 / ((1.0 + 0.25) / 2):,.0f} tok/s" in falling.numbers(", ")


def test_steps_that_are_done_anew_count_once() -> None:
    first = [replace(step, skipped=step.step in (3, 8)) for step in steps(1, 9)]
    again = [replace(step, skipped=step.step == 7) for step in steps(6, 10)]
    standing = standing_of([*first, *again])
    assert standing.newest is not None and standing.newest.step == 10
    assert "2 skipped" in standing.line()  # 3 and 7; 8 was of the process that was killed


def test_the_line_of_a_run_that_was_killed_says_behind_which_step_it_went_on() -> None:
    assert "went on" not in standing_of(steps(1, 120)).line()
    assert standing_of(steps(1001, 1020, since=1000)).line().endswith(" left, went on behind step 1,000")


def test_a_log_has_a_line_while_a_step_takes_long_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gristmill")
    with LiveLine(terminal=False, every=0.01).run("nano.pretrain") as show:
        until(lambda: caplog.messages, "a line is written")
        for step in steps(1, 5):
            show(step)
    assert caplog.messages[0] == "nano.pretrain: no step done yet"
    assert caplog.messages[-1].startswith("nano.pretrain: step 5 of 300, loss")


def test_a_log_has_only_the_last_line_of_a_short_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gristmill")
    with pytest.raises(KeyError), LiveLine(terminal=False, every=PATIENCE).run("s") as show:
        show(STEP)
        raise KeyError
    assert caplog.messages == ["s: step 1 of 300, loss 2.5000, LR 1.20e-03, norm 0.71, 132 tok/s, 0:03:20 left"]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_bar_of_a_terminal_is_two_lines_that_are_whole(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", columns)
    with LiveLine(terminal=True).run("nano.pretrain") as show:
        for step in steps(1, 120, mfu=0.41, tokens=1_000_000, skipped=True):
            show(step)
    bar, numbers = screen.getvalue().strip("\n").splitlines()[-2:]
    assert bar.startswith("nano.pretrain ") and bar.rstrip().endswith("120/300 0:03:20 left")
    assert numbers.rstrip() == "loss 2.5000  LR 1.20e-03  norm 0.71  2,000,000 tok/s  MFU 41%  120 skipped"
    assert len(bar) <= int(columns)
