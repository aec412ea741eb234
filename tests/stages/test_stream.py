"""The runner's streams: receipts as they come, works that depend on them, failures and progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice

import pytest
from toy_stages import Place, labels, plain, works

from gristmill.stages.core.work import Work
from gristmill.stages.run.progress import Progress
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly


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


# progress


def test_a_stream_says_where_it_stands_though_nobody_knows_its_end(store, tmp_path, caplog, capsys):
    with caplog.at_level("INFO", "gristmill"):
        list(Runner(store, workers=0, progress=Progress(terminal=False)).stream("plain", works(tmp_path, 3)))
        list(Runner(store, workers=0, progress=Progress(terminal=False)).stream("plain", works(tmp_path, 3)))
    begun, first, second = [record.getMessage() for record in caplog.records]
    assert (
        begun == "plain: begins"
        and first.startswith("plain: 3 pieces, ")
        and second == "plain: all 3 pieces done before"
    )
    list(Runner(store, workers=0, progress=Progress(terminal=True)).stream("plain", works(tmp_path, 5)))
    assert "5/?" in capsys.readouterr().err
