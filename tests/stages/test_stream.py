"""The runner's streams and warm workers: receipts as they come, works that depend on them, one set-up a worker."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Outcome, Resources, Stage, WarmStage, Work
from gristmill.stages.run.cluster import TooSmall
from gristmill.stages.run.progress import Progress
from gristmill.stages.run.runner import Incomplete, PlanOnly, Runner

NOBODY = Tally()


@dataclass(frozen=True)
class Place:
    """Where works note what they do, and find orders to misbehave."""

    folder: Path

    def note(self, what: str) -> None:
        with (self.folder / f"{what}-{os.getpid()}").open("a") as file:
            file.write("x")

    def notes(self, what: str) -> list[int]:
        """How often each process did it."""
        return [len(path.read_text()) for path in self.folder.glob(f"{what}-*")]

    def obey(self, label: str) -> None:
        if (self.folder / f"fail {label}").exists():
            raise OSError("the disk said no")
        if (self.folder / f"die {label}").exists():
            (self.folder / f"die {label}").unlink()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class AskFacts:
    pid: int
    resources: dict[str, float]


@dataclass(frozen=True)
class Plain(Stage[Place]):
    name: ClassVar[str] = "toy.plain"
    VERSION: ClassVar[int] = 1

    cpus: int = 1

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.cpus)

    def run(self, store: Store, work: Work[Place]) -> Outcome:
        work.payload.note("run")
        work.payload.obey(work.label)
        return Outcome(outputs=(), received=NOBODY, facts=AskFacts(os.getpid(), _assigned()))


def _assigned() -> dict[str, float]:
    ray: Any = sys.modules.get(
        "ray"
    )  # of a worker; the first import in this process is not ours (stages/run/cluster.py)
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return {}
    return {name: float(n) for name, n in ray.get_runtime_context().get_assigned_resources().items()}


class Engine:
    def __init__(self, place: Place) -> None:
        self.place = place
        place.note("set_up")

    def close(self) -> None:
        self.place.note("closed")


@dataclass(frozen=True)
class Ask(WarmStage[Place, Engine]):
    """`where`: of its notes. It needs no more than that to be set up."""

    name: ClassVar[str] = "toy.ask"
    VERSION: ClassVar[int] = 1

    where: str
    cpus: int = 1

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.cpus)

    deterministic = False

    def setup(self, store: Store) -> Engine:
        place = Place(Path(self.where))
        place.obey("set_up")
        return Engine(place)

    def run_warm(self, store: Store, work: Work[Place], warm: Engine) -> Outcome:
        warm.place.note("run")
        warm.place.obey(work.label)
        return Outcome(outputs=(), received=NOBODY, facts=AskFacts(os.getpid(), _assigned()))


def plain(folder: Path, n: int) -> Work[Place]:
    return Work(Plain(), (f"digest{n}",), Place(folder), label=str(n))


def asks(folder: Path, n: int, **config: Any) -> list[Work[Place]]:
    return [Work(Ask(str(folder), **config), (f"digest{i}",), Place(folder), label=str(i)) for i in range(n)]


def labels(done: Any) -> list[str]:
    return [work.label for work, _ in done]


# streams


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_every_work_with_its_receipt_and_knows_what_was_done(store, tmp_path, workers):
    runner = Runner(store, workers=workers)
    before = {r.work_key for r in runner.map("plain", [plain(tmp_path, n) for n in (3, 5)])}
    done = list(runner.stream("plain", (plain(tmp_path, n) for n in range(8))))
    assert sorted(labels(done)) == [str(n) for n in range(8)]
    assert all(receipt.work_key == work.key for work, receipt in done)
    assert sum(Place(tmp_path).notes("run")) == 8 and before < {receipt.work_key for _, receipt in done}
    assert runner.history == [("plain", 0, 2), ("plain", 2, 6)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_takes_no_more_from_an_endless_producer_than_workers_need(store, tmp_path, workers):
    taken = []

    def endless() -> Iterator[Work[Place]]:
        for n in count():
            taken.append(n)
            yield plain(tmp_path, n)

    stream = Runner(store, workers=workers).stream("plain", endless())
    assert not taken
    for given, _ in enumerate(islice(stream, 20), start=1):
        assert len(taken) <= given + 2 * max(1, workers)
    stream.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_works_may_depend_on_receipts_that_came(store, tmp_path, workers):
    """Each of three problems is tried until its fourth sample; the next one is known when the last was seen."""
    ready, left = deque([(p, 0) for p in range(3)]), 3

    def producer() -> Iterator[Work[Place] | None]:
        while left:
            if ready:
                problem, sample = ready.popleft()
                yield replace(plain(tmp_path, 10 * problem + sample), label=f"{problem}/{sample}")
            else:
                yield None

    order: dict[int, list[int]] = {}
    for work, _ in Runner(store, workers=workers).stream("sample", producer()):
        problem, sample = map(int, work.label.split("/"))
        order.setdefault(problem, []).append(sample)
        if sample < 3:
            ready.append((problem, sample + 1))
        else:
            left -= 1
    assert order == {problem: [0, 1, 2, 3] for problem in range(3)}


def test_a_producer_that_waits_for_nothing_is_an_error_and_not_an_endless_wait(store, tmp_path):
    with pytest.raises(RuntimeError, match="waits for a receipt, and no work is under way"):
        list(Runner(store, workers=0).stream("plain", iter([plain(tmp_path, 1), None, None])))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_what_succeeds_and_then_says_what_failed(store, tmp_path, workers):
    (tmp_path / "fail 1").touch()
    done = []
    with pytest.raises(Incomplete, match=r"1 of 4 pieces of work failed:\n  1: OSError: the disk said no"):
        done += [labels([pair]) for pair in Runner(store, workers=workers).stream("plain", works(tmp_path, 4))]
    assert done == [] or sorted(done) == [["0"], ["2"], ["3"]]


def test_a_stream_of_which_everything_fails_comes_to_an_end(store, tmp_path):
    def endless() -> Iterator[Work[Place]]:
        for n in count():
            (tmp_path / f"fail {n}").touch()
            yield plain(tmp_path, n)

    with pytest.raises(Incomplete, match="101 of 101 pieces of work failed"):
        list(Runner(store, workers=0).stream("plain", endless()))


def works(folder: Path, n: int) -> Iterator[Work[Place]]:
    return (plain(folder, i) for i in range(n))


def test_a_producer_that_waits_for_failed_work_ends_with_the_failure(store, tmp_path):
    (tmp_path / "fail 1").touch()
    with pytest.raises(Incomplete, match="the disk said no"):
        list(Runner(store, workers=0).stream("plain", iter([plain(tmp_path, 1), None, plain(tmp_path, 2), None])))


def test_a_plan_gives_what_is_done_and_says_what_would_run(store, tmp_path):
    Runner(store, workers=0).map("plain", works(tmp_path, 2))
    planned = Runner(store, workers=0, plan=True).stream("plain", works(tmp_path, 4))
    assert [next(planned).work.label for _ in range(2)] == ["0", "1"]
    with pytest.raises(PlanOnly) as caught:
        next(planned)
    assert (caught.value.done, caught.value.todo) == (2, ("2", "3"))
    assert sum(Place(tmp_path).notes("run")) == 2


def test_keys_are_announced_before_their_work_runs(store, tmp_path):
    announced: set[str] = set()
    runner = Runner(store, workers=0, announce=lambda title, keys: announced.update(keys))
    for work, _ in runner.stream("plain", works(tmp_path, 3)):
        assert work.key in announced


def test_map_keeps_the_order_of_its_works_however_they_end(store, tmp_path):
    given = [plain(tmp_path, n) for n in (4, 2, 9, 2)]
    receipts = Runner(store, workers=2).map("plain", given)
    assert [r.work_key for r in receipts] == [work.key for work in given]


# resources


def test_work_gets_what_its_stage_asks_for(store, tmp_path):
    runner = Runner(store, workers=2)
    (receipt,) = runner.map("plain", [replace(plain(tmp_path, 1), stage=Plain(cpus=2))])
    assert receipt.facts_as(AskFacts).resources["CPU"] == 2
    (receipt,) = runner.map("ask", asks(tmp_path, 1, cpus=2))
    assert receipt.facts_as(AskFacts).resources["CPU"] == 2


@pytest.mark.parametrize("stage", [Plain, Ask])
def test_what_no_node_has_is_refused_instead_of_waited_for(store, tmp_path, stage):
    @dataclass(frozen=True)
    class Large(stage):
        resources = Resources(cpus=1, gpus=4096)

    given = Large() if stage is Plain else Large(str(tmp_path))
    with pytest.raises(TooSmall, match=r"needs 1 CPUs and 4096 GPUs, and no node"):
        Runner(store, workers=2).map("large", [replace(plain(tmp_path, 1), stage=given)])


# warm workers


def test_in_this_process_a_set_up_serves_a_whole_stream_and_is_closed_at_its_end(store, tmp_path):
    place, runner = Place(tmp_path), Runner(store, workers=0)
    stream = runner.stream("ask", iter(asks(tmp_path, 4)))
    assert place.notes("set_up") == []
    next(stream)
    assert (place.notes("set_up"), place.notes("closed")) == ([1], [])
    assert len(list(stream)) == 3
    assert (place.notes("set_up"), place.notes("closed"), place.notes("run")) == ([1], [1], [4])
    runner.map("ask", asks(tmp_path, 4))
    assert place.notes("set_up") == [1], "all of it was done before"


def test_a_stream_that_is_left_early_closes_what_it_set_up(store, tmp_path):
    stream = Runner(store, workers=0).stream("ask", iter(asks(tmp_path, 4)))
    next(stream)
    stream.close()
    assert Place(tmp_path).notes("closed") == [1]


def test_on_ray_each_worker_is_set_up_once_and_all_are_closed(store, tmp_path):
    receipts = Runner(store, workers=2).map("ask", asks(tmp_path, 12))
    place = Place(tmp_path)
    ran = {receipt.facts_as(AskFacts).pid for receipt in receipts}
    assert os.getpid() not in ran and 1 <= len(ran) <= 2
    assert sum(place.notes("run")) == 12
    assert place.notes("set_up") == [1] * len(place.notes("set_up")) and len(ran) <= len(place.notes("set_up")) <= 2
    assert len(place.notes("closed")) >= len(ran)


def test_a_warm_worker_that_dies_is_replaced_and_its_work_done_again(store, tmp_path):
    (tmp_path / "die 5").touch()
    receipts = Runner(store, workers=2).map("ask", asks(tmp_path, 8))
    place = Place(tmp_path)
    assert len(receipts) == 8 and sum(place.notes("run")) == 9
    assert set(place.notes("set_up")) == {1} and len(place.notes("set_up")) in (2, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_failed_work_leaves_its_warm_worker_to_the_others(store, tmp_path, workers):
    (tmp_path / "fail 1").touch()
    with pytest.raises(Incomplete, match=r"1 of 6 .*\n  1: OSError"):
        Runner(store, workers=workers).map("ask", asks(tmp_path, 6))
    assert sum(Place(tmp_path).notes("run")) == 6 and len(Place(tmp_path).notes("set_up")) <= max(1, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_set_up_ends_the_stage_and_is_tried_by_no_other_work(store, tmp_path, workers):
    (tmp_path / "fail set_up").touch()
    with pytest.raises(Incomplete, match=r"toy\.ask: its set-up failed on .*: OSError: the disk said no"):
        Runner(store, workers=workers).map("ask", asks(tmp_path, 6))
    assert Place(tmp_path).notes("run") == []


@pytest.mark.parametrize("cpus", [1, 2])
def test_stages_with_and_without_a_set_up_share_the_workers_and_none_waits_for_ever(store, tmp_path, cpus):
    """With `cpus=2` each holds all that there is; an idle worker has to go before another one starts."""
    mixed: list[Work[Place]] = []
    for n in range(3):
        place = Place(tmp_path)
        mixed += [
            Work(Ask(str(tmp_path), cpus), (f"a{n}",), place, label=f"a{n}"),
            Work(Plain(cpus), (f"b{n}",), place, label=f"b{n}"),
            Work(replace(Ask(str(tmp_path), cpus), where=f"{tmp_path}/"), (f"c{n}",), place, label=f"c{n}"),
        ]
    receipts = Runner(store, workers=2).map("mixed", mixed)
    assert len(receipts) == 9 and all(isinstance(receipt, Receipt) for receipt in receipts)
    given = [work.label for work, _ in Runner(store, workers=1).stream("mixed", iter(mixed))]
    assert sorted(given) == sorted(work.label for work in mixed)


# progress


def test_a_stream_says_where_it_stands_though_nobody_knows_its_end(store, tmp_path, caplog, capsys):
    with caplog.at_level("INFO", "gristmill"):
        list(Runner(store, workers=0, progress=Progress(terminal=False)).stream("plain", works(tmp_path, 3)))
        list(Runner(store, workers=0, progress=Progress(terminal=False)).stream("plain", works(tmp_path, 3)))
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("plain: 3 pieces, ") and second == "plain: all 3 pieces done before"
    list(Runner(store, workers=0, progress=Progress(terminal=True)).stream("plain", works(tmp_path, 5)))
    assert "5/?" in capsys.readouterr().err
