"""Who may read a lake and not write it can ask it everything: no command that looks writes."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from forget_lake import do, files, two_nights
from typer.testing import CliRunner

from gristmill.lake.store.base import Store
from gristmill.lake.store.local import LocalStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app


@pytest.fixture
def locked(tmp_path: Path, monkeypatch) -> Store:
    """A lake with versions, a tag and a takedown, every write of which is refused from now on."""
    store = open_store(str(tmp_path / "lake"))
    two_nights(store)
    Versions(store).tag("code", 1, "release")
    do(store, Suppression.of(urls=["https://example.org/b"]))
    before = files(store)

    def refuse(self: LocalStore, *args: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        for verb in ("put", "put_file", "put_if_absent", "create", "delete"):
            patch.setattr(LocalStore, verb, refuse)
        yield store
    assert files(store) == before


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


@pytest.mark.parametrize("command", [["gc", "--yes"], ["withdraw", "code@v1", "--reason", "r"]], ids=" ".join)
def test_a_command_that_acts_says_that_it_cannot(locked, command):
    result = CliRunner().invoke(app, [*command, "--lake", locked.uri])
    assert result.exit_code == 1 and "Read-only file system" in result.stderr, result.output
