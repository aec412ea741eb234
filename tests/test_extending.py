"""docs/extending.md, walked in a copy of the tree: its files written, its diffs applied, its commands given."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from test_contributing import tree as tree  # a fixture
from typer.testing import CliRunner

from gristmill.orchestration.cli.main import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
_STEP = re.compile(r"^(?:(New file|Change) `([^`]+)`.*?)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A block of the page. `path`: of the file that it is about; empty: of commands."""

    path: str
    kind: str
    text: str


def steps() -> Iterator[Step]:
    """The blocks, in order; several changes of a file may follow each other."""
    path = ""
    for _, named, kind, text in _STEP.findall(PAGE):
        path = named or path
        yield Step("" if kind == "bash" else path, kind, text)


def changed(before: str, diff: str) -> str:
    """A text after a change, whose old lines stand in it once."""
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if line[0] in " -")
    new = "\n".join(line[1:] for line in lines if line[0] in " +")
    assert before.count(f"{old}\n") == 1, f"these lines are not there once:\n{old}"
    return before.replace(f"{old}\n", f"{new}\n")


GIVEN = """
import json, shlex, sys
from typer.testing import CliRunner
from gristmill.orchestration.cli.main import app
for line in json.load(sys.stdin):
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    print(json.dumps([line, done.exit_code, done.stdout, done.output]))
"""


def run(tree: Path, *command: str, read: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), str(tree / "tests")])}
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, input=read, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def given(tree: Path, lines: list[str]) -> dict[str, str]:
    """What each of these commands says on stdout; in one process, since the most of each is to start it."""
    outputs = {}
    for answer in run(tree, "-c", GIVEN, read=json.dumps(lines)).splitlines():
        line, code, stdout, output = json.loads(answer)
        assert code == 0, f"{line}\n{output}"
        outputs[line] = stdout
    return outputs


def test_each_step_is_true(tree: Path) -> None:
    lines: list[str] = []
    for step in steps():
        if step.kind == "bash":
            lines += step.text.splitlines()
        elif step.kind == "diff":
            file = tree / step.path
            file.write_text(changed(file.read_text(), step.text))
        else:
            assert not (tree / step.path).exists()
            (tree / step.path).write_text(step.text)
    for line in lines:
        if line.startswith("python "):
            run(tree, *shlex.split(line)[1:])
    why = "grist why https://a.example/2 --lake lake --json"
    outputs = given(tree, [*(line for line in lines if line.startswith("grist ")), why])
    calm, chains = (json.loads(outputs[line].splitlines()[-1]) for line in outputs if line.startswith("grist run"))
    assert (calm["dataset"], calm["kept"], calm["dropped"]) == ("calm", 1, 2)
    assert "too_loud" in outputs["grist show calm --lake lake"] and "shouting.too_loud" in outputs[why]
    assert "max_capitals" in (tree / "conf" / "calm.yaml").read_text()
    drawn = outputs["grist sample reasoning --lake lake -n 4"]
    assert "Which hand holds the grain?" in drawn and chains["dataset"].startswith("reasoning")
    assert given_ruff(tree) == 0


def given_ruff(tree: Path) -> int:
    """What the page has written is formatted and without a finding."""
    new = [step.path for step in steps() if step.kind == "python"]
    checks = (["ruff", "check", "--quiet", *new], ["ruff", "format", "--quiet", "--check", *new])
    return sum(subprocess.run(command, cwd=tree).returncode for command in checks)


def test_a_change_that_does_not_fit_is_seen() -> None:
    with pytest.raises(AssertionError, match="not there once"):
        changed("a = 1\na = 1\n", "-a = 1\n+a = 2\n")
    assert changed("a = 1\nb = 1\n", " a = 1\n+c = 1\n") == "a = 1\nc = 1\nb = 1\n"


@pytest.mark.parametrize("page", ["exchange", "extending"])
def test_its_commands_explain_themselves(page: str) -> None:
    """Each command that a page gives has a help that ends with an example."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for words in sorted(set(re.findall(r"^grist ((?:export )?[a-z-]+)", text, re.MULTILINE))):
        assert "Example: grist" in CliRunner().invoke(app, [*words.split(), "--help"], env={"COLUMNS": "200"}).stdout
