"""The runner: done work is never done again, failed work never stops the rest, a dead worker is Ray's to restart."""

from __future__ import annotations

import logging
import os
import signal
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest
from waiting import PATIENCE

from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.accounts.receipt import NotDeterministic, Receipt, finished, read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.outage import Patience
from gristmill.stages.core.work import Outcome, Stage, Work, execute
from gristmill.stages.run.progress import Progress, Standing
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly


@dataclass(frozen=True)
class Numbers:
    """Numbers to double. `folder` is where each call is noted, and where orders to misbehave lie."""

    folder: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Double(Stage[Numbers]):
    """Doubles the numbers it is given, and does what is ordered for the label of the work."""

    name: ClassVar[str] = "toy.double"
    VERSION: ClassVar[int] = 1

    factor: int = 2

    def run(self, store: Store, work: Work[Numbers]) -> Outcome:
        folder, numbers = Path(work.payload.folder), work.payload.numbers
        calls = folder / f"calls-{work.label}"
        calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
        if (folder / f"fail-{work.label}").exists():
            raise OSError("the disk said no")
        if (folder / "away").exists():
            raise ConnectionError("the store is away")
        if (folder / f"die-{work.label}").exists():
            (folder / f"die-{work.label}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        factor = len(calls.read_text()) if (folder / "drift").exists() else self.factor
        ref = put_table(store, "numbers", pa.table({"n": [n * factor for n in numbers]}))
        seen = Tally.of_records([work.label] * len(numbers), numbers)
        return Outcome(outputs=(ref,), passed=seen)


def works(folder: Path, n: int = 4) -> list[Work]:
    return [
        Work(
            Double(),
            inputs=(f"digest{i}",),
            payload=Numbers(str(folder), (i, i + 1)),
            received=Tally.of_records([str(i)] * 2, [i, i + 1]),
            label=str(i),
        )
        for i in range(n)
    ]


def calls(folder: Path) -> list[int]:
    return [len(p.read_text()) for p in sorted(folder.glob("calls-*"))]


@pytest.mark.parametrize("workers", [0, 2])
def test_work_is_done_once_and_its_receipts_serve_the_next_run(store, tmp_path, workers):
    first = Runner(store, workers=workers).map("double", works(tmp_path))
    again = Runner(store, workers=workers).map("double", works(tmp_path))
    assert [r.identity() for r in again] == [r.identity() for r in first]
    assert calls(tmp_path) == [1, 1, 1, 1]


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    here = open_store(str(tmp_path / "a"))
    there = open_store(str(tmp_path / "b"))
    in_process = Runner(here, workers=0).map("double", works(tmp_path))
    on_ray = Runner(there, workers=2).map("double", works(tmp_path))
    assert [r.identity() for r in in_process] == [r.identity() for r in on_ray]


def test_work_whose_output_is_gone_is_done_again(store, tmp_path):
    first = Runner(store, workers=0).map("double", works(tmp_path))
    store.delete(first[2].outputs[0].key)
    Runner(store, workers=0).map("double", works(tmp_path))
    assert calls(tmp_path) == [1, 1, 2, 1]
    assert store.info(first[2].outputs[0].key) is not None


@pytest.mark.parametrize("workers", [0, 2])
def test_failed_work_does_not_stop_the_rest_and_only_it_is_tried_again(store, tmp_path, workers):
    (tmp_path / "fail-1").touch()
    with pytest.raises(Incomplete, match=r"1 of 4 pieces of work failed:\n  1: OSError: the disk said no"):
        Runner(store, workers=workers).map("double", works(tmp_path))
    (tmp_path / "fail-1").unlink()
    assert len(Runner(store, workers=workers).map("double", works(tmp_path))) == 4
    assert calls(tmp_path) == [1, 2, 1, 1]


def test_a_worker_that_is_killed_is_restarted_by_ray(store, tmp_path):
    (tmp_path / "die-2").touch()
    receipts = Runner(store, workers=2).map("double", works(tmp_path))
    assert [r.received.count for r in receipts] == [2, 2, 2, 2]
    assert calls(tmp_path) == [1, 1, 2, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stage_that_loses_one_record_and_doubles_another_is_caught(store, tmp_path, workers):
    good = works(tmp_path, 1)[0]
    planted = replace(good, payload=replace(good.payload, numbers=(1, 1)))  # `received` is of 0 and 1
    with pytest.raises(BalanceError, match="not the same records"):
        Runner(store, workers=workers).map("double", [planted])
    assert read_receipt(store, planted.key) is None


def test_a_stage_that_gives_two_results_is_caught(store, tmp_path):
    (tmp_path / "drift").touch()
    work = works(tmp_path, 1)[0]
    execute(store, work)
    with pytest.raises(NotDeterministic, match=r"toy\.double"):
        execute(store, work)


def test_the_key_is_what_decides_the_result_and_nothing_else(tmp_path):
    work = works(tmp_path, 1)[0]
    assert replace(work, payload=Numbers("elsewhere", ()), label="x", received=Tally()).key == work.key
    assert replace(work, stage=Double(factor=3)).key != work.key
    assert replace(work, inputs=("other",)).key != work.key

    @dataclass(frozen=True)
    class Raised(Double):
        VERSION: ClassVar[int] = 2

    assert replace(work, stage=Raised()).key != work.key


def test_plan_runs_nothing_and_says_what_would_run(store, tmp_path):
    Runner(store, workers=0).map("double", works(tmp_path, 2))
    runner = Runner(store, workers=0, plan=True)
    with pytest.raises(PlanOnly) as caught:
        runner.map("double", works(tmp_path))
    assert (caught.value.done, caught.value.todo) == (2, ("2", "3"))
    assert calls(tmp_path) == [1, 1]
    assert len(runner.map("double", works(tmp_path, 2))) == 2


def test_a_receipt_without_its_output_is_no_proof(store, tmp_path):
    work = works(tmp_path, 1)[0]
    receipt = execute(store, work)
    assert finished(store, work.key) == receipt
    store.put(receipt.outputs[0].key, b"cut")
    assert finished(store, work.key) is None


def test_logs_get_a_line_when_a_stage_begins_and_when_it_is_done_and_no_bar(store, tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO, "gristmill"):
        Runner(store, workers=0, progress=Progress(terminal=False)).map("double", works(tmp_path))
    begun, line = [r.getMessage() for r in caplog.records]
    assert begun == "double: begins, 4 pieces" and line.startswith("double: 4 pieces, 8 records, ")
    assert capsys.readouterr().out == ""


def test_logs_say_where_a_long_stage_stands_though_no_piece_is_done(caplog):
    line_logged = threading.Event()

    class Noticing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "begins" not in record.getMessage():
                line_logged.set()

    handler, log = Noticing(), logging.getLogger("gristmill")
    log.addHandler(handler)
    try:
        progress = Progress(terminal=False, every=0.001)
        with caplog.at_level(logging.INFO, "gristmill"), progress.stage("double", total=4, done=1):
            assert line_logged.wait(PATIENCE)
    finally:
        log.removeHandler(handler)
    begun, where, *_ = (record.getMessage() for record in caplog.records)
    assert begun == "double: begins, 4 pieces, 1 of them done before now" and where == "double: 1 of 4 pieces"


def test_progress_on_a_terminal_shows_records_and_stays_off_stdout(store, tmp_path, capsys):
    Runner(store, workers=0, progress=Progress(terminal=True)).map("double", works(tmp_path))
    shown = capsys.readouterr()
    assert shown.out == "" and "4/4" in shown.err and "8 records" in shown.err


def test_what_is_left_is_estimated_from_the_pace_since_the_first_piece():
    """Workers took 100 s to start, the pieces 10 s each: 70 s are left after the third, not 303."""
    now = [0.0]
    standing = Standing("double", total=10, done=0, clock=lambda: now[-1])
    receipt = Receipt(work_key="k", stages=(), inputs=(), received=Tally(1, 1))
    lines = []
    for moment in (100.0, 110.0, 120.0):
        now.append(moment)
        standing.advance(receipt)
        lines.append(standing.line())
    assert lines == [
        "double: 1 of 10 pieces, 1 record",
        "double: 2 of 10 pieces, 2 records, about 80 s left",
        "double: 3 of 10 pieces, 3 records, about 70 s left",
    ]
    assert standing.last_line() == "double: 3 of 10 pieces, 3 records, 120.0 s"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_outage_is_nobodys_failure_and_ends_the_stage_once(store, tmp_path, workers, caplog):
    (tmp_path / "away").touch()
    with pytest.raises(ConnectionError, match="the store is away"):
        Runner(store, workers=workers).map("double", works(tmp_path, 20))
    assert sum(calls(tmp_path)) <= 2 and "failed" not in caplog.text  # what was under way, and nothing after it
    now = [0.0]
    messages: list[str] = []

    def sleep(seconds: float) -> None:
        now.append(now[-1] + seconds)
        (tmp_path / "away").unlink()

    patience = Patience("the store", 600, sleep, lambda: now[-1], messages.append)
    receipts = patience.wait(lambda: Runner(store, workers=workers).map("double", works(tmp_path, 20)))
    assert len(receipts) == 20 and messages[0].startswith("the store unreachable")


def test_work_that_is_labelled_by_a_hash_is_named_by_the_file_it_came_from(store, tmp_path):
    runner = Runner(store, workers=0)
    label = "a.warc.gz records 0+2"
    work = replace(works(tmp_path, 1)[0], label=label, received=Tally.of_records([label] * 2, [0, 1]))
    (receipt,) = runner.map("read", [work])
    digest = receipt.outputs[0].sha256
    (tmp_path / f"fail-{digest[:12]}").touch()
    with pytest.raises(Incomplete, match=r"screen: 1 of 1 .*\n  a\.warc\.gz records 0\+2: OSError"):
        runner.map("screen", [replace(work, inputs=(digest,), label=digest[:12])])
