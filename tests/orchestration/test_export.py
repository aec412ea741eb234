"""`grist export dataset` as a command: what it prints, how it refuses. Its files: tests/stages/test_exchange.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mixtures
import pytest
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    mixtures.documents(open_store(str(tmp_path / "lake")), "web", mixtures.texts(6), shards=2)
    return tmp_path / "lake"


def exported(lake: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["export", "dataset", *words, "--lake", str(lake)])


def test_it_says_what_it_wrote(lake: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    done = exported(lake, "web", out, "--as", "hf")
    names = [f"data/train-0000{n}-of-00002.parquet" for n in range(2)]
    assert done.exit_code == 0 and done.stderr.splitlines() == [f"{name} written" for name in names]
    assert "web@v1: 6 records in 5 files, " in done.stdout
    again = json.loads(exported(lake, "web", out, "--as", "hf", "--json").stdout)
    assert (again["version"], again["target"], again["written"], again["present"]) == ("web@v1", "hf", 0, 2)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["web", "s3://bucket/x"], 2, "export writes to a local folder"),
        (["nothing", "out"], 1, "there is no dataset 'nothing'"),
        (["web", "out", "--as", "csv"], 2, "--as csv: allowed are parquet, webdataset, hf"),
    ],
)
def test_what_cannot_be_is_one_line(lake: Path, tmp_path: Path, monkeypatch, words, code: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = exported(lake, *words)
    assert (done.exit_code, len(done.stderr.splitlines())) == (code, 1) and message in done.stderr


def test_what_was_taken_down_is_one_line_too(lake: Path, tmp_path: Path) -> None:
    store = open_store(str(lake))
    Suppression.of(domains=["web.example"]).save(store, "asked")
    done = exported(lake, "web", str(tmp_path / "out"))
    assert done.exit_code == 1 and "error: web@v1 holds 6 records that were taken down" in done.stderr
    Versions(store).withdraw("web", 1, "wrong source")
    done = exported(lake, "web@v1", str(tmp_path / "out"))
    assert done.exit_code == 1 and "withdrawn (wrong source)" in done.stderr and not (tmp_path / "out").exists()
