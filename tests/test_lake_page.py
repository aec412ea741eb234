"""docs/lake.md: every command and every block of Python on the page runs on a small lake."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import mixtures
import pytest
from drafts import draft
from lake_builder import Page, commit, pages
from typer.testing import CliRunner

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app

PAGE = (Path(__file__).parents[1] / "docs" / "lake.md").read_text()
ELSEWHERE = "grist replay"
"""Wants measures of real filters: tests/pipelines/test_replay.py."""
COMMANDS = [
    line.partition("#")[0].strip()
    for line in PAGE.splitlines()
    if line.startswith("grist ") and not line.startswith(ELSEWHERE)
]
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """web, a mixture of documents, and a model trained on web."""
    store = open_store(str(tmp_path_factory.mktemp("page") / "lake"))
    short = Page("https://example.org/2", "quality.too_few_words", "12")
    commit(store, "web", pages(20, p2=short))
    web = commit(store, "web", pages(20), recipe={"quality": {"min_words": 10}})
    trained_on = web.ref.model_copy(update={"role": "trained_on"})
    Versions(store).commit(draft("base", "base", [], form="model", sources=(trained_on,)))
    mixtures.documents(store, "pages", mixtures.texts(40))
    mixtures.tokenizer(store, "pages@v1")
    mixtures.mix(store, {"pages@v1": 1.0}, tokens=3_000)
    return store


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_answers(lake: Store, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIST_LAKE", lake.uri)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0 and result.stdout, (result.output, result.exception)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_page_runs(lake: Store, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "to_hf" in program:
        pytest.importorskip("datasets")
    monkeypatch.setenv("GRIST_LAKE", lake.uri)
    exec(compile(program, "docs/lake.md", "exec"), {})


def test_the_page_has_both(lake: Store) -> None:
    assert len(COMMANDS) == 13 and len(PROGRAMS) == 3
