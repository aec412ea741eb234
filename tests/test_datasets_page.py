"""docs/datasets.md, walked in its order on the sample data: each command is given, and each block of Python runs.

What stands there for S3 and a cluster is given for a folder and this process.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from typer.testing import CliRunner

import gristmill
from gristmill.orchestration.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "datasets.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
HERE = {"s3://bucket/crawl/*.warc.gz": "demo/crawl/*", "--set run.workers=16": ""}


def commands(block: str) -> list[list[str]]:
    """The words of each, without comments; a line's continuation belongs to it."""
    for there, here in HERE.items():
        block = block.replace(there, here)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("grist ")]


def given(words: list[str]) -> list[str]:
    """The same in this process, which needs no cluster; of a small crawl more is damaged than of a large one."""
    more = {"run": ["--set", "run.workers=0"], "run web": ["--set", "recipe.max_quarantine_rate=0.1"]}
    return [*words, *more.get(words[0], []), *more.get(" ".join(words[:2]), [])]


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path, sample: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setenv("GRIST_LAKE", str(tmp_path / "lake"))
    (tmp_path / "demo").symlink_to(sample)
    outputs: dict[str, str] = {}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, str(PAGE), "exec"), {})
            continue
        for words in commands(block):
            if words[0] == "forget" and not Path("takedown.txt").exists():
                host = urlsplit(next(iter(gristmill.open("web")))["url"]).hostname
                Path("takedown.txt").write_text(f"{host}\n")
            done = CliRunner().invoke(app, given(words))
            assert done.exit_code == 0, (words, done.output, done.exception)
            outputs[" ".join(words)] = done.stdout
    assert '"version": 1' in outputs["run web --set recipe.extends=web --set recipe.inputs=[demo/crawl/*]"]
    assert "windows" in outputs["show mix"] and "«" in outputs["sample mix --source math@v1"]
    assert "mix@v2 is without them" in outputs["forget --domains takedown.txt --reason request 2026-17 --yes"]


def test_a_page_without_commands_would_be_seen() -> None:
    names = [words[0] for kind, block in BLOCKS if kind == "sh" for words in commands(block)]
    assert names.count("run") >= 6 and {"tokenizer", "show", "sample", "forget", "gc"} <= set(names)
