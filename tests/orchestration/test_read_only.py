"""Who may read a lake and not write it can ask it everything: no command that looks writes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from forget_lake import do, files, two_nights
from kickoffs import Graphs
from toy_pipeline import UpperConfig
from typer.testing import CliRunner

from gristmill.lake.store.base import Store
from gristmill.lake.store.local import LocalStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.registry import PIPELINES


@pytest.fixture
def locked(tmp_path: Path, monkeypatch) -> Store:
    """A lake with versions, a tag and a takedown, every write of which is refused from now on."""
    store = open_store(str(tmp_path / "lake"))
    two_nights(store)
    Versions(store).tag("code", 1, "release")
    do(store, Suppression.of(urls=["https://example.org/b"]))
    before = files(store)

    with monkeypatch.context() as patch:
        lock(patch)
        yield store
    assert files(store) == before


def lock(patch: pytest.MonkeyPatch) -> None:
    """Every write into a lake in a folder is refused, as a file system does that may only be read."""

    def refuse(self: LocalStore, *args: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for verb in ("put", "put_file", "put_if_absent", "create", "delete"):
        patch.setattr(LocalStore, verb, refuse)


COMMANDS = [
    ["ls"],
    ["log", "web"],
    ["show", "web"],
    ["stats", "web"],
    ["lineage", "web"],
    ["why", "https://example.org/b"],
    ["diff", "web@v1", "web@v2"],
    ["sample", "web"],
    ["verify"],
    ["verify", "--deep"],
    ["gc"],
    ["gc", "--grace", "0s"],
    ["gc", "--json"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_that_looks_does_not_write(locked, command):
    result = CliRunner().invoke(app, [*command, "--lake", locked.uri])
    assert result.exit_code == 0, (result.output, result.exception)
    if command == ["gc"]:
        assert "ages are by this machine's clock" in result.stdout


def test_so_do_checkout_and_a_takedown_that_is_only_planned(locked, tmp_path):
    names = tmp_path / "domains.txt"
    names.write_text("evil.com\n")
    for command in (["checkout", "web", str(tmp_path / "out")], ["forget", "--domains", str(names), "--reason", "r 8"]):
        result = CliRunner().invoke(app, [*command, "--lake", locked.uri])
        assert result.exit_code == 0, (result.output, result.exception)


def test_the_plan_of_a_kickoff_is_a_look_and_what_runs_says_that_it_cannot_write(tmp_path, monkeypatch):
    """The plan wrote where nobody had been, and failed where nobody may write."""
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    graphs = Graphs(tmp_path)
    asked = graphs.asked({"a": graphs.upper("a"), "b": graphs.upper("b", "node:a")})
    path = tmp_path / "a.yaml"
    config = {"pipeline": "upper", "recipe": {"dataset": "a", "inputs": [str(tmp_path / "a.jsonl")]}}
    path.write_text(json.dumps(config | {"run": {"workers": 0}}))
    lake = tmp_path / "lake"
    kickoff, run = ["kickoff", str(asked.config)], ["run", str(path)]

    def given(command: list[str]) -> Result:
        return CliRunner().invoke(app, [*command, "--lake", str(lake)])

    assert given([*kickoff, "--plan"]).exit_code == 0 and not lake.exists()
    assert given(kickoff).exit_code == 0
    store = open_store(str(lake))
    before = files(store)
    with monkeypatch.context() as patch:
        lock(patch)
        result = given([*kickoff, "--plan"])
        assert result.exit_code == 0, (result.output, result.exception)
        for command in (kickoff, run, [*run, "--plan"]):  # the plan of a run notes that it runs, as a run does
            result = given(command)
            assert result.exit_code == 2 and "cannot be written from here: [Errno 30]" in result.stderr, result.output
            assert "`grist ls`, `show`, `report`, `kickoff --plan`" in result.stderr
    assert files(store) == before


@pytest.mark.parametrize("command", [["gc", "--yes"], ["withdraw", "code@v1", "--reason", "r"]], ids=" ".join)
def test_a_command_that_acts_says_that_it_cannot(locked, command):
    result = CliRunner().invoke(app, [*command, "--lake", locked.uri])
    assert result.exit_code == 1 and "Read-only file system" in result.stderr, result.output
