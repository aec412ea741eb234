"""The plan of a kickoff whose nodes are Ray jobs: by what the cluster has, not by the CPUs of this machine."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from kickoffs import Graphs
from toy_pipeline import UpperConfig

from gristmill.orchestration.announce import JOB_SERVER, SERVER
from gristmill.orchestration.kickoff import cluster
from gristmill.orchestration.kickoff.cluster import room_of_cluster
from gristmill.orchestration.kickoff.command import planned_of
from gristmill.pipelines.kickoff.config import KickoffRun
from gristmill.pipelines.kickoff.room import Room, Share
from gristmill.pipelines.registry import PIPELINES

ADDRESS = "http://ray:8265"


def nodes(monkeypatch: pytest.MonkeyPatch, *resources: Any) -> None:
    """What the cluster's nodes have; an error instead is what asking for them raises."""

    def listed(address: str, filters: Any, limit: int) -> list[Any]:
        assert (address, filters) == (ADDRESS, [("state", "=", "ALIVE")])
        if isinstance(resources[0], Exception):
            raise resources[0]
        return [SimpleNamespace(resources_total=each) for each in resources]

    monkeypatch.setattr("ray.util.state.list_nodes", listed)


def test_the_room_of_a_cluster_is_what_its_nodes_have_together(monkeypatch):
    nodes(monkeypatch, {"CPU": 16.0, "memory": 1e9}, {"CPU": 48.0, "GPU": 8.0}, None)
    assert room_of_cluster(KickoffRun(nodes=4), ADDRESS) == Room(4, 64, 8)
    assert room_of_cluster(KickoffRun(nodes=0, cpus=6, gpus=1), ADDRESS) == Room(1, 6, 1)  # what the file says


def test_where_no_cluster_answers_only_the_number_of_nodes_counts(monkeypatch, caplog):
    nodes(monkeypatch, ConnectionError("refused"))
    assert room_of_cluster(KickoffRun(nodes=4), ADDRESS) == Room(4)
    assert "room for 4 nodes: http://ray:8265 does not answer (ConnectionError: refused)" in caplog.text


def test_a_plan_reckons_with_the_cluster_where_there_is_a_job_server(tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    graphs = Graphs(tmp_path)
    both = {name: graphs.upper(name) for name in "ab"}
    graphs.run(both)
    for name in "ab":
        graphs.lines(name, 2)
    asked = graphs.asked(both, run={"nodes": 2, "each": {"workers": os.cpu_count()}})  # each as large as this machine
    for name in (SERVER, JOB_SERVER):
        monkeypatch.delenv(name, raising=False)
    alone = planned_of(asked)
    monkeypatch.setenv(SERVER, "http://prefect/api")
    monkeypatch.setenv(JOB_SERVER, ADDRESS)
    monkeypatch.setattr(cluster, "room_of_cluster", lambda run, address: Room(run.nodes, 1 << 20))
    wide = planned_of(asked)
    seconds = [each.estimate.seconds for each in wide.nodes if each.estimate is not None]
    assert len(seconds) == 2 and min(seconds) > 0
    assert alone.seconds == pytest.approx(sum(seconds)) and wide.seconds == pytest.approx(max(seconds))


def test_what_is_larger_than_the_cluster_runs_alone():
    assert Room(2, 4, 0).has(Share(1, 8), []) and not Room(2, 4, 0).has(Share(1, 8), [Share(1, 0)])
