"""Workers: each gets the resources of its stage, and is set up once, whoever fails or dies."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pytest
from toy_stages import Ask, AskFacts, Meet, MeetFacts, Place, Plain, asks, plain

from gristmill.lake.accounts.receipt import Receipt
from gristmill.stages.core.work import Resources, Work
from gristmill.stages.run.cluster import TooSmall
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete

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


@pytest.mark.parametrize("works", [1, 2])
def test_works_that_share_a_set_up_are_done_side_by_side(store, tmp_path, works):
    """Each waits until another is under way in the same process: alone it would wait for ever, and says so."""
    shared = [Work(Meet(str(tmp_path), works), (f"digest{i}",), Place(tmp_path), label=str(i)) for i in range(4)]
    receipts = Runner(store, workers=2).map("meet", shared)
    assert {receipt.facts_as(MeetFacts).met for receipt in receipts} == {works > 1}
    assert Place(tmp_path).notes("set_up") == [1], "no more workers than the stage says"
