"""Parts of a flow without a server: exact versions in settings, secrets, stages from lines, runs that nobody ends."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from drafts import draft
from fake_prefect import Server
from fake_ray import CONF

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration import stage_runs
from gristmill.orchestration.flows import state_message
from gristmill.orchestration.jobs import Job
from gristmill.orchestration.secrets import Secrets
from gristmill.orchestration.stack import reaper
from gristmill.orchestration.stack.owner import OWNER, this_process
from gristmill.orchestration.wanted import Asked, Wanted
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.progress import Standing

MIXTURE = CONF.with_name("mixture.yaml")
SOURCES = ["recipe.tokenizer=bpe@v1", "recipe.sources={'${web}': 0.7, '${math-text}': 0.3}"]


@pytest.fixture
def versions(tmp_path) -> Versions:
    versions = Versions(open_store(str(tmp_path / "lake")))
    for dataset, n in (("web", 3), ("math-text", 1)):
        for i in range(n):
            versions.commit(draft(dataset, f"{dataset} {i}", [f"{i:064x}"]))
    return versions


def asked(versions: Versions, *settings: str) -> Asked:
    return Asked.of(str(MIXTURE), [*SOURCES, *settings], versions.store.uri)


def test_a_setting_names_the_version_of_the_event_or_the_latest(versions):
    assert list(asked(versions).outline.recipe.sources) == ["web@v1", "math-text@v1"]  # stand-ins
    versions.withdraw("web", 3, "wrong")
    assert list(asked(versions).config(versions).recipe.sources) == ["web@v2", "math-text@v1"]
    assert list(asked(versions).config(versions, "web@v1").recipe.sources) == ["web@v1", "math-text@v1"]


@pytest.mark.parametrize(
    ("setting", "version", "message"),
    [
        ("recipe.dataset=mix", "code@v1", r"version: code@v1, but no setting has \$\{code\}"),
        ("recipe.dataset=${nothing}", None, r"settings: \$\{nothing\}: the lake .* has no version of 'nothing'"),
    ],
)
def test_a_version_that_nothing_asks_for_or_that_is_not_there_is_refused(versions, setting, version, message):
    wanted = Asked.of(str(MIXTURE), [*SOURCES, setting.replace("dataset=$", "tokenizer=$")], versions.store.uri)
    with pytest.raises(BadConfig, match=message):
        wanted.config(versions, version)


def test_secrets_of_the_environment_are_told_by_their_names():
    names = {"AWS_SECRET_ACCESS_KEY": "a" * 40, "HF_TOKEN": "hf_" + "b" * 20, "DB_PASSWORD": "c" * 12}
    others = {"RAY_AUTH_TOKEN_PATH": "/home/x/ray-secret", "PATH": "/usr/bin:/usr/local/bin", "MY_TOKEN": "short"}
    secrets = Secrets.of_environment({**names, **others})
    assert set(secrets.values) == set(names) and "a" * 40 not in repr(secrets)
    assert secrets.hidden(f"key {'a' * 40} at /home/x/ray-secret") == "key *** at /home/x/ray-secret"
    assert secrets.hidden("get https://me:geheim@host/x?sig=ab%2Fcd&n=1") == "get https://me:***@host/x?sig=***&n=1"
    assert secrets.hidden("s3://bucket/key@v1:2 and a:b@c") == "s3://bucket/key@v1:2 and a:b@c"


def test_no_job_is_submitted_with_a_secret_in_its_command(versions, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    config = Asked.of(str(CONF), ["recipe.inputs=['/crawl/*']"], "/lake").outline
    fine = Wanted.of(config)
    assert "gristmill.pipelines run" in fine.entrypoint
    recipe = config.recipe.model_copy(update={"inputs": ("/crawl/hf_0123456789abcdef/*",)})
    with pytest.raises(BadConfig, match="holds the value of \\$HF_TOKEN, which") as refused:
        _ = Wanted.of(config.model_copy(update={"recipe": recipe})).entrypoint
    assert "hf_0123456789abcdef" not in str(refused.value)


class Client:
    """Prefect's client, as far as stages ask it."""

    def __init__(self) -> None:
        self.runs: dict[Any, list[Any]] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *args: object) -> None: ...

    def create_task_run(self, task: Any, flow_run_id: Any, dynamic_key: str, name: str, state: Any) -> Any:
        run = type("Run", (), {"id": uuid4(), "name": name, "flow_run_id": flow_run_id})()
        self.runs[run.id] = [name, state]
        return run

    def set_task_run_state(self, run: Any, state: Any, force: bool) -> None:
        self.runs[run].append(state)

    @property
    def seen(self) -> list[tuple[str, ...]]:
        return [(name, *(state.name for state in states)) for name, *states in self.runs.values()]


@pytest.fixture
def client(monkeypatch) -> Client:
    fake = Client()
    monkeypatch.setattr(stage_runs, "get_client", lambda sync_client: fake)
    monkeypatch.setattr(stage_runs, "current", type("Current", (), {"id": str(uuid4())})())
    monkeypatch.setattr(stage_runs, "task_run_logger", lambda run, task: run.name)
    return fake


def test_the_message_of_a_state_is_one_line_without_a_secret(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    message = state_message(BadConfig("recipe.x: found 'hf_0123456789abcdef'\ns3://me:passw0rd@host/x is not there"))
    assert message == "recipe.x: found '***'; s3://me:***@host/x is not there"


def test_lines_of_a_job_are_its_stages(client):
    times = iter(range(100))
    extract = Standing("extract", 2, 1, lambda: next(times))

    def ended(done: int, title: str = "extract") -> Standing:
        return Standing(title, 2, done, lambda: next(times))

    stream = Standing("draw", None, 0, lambda: next(times))
    lines = [
        "Ray says something",
        "12:00:00 INFO scan: all 2 pieces done before",
        f"12:00:00 INFO {extract.first_line()}",
        f"12:00:01 INFO {extract.line()}",
        "12:00:01 INFO web@v1: another matter",
        f"12:00:02 INFO {ended(2).last_line()}",
        f"12:00:02 INFO {ended(0, 'shards').first_line()}",
        f"12:00:02 INFO {ended(1, 'shards').last_line()}",
        f"12:00:03 INFO {stream.first_line()}",
        None,
        Job("web-1", "FAILED", 1),
    ]
    logs = [log for _, log in stage_runs.shown_by_stages(iter(lines), "flow")]
    assert logs == ["flow", "scan", "extract", "extract", "flow", "extract", "shards", "shards", "draw", "draw", "flow"]
    assert client.seen == [
        ("scan", "Cached"),
        ("extract", "Running", "Completed"),
        ("shards", "Running", "Failed"),  # pieces of it failed
        ("draw", "Running", "Failed"),  # the job ended first
    ]


def test_stages_that_are_open_at_a_time_each_have_their_own_lines(client):
    times = iter(range(100))

    def standing(title: str, done: int = 0, total: int = 2) -> Standing:
        return Standing(title, total, done, lambda: next(times))

    lines = [
        f"12:00:00 INFO {standing('extract').first_line()}",
        "a line of a library",
        f"12:00:01 INFO {standing('screen').first_line()}",
        "a line of a library",
        f"12:00:02 INFO {standing('extract', 1).line()}",
        "12:00:02 ERROR extract: a.warc records 0+2 failed: OSError: no",
        f"12:00:03 INFO {standing('screen', 1).line()}",
        f"12:00:04 INFO {standing('extract', 1).last_line()}",
        "a line of a library",
        f"12:00:05 INFO {standing('screen', 2).last_line()}",
        "12:00:06 INFO sign: all 2 pieces done before",
    ]
    logs = [log for _, log in stage_runs.shown_by_stages(iter(lines), "flow")]
    assert logs == [
        *("extract", "extract", "screen", "flow", "extract", "extract"),
        *("screen", "extract", "screen", "screen", "sign"),
    ]
    assert client.seen == [
        ("extract", "Running", "Failed"),
        ("screen", "Running", "Completed"),
        ("sign", "Cached"),
    ]


def test_a_server_that_is_away_costs_the_stages_and_nothing_else(client, monkeypatch):
    def away(*args: object, **more: object) -> None:
        raise httpx.ConnectError("no")

    monkeypatch.setattr(client, "create_task_run", away)
    warnings: list[str] = []

    class Log:
        def warning(self, text: str, *args: object) -> None:
            warnings.append(text % args)

    lines = ["12:00:00 INFO scan: begins, 2 pieces", "12:00:00 INFO extract: begins, 2 pieces"]
    assert len(list(stage_runs.shown_by_stages(iter(lines), Log()))) == 2
    assert warnings == ["stages of this job are not shown: Prefect's server is away (no)"]


def run(id: str, type: str = "RUNNING") -> dict[str, Any]:
    return {"id": id, "name": f"run {id}", "state_type": type, "state": {"name": type.title()}, "deployment_id": None}


def test_a_flow_run_without_a_process_is_ended_and_no_other(monkeypatch):
    here = f"local-{reaper.platform.node()}"
    there = {"alive": [object()], "dead": [], "cancelling": [], "own": []}
    monkeypatch.setattr(reaper.processes, "marked", lambda name, id: there[id])
    runs = [run("alive"), run("dead"), run("own"), run("cancelling", "CANCELLING")]
    ended: dict[str, str] = {}
    answers: dict[str, Any] = {
        "work_pools_pool_workers_filter": [{"name": here}],
        "flow_runs_filter": runs,
        "flow_runs_dead_set_state": lambda body: ended.update(dead=body["state"]["type"]),
        "flow_runs_cancelling_set_state": lambda body: ended.update(cancelling=body["state"]["type"]),
    }
    server: Any = Server(**answers)
    assert [left.name for left in reaper.end_orphans(server, "pool", own="own")] == ["run dead", "run cancelling"]
    assert ended == {"dead": "CRASHED", "cancelling": "CANCELLED"}
    # a pool with a worker elsewhere: the process may be there
    elsewhere: Any = Server(**{**answers, "work_pools_pool_workers_filter": [{"name": here}, {"name": "x-other"}]})
    assert reaper.end_orphans(elsewhere, "pool") == []


def test_a_kickoff_of_a_shell_is_ended_when_the_process_that_it_names_is_gone():
    host, pid, started, boot = json.loads(this_process())
    dead, elsewhere = json.dumps([host, pid, started - 1, boot]), json.dumps(["other", pid, started - 1, boot])
    runs = [
        run("dead") | {"labels": {OWNER: dead}},
        run("cancelling", "CANCELLING") | {"labels": {OWNER: dead}},
        run("own") | {"labels": {OWNER: dead}},
        run("alive") | {"labels": {OWNER: this_process()}},
        run("elsewhere") | {"labels": {OWNER: elsewhere}},
        run("of a worker") | {"labels": None},
    ]
    ended: dict[str, Any] = {}
    server: Any = Server(
        work_pools_pool_workers_filter=[],
        flow_runs_filter=lambda body: runs if "flows" in body else [],
        flow_runs_dead_set_state=lambda body: ended.update(dead=body["state"]),
        flow_runs_cancelling_set_state=lambda body: ended.update(cancelling=body["state"]),
    )
    assert [left.name for left in reaper.end_orphans(server, "pool", own="own")] == ["run dead", "run cancelling"]
    assert [state["type"] for state in ended.values()] == ["CRASHED", "CANCELLED"]
    assert ended["dead"]["message"] == "its process died; what it did is kept, and the same command goes on"


def test_a_job_whose_flow_run_is_over_is_known_for_one():
    metadata = {"prefect_flow_run_id": "over"}
    jobs = [
        {"type": "SUBMISSION", "status": "RUNNING", "submission_id": "web-1", "metadata": metadata},
        {
            "type": "SUBMISSION",
            "status": "RUNNING",
            "submission_id": "web-2",
            "metadata": {"prefect_flow_run_id": "on"},
        },
        {"type": "SUBMISSION", "status": "RUNNING", "submission_id": "by-hand", "metadata": {}},
        {"type": "SUBMISSION", "status": "SUCCEEDED", "submission_id": "web-0", "metadata": metadata},
    ]
    prefect: Any = Server(flow_runs_over=run("over", "CRASHED"), flow_runs_on=run("on"))
    assert reaper.jobs_of_ended_runs(Server(api_jobs=jobs), prefect, []) == [("web-1", "run over")]  # type: ignore[arg-type]
    dead = reaper.Orphan("on", "run on", None, "Running", "Crashed")
    left = reaper.jobs_of_ended_runs(Server(api_jobs=jobs), prefect, [dead])  # type: ignore[arg-type]
    assert left == [("web-1", "run over"), ("web-2", "run on")]
