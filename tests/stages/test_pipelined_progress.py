"""What people see of pieces that go through phases: each phase has lines and a bar of its own."""

from __future__ import annotations

import re

import pytest
from toy_phases import MANY, TITLES, phases

from gristmill.stages.run.progress import Progress
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, without seconds; from now on anew."""
    messages = [re.sub(r", [\d.]+ s$", "", message) for message in caplog.messages]
    caplog.clear()
    return messages


def test_each_phase_has_its_own_lines(store, tmp_path, caplog):
    caplog.set_level("INFO", "gristmill")
    (tmp_path / "fail judge 0").touch()
    with pytest.raises(Incomplete):
        Runner(store, workers=0, progress=Progress(terminal=False)).pipelined(3, phases(tmp_path))
    (tmp_path / "fail judge 0").unlink()
    assert lines(caplog) == [
        "read: begins, 3 pieces",
        "read: 3 pieces",
        "judge: begins, 3 pieces",
        "judge: 0 failed: OSError: the disk said no",
        "sign: begins, 3 pieces",
        "judge: 2 of 3 pieces",
        "sign: 2 of 3 pieces",
    ]
    Runner(store, workers=0, progress=Progress(terminal=False)).pipelined(3, phases(tmp_path))
    assert lines(caplog) == [
        "read: all 3 pieces done before",
        "judge: begins, 3 pieces, 2 of them done before now",
        "judge: 3 pieces",
        "sign: begins, 3 pieces, 2 of them done before now",
        "sign: 3 pieces",
    ]


def test_what_is_found_to_be_done_later_counts_as_done_before(store, tmp_path, caplog):
    """What was read is lost, and of the rest one piece: so receipts of the others are found while pieces are read."""
    caplog.set_level("INFO", "gristmill")
    read, judged, _ = Runner(store, workers=0).pipelined(MANY, phases(tmp_path))
    for receipt in (*read, judged[0]):
        store.delete(receipt.outputs[0].key)
    lines(caplog)
    Runner(store, workers=0, progress=Progress(terminal=False)).pipelined(MANY, phases(tmp_path))
    assert lines(caplog) == [
        "read: begins, 40 pieces",
        "judge: begins, 40 pieces, 15 of them done before now",
        "read: 40 pieces",
        "judge: 40 pieces",
        "sign: all 40 pieces done before",
    ]


def test_a_terminal_shows_the_bars_of_all_open_phases(store, tmp_path, capsys):
    Runner(store, workers=0, progress=Progress(terminal=True)).pipelined(MANY, phases(tmp_path))
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("40/40") >= 3
    assert all(title in shown.err for title in TITLES)
