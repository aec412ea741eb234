"""Every command of docs/kickoff.md is run, in its order, on a small sample; those of `everything`, which trains for
minutes, are only planned.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "kickoff.md"
SMALL = "--pages 100 --stories 20 --copying 20 --scenes 4 --speech 4"


def commands() -> list[list[str]]:
    """The words of each, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("grist ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def as_tested(words: list[str]) -> list[str]:
    """Cut to a size for tests: few rows, no process of its own, and no training of `everything`."""
    if words[0] == "sample-data":
        return [*words[:2], *SMALL.split()]
    if words[:2] == ["kickoff", "everything"]:
        return [*words, "--plan"]
    return [*words, "--set", "run.nodes=0"] if words[0] == "kickoff" else words


def test_every_command_of_the_page_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    for name in ("GRIST_LAKE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    Path("my.yaml").write_text(text)
    outputs: dict[str, str] = {}
    for words in commands():
        result = CliRunner().invoke(app, as_tested(words))
        assert result.exit_code == 0, (words, result.output, result.exception)
        outputs.setdefault(" ".join(words), "")
        outputs[" ".join(words)] += result.stdout
    assert "68 nodes, 0 done, 68 to run" in outputs["kickoff everything --lake lake-data --plan"]
    assert "1 to run" in outputs["kickoff everything --lake lake-data --only web"]
    ran = outputs["kickoff my.yaml --lake lake-data"]
    assert ran.count("done now") == ran.count("done before") == 5  # the command stands there twice
    assert "5 nodes, 5 done, 0 to run" in next(text for name, text in outputs.items() if "cost_per_cpu_hour" in name)
    assert "math@v1" in outputs["lineage mine.pretrain --lake lake-data"]


def test_a_page_without_commands_would_be_seen():
    names = [words[0] for words in commands()]
    assert names.count("kickoff") >= 6 and {"sample-data", "lineage"} <= set(names)


@pytest.mark.parametrize("words", [["kickoff", "everything", "--lake", "x"], ["kickoff", "my.yaml"]])
def test_what_is_run_is_what_stands_there_and_more(words):
    assert as_tested(words)[: len(words)] == words
