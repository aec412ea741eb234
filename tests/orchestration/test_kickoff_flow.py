"""A kickoff under Prefect: a task a node, its artifact, its state; jobs that fail give their exit code.

One server serves all tests (some 10 s to start); nodes run as processes, of a Python that knows the toy pipeline.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import waiting
from fake_ray import server as job_server
from kickoffs import Graphs
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.testing.utilities import prefect_test_harness
from toy_pipeline import RUNS, UpperConfig

from gristmill.lake.store.outage import Patience, Unreachable
from gristmill.orchestration.flows import JobFailed
from gristmill.orchestration.kickoff import flow, local
from gristmill.pipelines.command import Ended
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import BadConfig

CHILD = """
import sys
from toy_pipeline import UpperConfig
from gristmill.orchestration.kickoff.child import main
from gristmill.pipelines.registry import PIPELINES
PIPELINES["upper"] = UpperConfig
sys.exit(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=1800):
        yield


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    monkeypatch.delenv(flow.JOB_SERVER, raising=False)
    monkeypatch.setattr(local, "COMMAND", (sys.executable, "-c", CHILD))
    RUNS.clear()
    return Graphs(tmp_path)


def tasks() -> dict[str, str]:
    """Name -> state of each task of the newest flow run."""
    with get_client(sync_client=True) as client:
        newest = max(client.read_flow_runs(), key=lambda run: run.created)
        of_newest = FlowRunFilter(id=FlowRunFilterId(any_=[newest.id]))
        runs = client.read_task_runs(flow_run_filter=of_newest)
        return {run.name: run.state_name or "" for run in runs}


def shown(states: dict[str, str]) -> None:
    """Waits until the server shows these tasks: it hears of them by events, a little later."""
    waiting.until(lambda: tasks() == states, f"tasks as {states}", pause=0.2)


def test_each_node_is_a_task_with_its_funnel_and_what_fails_holds_back_what_needs_it(graphs, server):
    nodes = {"a": graphs.upper("a"), "b": graphs.upper("b", "node:a")}
    prepared, ends = flow.run_flow(graphs.asked(nodes, run={"nodes": 2}))
    assert {end.node: end.state for end in ends} == {"a": "made", "b": "made"} and prepared.chosen == ["a", "b"]
    shown({"a": "Completed", "b": "Completed"})
    with get_client(sync_client=True) as client:
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts()}
    assert "## b@v1" in str(artifacts["documents-b"].data) and artifacts["documents-a"].task_run_id is not None
    (graphs.folder / "c.jsonl").write_bytes(b"\x1f\x8b broken")
    more = nodes | {"c": graphs.upper("c"), "d": graphs.upper("d", "node:c")}
    _, ends = flow.run_flow(graphs.asked(more, run={"nodes": 2}))
    assert {end.node: end.state for end in ends} == {"a": "there", "b": "there", "c": "failed", "d": "held"}
    shown({"a": "Completed", "b": "Completed", "c": "Failed"})


def test_what_cannot_be_is_refused_before_there_is_a_flow_run(graphs):
    with pytest.raises(BadConfig, match=r"nodes.a: recipe.sources.0: 'x': there is no such node"):
        flow.run_flow(graphs.asked({"a": graphs.upper("a", "node:x")}))


@pytest.mark.parametrize("error", [Unreachable("the store stayed away"), TypeError("a defect"), BadConfig("a key")])
def test_what_ends_a_flow_run_is_raised_as_what_it_is(graphs, server, monkeypatch, error):
    def ends(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(flow, "bring_as_tasks", ends)
    with pytest.raises(type(error), match=str(error)):
        flow.run_flow(graphs.asked({"a": graphs.upper("a")}))


def test_ctrl_c_ends_the_nodes_and_waits_for_none_of_their_work(graphs, server, monkeypatch):
    waits = (
        f"import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); open({str(graphs.folder / 'up')!r}, 'w')"
    )
    monkeypatch.setattr(local, "COMMAND", (sys.executable, "-c", f"{waits}; time.sleep(3600)"))

    def interrupt() -> None:
        waiting.until((graphs.folder / "up").exists, "the node's process")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            flow.run_flow(graphs.asked({"a": graphs.upper("a")}, run={"nodes": 2}))
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_the_job_server_is_away_waits_for_nobody(graphs, server, monkeypatch):
    """A task waits for the job server, Prefect for its tasks, and its hook of a crash for the job server again."""
    jobs, head = job_server([])
    answers = [head.list_jobs()]  # that nothing is to be reaped

    def away() -> list[Any]:
        if answers:
            return answers.pop()
        raise ConnectionError("down")

    monkeypatch.setattr(head, "list_jobs", away)
    jobs.patience = Patience("Ray's job server", 3600, say=lambda line: waits.set())
    waits = threading.Event()
    monkeypatch.setenv(flow.JOB_SERVER, "http://127.0.0.1:9")
    monkeypatch.setattr(flow, "Jobs", lambda patience: jobs)
    monkeypatch.setattr("gristmill.orchestration.flows.Jobs", lambda: pytest.fail("the hook waits for it"))
    ends: list[str] = []
    bring = flow.bring

    def noted(*arguments: Any, **options: Any) -> Any:
        try:
            return bring(*arguments, **options)
        except Unreachable as error:
            ends.append(str(error))
            raise

    monkeypatch.setattr(flow, "bring", noted)

    def interrupt() -> None:
        waiting.until(waits.is_set, "that a task waits")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            flow.run_flow(graphs.asked({"a": graphs.upper("a")}, run={"nodes": 2}))
    finally:
        signal.signal(signal.SIGINT, before)
    (end,) = ends
    assert "when the wait was interrupted: ConnectionError: down" in end


def test_no_secret_goes_to_the_server(graphs, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    for how in ({"settings": ("paths.data=hf_0123456789abcdef",)}, {"lake": "s3://key:hf_0123456789abcdef@b"}):
        with pytest.raises(BadConfig, match=r"(settings: paths.data|lake) holds the value of \$HF_TOKEN"):
            flow.run_flow(graphs.asked({"a": graphs.upper("a")}, **how))
    end = End("a", "failed", why="GET https://h/x?token=abc 403\nhf_0123456789abcdef", code=5)
    assert flow.state_of(end).message == "a: failed: GET https://h/x?token=*** 403; ***"


def test_a_job_that_fails_gives_its_exit_code_and_its_reason(graphs, monkeypatch):
    prepared = graphs.prepared({"a": graphs.upper("a")})
    node = prepared.graph.nodes["a"]

    def bring(*arguments: Any, **how: Any) -> None:
        raise JobFailed("a-1 failed with exit code 3: error: too much", 3)

    monkeypatch.setattr(flow, "bring", bring)
    monkeypatch.setattr(flow, "get_run_logger", lambda: None)
    carry_out = flow.of_jobs(prepared, None, 3)  # type: ignore[arg-type]
    assert carry_out(node, node.outline) == Ended(3, "a-1 failed with exit code 3: error: too much")
    monkeypatch.setattr(flow, "bring", lambda *arguments, **how: (["a.first@v1", "a@v3"], "committed by this run"))
    assert carry_out(node, node.outline) == Ended(0, versions=("a.first@v1", "a@v3"), new=True)


def test_a_task_says_in_a_line_what_its_node_came_to():
    states = [flow.state_of(End("a", state, why="a line\nand one", code=3)) for state in ("failed", "gated")]
    assert [state.name for state in states] == ["Failed", "Failed"]
    assert states[1].message == "a: held back by a gate: a line; and one"
