"""Input that kills or hangs the process that reads it: the record is quarantined, its neighbours are as they would have
been, and it costs its time once, wherever the work runs."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import web

from gristmill import lake
from gristmill.lake.store.opening import open_store
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.stages.read import isolated, reading
from gristmill.stages.read.isolated import MODULE, Child, ChildDied, ChildTimeout, watchdog
from gristmill.stages.run.runner import Runner
from gristmill.stages.text import extract


def numbers(n: int) -> Iterator[tuple[int, int]]:
    for i in range(n):
        yield i, os.getpid()


def dies(at: int, of: int) -> Iterator[int]:
    for i in range(at + 1):
        if i == at:
            os.kill(os.getpid(), of)
        yield i


def hangs() -> Iterator[int]:
    yield 1
    watchdog.feed(0.1)
    re.match("(a*)*b", "a" * 100)  # in C, where no handler of Python's is asked
    yield 2


def timers() -> Iterator[float]:
    watchdog.feed(1000)
    yield signal.getitimer(signal.ITIMER_REAL)[0]
    with watchdog.asleep():
        yield signal.getitimer(signal.ITIMER_REAL)[0]
    yield signal.getitimer(signal.ITIMER_REAL)[0]
    watchdog.feed(0)
    yield signal.getitimer(signal.ITIMER_REAL)[0]


def fails() -> Iterator[int]:
    yield 1
    raise ValueError("no")


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def test_a_child_answers_one_by_one_and_is_kept(child):
    pids = {pid for _ in range(3) for _, pid in child.iterate(numbers, 4)}
    assert len(pids) == 1 and pids != {os.getpid()}
    with pytest.raises(ValueError, match="no") as caught:
        list(child.iterate(fails))
    assert "test_careful.py" in caught.value.__notes__[0], "the traceback of the child"
    assert {pid for _, pid in child.iterate(numbers, 1)} == pids


def test_answers_gather_the_longer_the_fewer_there_are(monkeypatch):
    pauses = []
    monkeypatch.setattr(isolated.time, "sleep", pauses.append)
    taker, giver = os.pipe()
    with os.fdopen(taker, "rb") as answers, os.fdopen(giver, "wb", 0) as pipe:
        gathered = isolated._Gathered(answers)

        def read(size):
            pipe.write(b"x" * size)
            return gathered.readinto(bytearray(isolated.PIPE))

        assert [read(10) for _ in range(8)] == [10] * 8
        assert [read(isolated.PIPE // 2) for _ in range(8)] == [isolated.PIPE // 2] * 8
        read(10)
        gathered.hurry()
        read(10)
    shortest, longest = isolated.SHORTEST, isolated.LONGEST
    assert pauses[:3] == [0, shortest, 2 * shortest] and pauses[6:9] == [longest, longest, longest]
    assert pauses[9:11] == [longest / 2, longest / 4] and pauses[15:] == [0, 0, 0]


def test_a_child_that_dies_has_said_what_it_had_and_is_replaced(child):
    answers = []
    with pytest.raises(ChildDied, match="SIGSEGV"):
        for answer in child.iterate(dies, 3, signal.SIGSEGV):
            answers.append(answer)
    assert answers == [0, 1, 2]
    assert [i for i, _ in child.iterate(numbers, 2)] == [0, 1]


def test_a_child_that_hangs_in_c_is_ended_and_time_for_a_store_is_not_counted(child):
    answers = []
    with pytest.raises(ChildTimeout):
        for answer in child.iterate(hangs):
            answers.append(answer)
    assert answers == [1]
    running, asleep, again, stopped = child.iterate(timers)
    assert running >= again > 0 and asleep == stopped == 0


def test_a_child_that_nobody_listens_to_is_ended(child):
    answers = child.iterate(numbers, 1_000_000)
    first = next(answers)
    answers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first[1], 0)
    assert len(list(child.iterate(numbers, 2))) == 2


def test_another_environment_is_another_child(child, monkeypatch, tmp_path):
    (before,) = child.iterate(numbers, 1)
    monkeypatch.setenv("GRIST_SOMETHING", "new")
    (after,) = child.iterate(numbers, 1)
    monkeypatch.chdir(tmp_path)
    (elsewhere,) = child.iterate(numbers, 1)
    assert len({before, after, elsewhere}) == 3


def test_a_python_that_does_not_start_is_no_fault_of_a_record(child, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match=rf"/bin/false -m {MODULE}\) did not start: died with exit code 1"):
        list(child.iterate(numbers, 1))


@dataclass(frozen=True)
class Fragile(extract.Extract):
    """An extractor that one page kills, that another never leaves, and that a third kills if it finds a file."""

    poison: str = ""
    endless: str = ""
    unlucky: str = ""
    folder: str = ""

    def judge(self, item):
        if item.url == self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        if item.url == self.endless:
            (Path(self.folder) / f"hung-{os.getpid()}").touch()
            re.match("(a*)*b", "a" * 100)
        if item.url == self.unlucky and (Path(self.folder) / "short-of-memory").exists():
            (Path(self.folder) / "short-of-memory").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().judge(item)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_page_that_kills_and_one_that_hangs_cost_only_themselves_and_once(sample, tmp_path, workers):
    part: list[Path | str] = [sample / "crawl" / "part-0000.warc.gz"]
    healthy = web.run(tmp_path / "healthy", part).manifest
    data = lake.open("web", lake=str(tmp_path / "healthy"))
    table, captures = data.to_arrow(), Counter(id[:16] for id in data.ledger()["id"].to_pylist())
    once = [row["url"] for row in table.select(["id", "url"]).to_pylist() if captures[row["id"][:16]] == 1]
    poison, endless, unlucky = once[2], once[4], once[6]  # pages that were captured once, so that each is one record

    (tmp_path / "short-of-memory").touch()
    config = web.config(part)
    stage = Fragile(poison=poison, endless=endless, unlucky=unlucky, folder=str(tmp_path), seconds_per_record=5)
    fragile = config.recipe.model_copy(update={"extract": stage})
    store = open_store(str(tmp_path / "fragile"))
    result = run_pipeline(config.model_copy(update={"recipe": fragile}), store, Runner(store, workers=workers))

    m = result.manifest
    assert m.received.count == healthy.received.count
    assert m.funnel[1].quarantined == {"extract.crashed": 1, "extract.timeout": 1}
    assert m.quarantined.count == m.machine_fates == 2
    ledger = lake.open("web", lake=str(tmp_path / "fragile")).ledger().to_pylist()
    values = {row["value"] for row in ledger if row["fate"] == "quarantined"}
    assert values == {"died of SIGKILL", "no answer in 5 s"}
    kept = set(lake.open("web", lake=str(tmp_path / "fragile")).to_arrow()["url"].to_pylist())
    assert set(table["url"].to_pylist()) - kept == {poison, endless}
    assert not (tmp_path / "short-of-memory").exists(), "one death is the machine's"
    assert len(list(tmp_path.glob("hung-*"))) == 1, "one deadline"


def test_without_a_limit_records_are_judged_in_this_process(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "child", lambda: pytest.fail("a child"))
    part: list[Path | str] = [sample / "crawl" / "part-0000.warc.gz"]
    here = web.run(tmp_path / "here", part, extract={"seconds_per_record": None}).manifest
    monkeypatch.undo()
    beside = web.run(tmp_path / "beside", part).manifest
    assert here.content_digest == beside.content_digest
