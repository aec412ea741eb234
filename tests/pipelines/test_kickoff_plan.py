"""The plan of a kickoff: what is done, and estimates that come from receipts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kickoffs import Graphs
from toy_pipeline import RUNS, UpperConfig

from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.kickoff import estimate
from gristmill.pipelines.kickoff.estimate import waited
from gristmill.pipelines.kickoff.plan import Plan
from gristmill.pipelines.kickoff.prepare import prepare
from gristmill.pipelines.kickoff.room import Room, Share, pieces_of, share_of
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import validate


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    RUNS.clear()
    return Graphs(tmp_path)


def nodes(graphs: Graphs) -> dict[str, Any]:
    return {"a": graphs.upper("a"), "b": graphs.upper("b", "node:a"), "c": graphs.upper("c", "node:a")}


def planned(graphs: Graphs, **how: Any) -> Plan:
    return prepare(graphs.asked(nodes(graphs), **how), for_plan=True).plan()


def test_without_receipts_nothing_is_guessed_and_nothing_runs(graphs):
    plan = planned(graphs)
    assert [each.estimate for each in plan.nodes] == [None, None, None] and not RUNS
    assert (plan.unknown, plan.seconds, plan.cost) == (3, 0, None)
    assert [(each.ready, each.done) for each in plan.nodes] == [(True, False), (False, False), (False, False)]


def test_what_is_done_is_said_and_the_rest_is_scaled_from_receipts_by_bytes(graphs, monkeypatch):
    graphs.lines("b", 10)
    graphs.run(nodes(graphs))
    assert all(each.done for each in planned(graphs).nodes)
    monkeypatch.setattr(estimate, "_seconds", lambda receipt: 3.0)  # a piece of work
    size = (graphs.folder / "b.jsonl").stat().st_size
    graphs.lines("b", 30)
    grown = (graphs.folder / "b.jsonl").stat().st_size
    plan = planned(graphs, run={"cost_per_cpu_hour": 36.0})
    a, b, c = plan.nodes
    assert a.done and c.done and not b.done and b.ready
    pieces = 2  # upper, ledger
    assert b.estimate is not None and b.estimate.scale == pytest.approx(grown / size)
    assert b.estimate.work == pytest.approx(3.0 * pieces * grown / size) and b.estimate.basis == ("b@v1",)
    assert b.cost == pytest.approx(b.estimate.work / 100) and plan.cost == pytest.approx(b.cost, abs=1e-4)
    assert plan.seconds == pytest.approx(b.estimate.seconds) and plan.unknown == 0
    assert planned(graphs).cost is None  # without a price


def test_a_dataset_that_was_never_made_is_judged_by_another_of_the_same_pipeline(graphs):
    graphs.run({"a": graphs.upper("a")})
    _, b, c = planned(graphs).nodes
    assert b.estimate is not None and b.estimate.basis == ("a@v1",)
    assert c.estimate is not None and c.estimate.scale == pytest.approx(1)


def test_a_plan_for_one_node_counts_that_alone(graphs):
    graphs.run({"a": graphs.upper("a")})
    plan = planned(graphs, only=("b",))
    assert [each.chosen for each in plan.nodes] == [False, True, False]
    assert plan.nodes[1].estimate is not None and plan.seconds == plan.nodes[1].estimate.seconds


def test_a_node_whose_needs_are_left_out_and_not_done_is_held_in_the_plan_as_it_is_refused_in_the_run(graphs):
    plan = planned(graphs, only=("b",))
    assert [(each.held, each.to_run) for each in plan.nodes] == [("", False), ("by a", False), ("", False)]
    assert plan.unknown == 0
    assert [each.to_run for each in planned(graphs, only=("a", "b")).nodes] == [True, True, False]


def test_what_is_waited_for_follows_from_the_order_and_the_room(graphs):
    graph = graphs.prepared(nodes(graphs)).graph
    lasts = {"a": 5.0, "b": 3.0, "c": 4.0}
    assert waited(graph, lasts, Room(1)) == 12 and waited(graph, lasts, Room(2)) == 9
    assert waited(graph, lasts, Room(2, cpus=1)) == 12 and waited(graph, {"c": 4.0}, Room(2)) == 4
    assert waited(graph, {}, Room(2)) == 0


def test_what_the_longest_chain_waits_for_starts_first_and_is_counted_on(graphs):
    chain = {"b": graphs.upper("b", "node:c"), "c": graphs.upper("c", "node:d"), "d": graphs.upper("d")}
    given = {"a": graphs.upper("a")} | chain
    _, watch = graphs.run(given)
    assert watch.starts == ["d", "c", "a", "b"]
    lasts = {"a": 3.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert waited(graphs.prepared(given).graph, lasts, Room(1)) == 6
    assert waited(graphs.prepared(given).graph, lasts, Room(2)) == 3


def test_a_node_takes_what_its_workers_ranks_and_engines_do(graphs):
    def config(pipeline: str, **run: Any) -> PipelineConfig:
        config: PipelineConfig = validate(PIPELINES[pipeline], {"pipeline": pipeline, "run": run})
        return config

    def share(pipeline: str, **run: Any) -> Share:
        return share_of(config(pipeline, **run))

    assert share("upper", workers=0) == (1, 0) and share("upper", workers=3) == (3, 0)
    assert share("train", trainer="ray", ranks=2, cpus=3, gpus=1) == (6, 2)
    assert share("evaluate", workers=2, cpus=2, gpus=1) == (4, 2)
    assert share("reasoning", workers=1, hosts={"engines": 2, "cpus": 2, "gpus": 1}) == (4, 2)
    assert pieces_of(config("upper", workers=3)) == (3, (1, 0))
    assert pieces_of(config("train", trainer="ray", ranks=2, cpus=3, gpus=1)) == (1, (6, 2))
    assert pieces_of(config("evaluate", workers=2, cpus=2, gpus=1)) == (2, (2, 1))


def test_there_is_room_by_number_and_by_what_is_held(graphs):
    room = Room(3, cpus=2, gpus=1)
    assert room.has(Share(8, 0), [])  # what is larger than the machine runs alone
    assert room.has(Share(1, 1), [Share(1, 0)]) and not room.has(Share(2, 0), [Share(1, 0)])
    assert not room.has(Share(0, 1), [Share(0, 1)]) and not room.has(Share(0, 0), [Share(0, 0)] * 3)
    assert Room(2).has(Share(99, 9), [Share(99, 9)])  # a cluster has its own scheduler
