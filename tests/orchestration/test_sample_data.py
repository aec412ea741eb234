"""`grist sample-data`: what it writes and says, and what it refuses before it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from two_versions import grist


def test_sample_data_and_version(tmp_path: Path) -> None:
    result = grist("sample-data", str(tmp_path / "demo"), "--pages", "100", "--scenes", "20", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["records"] > 100
    assert {"scenes/questions.tar", "crawl/extra.jsonl.gz"} <= set(json.loads(result.stdout)["files"])
    assert grist("sample-data", str(tmp_path / "demo"), "--pages", "1").exit_code == 2
    assert "speech/digits.tar" not in json.loads(result.stdout)["files"]
    assert grist("--version").stdout.startswith("gristmill ")


@pytest.mark.parametrize("left", ["crawl/mine.warc.gz", "scenes/mine.tar", "speech/mine.tar"])
def test_sample_data_that_is_refused_writes_nothing(tmp_path: Path, left: str) -> None:
    """Too few pages, and a folder with a file of somebody else's in whatever part."""
    assert grist("sample-data", str(tmp_path / "few"), "--pages", "20").exit_code == 2
    assert not (tmp_path / "few").exists()
    folder = tmp_path / "used"
    (folder / left).parent.mkdir(parents=True)
    (folder / left).touch()
    speech = ["--speech", "1"] if left.startswith("speech") else []
    if speech:
        pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")
    refused = grist("sample-data", str(folder), "--pages", "100", "--scenes", "2", *speech)
    assert refused.exit_code == 1 and "mine." in refused.output
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == [left]


def test_sample_data_has_speech_where_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `speech` is not installed")
    result = grist("sample-data", str(tmp_path), "--pages", "100", "--scenes", "2", "--speech", "1", "--json")
    written = json.loads(result.stdout)
    assert {"speech/digits.tar", "speech/scenes-voices.tar", "scenes/questions.tar"} <= set(written["files"])
    assert written["kinds"]["speech_digits"] == 3 and (tmp_path / "speech" / "README.md").exists()
