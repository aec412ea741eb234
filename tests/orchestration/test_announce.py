"""The event of a version: once, unless a gate holds it, by flows and by commands of a shell that knows a server."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from drafts import draft
from fake_prefect import Events
from toy_pipeline import UpperConfig
from typer.testing import CliRunner

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import NotFound
from gristmill.lake.store.objects import DamagedObject
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration import run as by_hand
from gristmill.orchestration.announce import COMMITTED, SERVER, announce_version, is_announced, pass_on
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.kickoff import made
from gristmill.orchestration.stack.health import Unreachable
from gristmill.pipelines.gates.held import Gates
from gristmill.pipelines.gates.passing import Judgement
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.exits import INCOMPLETE


@pytest.fixture
def versions(tmp_path) -> Versions:
    versions = Versions(open_store(str(tmp_path / "lake")))
    for number in range(3):
        versions.commit(draft("web", f"web {number}", [f"{number:064x}"]))
    return versions


def test_a_version_is_announced_once(versions):
    server: Any = Events()
    manifest = versions.manifest("web", 2)
    assert not is_announced(server, manifest, "s3://lake")
    announce_version(server, manifest, "s3://lake")
    assert is_announced(server, manifest, "s3://lake")
    assert not is_announced(server, manifest, "s3://other")  # the same data elsewhere is news there
    (event,) = next(body for path, body in server.asked if path == "/events")
    assert event["event"] == COMMITTED and event["resource"]["gristmill.version"] == "web@v2"
    assert event["resource"]["prefect.resource.id"] == "gristmill.dataset.web"
    assert json.dumps(event)


def test_what_a_gate_holds_is_not_announced_until_it_is_accepted(versions):
    server: Any = Events()
    empty = draft("web", "empty", ["f" * 64])
    nothing = versions.commit(empty.model_copy(update={"kept": Tally(), "dropped": empty.received}))
    about = (server, versions, nothing, "s3://lake")
    (reason,) = pass_on(*about, Gates(), [])
    assert reason.startswith("kept rate: web@v4 kept 0 of 1") and not server.seen
    assert pass_on(*about, Gates(), ["web@v4"]) == [] and len(server.seen) == 1
    assert pass_on(*about, Gates(), []) == [] and len(server.seen) == 1  # it passed before


def test_what_a_lake_lost_costs_a_node_its_artifact_and_not_its_task(versions, monkeypatch, caplog):
    def lost(*about: Any) -> str:
        raise NotFound("lake", "objects/a")

    monkeypatch.setattr(made, "described", lost)
    made.publish(versions.store, versions.manifest("web", 2), logging.getLogger("gristmill"))
    assert "web@v2 is there, but Prefect does not show what it came to" in caplog.text


# Commands of a shell


class Shell:
    """Runs the toy pipeline over a file of lines. `server`: what it knows for Prefect."""

    def __init__(self, folder, monkeypatch, server: Any) -> None:
        monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
        monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
        monkeypatch.setattr(by_hand, "prefect_server", lambda: server)
        monkeypatch.setenv(SERVER, "http://prefect/api")
        (folder / "upper.yaml").write_text("pipeline: upper\nrecipe: {}\n")
        (folder / "a.jsonl").write_text('{"text": "a"}\n')
        self.folder = folder

    def run(self, *settings: str) -> Any:
        """`grist run` with these settings."""
        sets = [f"recipe.inputs=['{self.folder}/a.jsonl']", "recipe.dataset=up", "run.workers=0", *settings]
        words = ["run", str(self.folder / "upper.yaml"), "--lake", str(self.folder / "lake")]
        return CliRunner().invoke(app, [*words, *(part for setting in sets for part in ("--set", setting))])


def test_a_command_announces_what_it_made_once(tmp_path, monkeypatch, caplog):
    server = Events()
    shell = Shell(tmp_path, monkeypatch, server)
    for _ in range(2):
        result = shell.run()
        assert result.exit_code == 0 and json.loads(result.stdout.splitlines()[-1])["version"] == 1
    assert server.versions == ["up@v1"]
    assert "up@v1: Prefect knows of it (http://prefect/api), and starts what waits for it" in caplog.messages


def test_a_preview_is_not_announced_nor_anything_where_no_server_is_known(tmp_path, monkeypatch):
    server = Events()
    shell = Shell(tmp_path, monkeypatch, server)
    assert shell.run("recipe.limit=1").exit_code == 0
    monkeypatch.delenv(SERVER)
    assert shell.run().exit_code == 0 and server.asked == []


def test_a_server_that_is_away_costs_the_event_which_the_next_command_sends(tmp_path, monkeypatch, caplog):
    server = Events()

    def away(*asked: Any) -> None:
        raise Unreachable("http://prefect/api: refused")

    shell = Shell(tmp_path, monkeypatch, server)
    with monkeypatch.context() as patch:
        patch.setattr(server, "ask", away)
        result = shell.run()
    assert result.exit_code == 0 and json.loads(result.stdout.splitlines()[-1])["version"] == 1
    (warning,) = (
        message for message in caplog.messages if message.startswith("up@v1 is there, but Prefect was not told")
    )
    assert "http://prefect/api: refused; the same command, given again, tells it" in warning
    assert shell.run().exit_code == 0 and server.versions == ["up@v1"]


@pytest.mark.parametrize("error", [Unreadable("web@v1: cut short"), NotFound("lake", "objects/a"), DamagedObject("a")])
def test_a_lake_that_lost_what_is_judged_costs_the_event_and_not_the_run(tmp_path, monkeypatch, caplog, error):
    def lost(*about: Any) -> None:
        raise error

    shell = Shell(tmp_path, monkeypatch, Events())
    monkeypatch.setattr("gristmill.orchestration.announce.judge", lost)
    result = shell.run()
    assert result.exit_code == 0 and json.loads(result.stdout.splitlines()[-1])["version"] == 1
    assert any(message.startswith("up@v1 is there, but Prefect was not told") for message in caplog.messages)


def test_ctrl_c_while_it_announces_says_that_the_same_command_goes_on(tmp_path, monkeypatch):
    def interrupt(*about: Any) -> None:
        raise KeyboardInterrupt

    server = Events()
    shell = Shell(tmp_path, monkeypatch, server)
    with monkeypatch.context() as patch:
        patch.setattr(server, "ask", interrupt)
        result = shell.run()
    assert result.exit_code == INCOMPLETE and json.loads(result.stdout.splitlines()[-1])["version"] == 1
    assert "interrupted; what is done is kept: run the same command again" in result.stderr
    assert shell.run().exit_code == 0 and server.versions == ["up@v1"]


def test_a_version_that_a_gate_holds_is_said_and_not_announced(tmp_path, monkeypatch, caplog):
    server = Events()
    shell = Shell(tmp_path, monkeypatch, server)
    low = Judgement(["kept rate: too low"], None)
    monkeypatch.setattr("gristmill.orchestration.announce.judge", lambda *about: low)
    assert shell.run().exit_code == 0 and server.versions == []
    assert any(
        "up@v1 is held back, nothing starts of it" in message and "kept rate: too low" in message
        for message in caplog.messages
    )
