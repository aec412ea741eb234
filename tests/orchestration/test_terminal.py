"""What a terminal shows: nothing that matters is cut, a reader may leave, exit codes are those of the one table."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text
from two_versions import SHORT, grist, two_versions

from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.show import tables
from gristmill.orchestration.show.terminal import Terminal
from gristmill.pipelines.settings import exits
from gristmill.pipelines.settings.exits import BROKEN_PIPE


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    return two_versions(tmp_path)


@pytest.mark.parametrize("columns", ["40", "60", "79"])
@pytest.mark.parametrize(
    ("args", "whole"),
    [
        (["ls"], ["web", "v2", "2026-11-22 10:00"]),
        (["ls", "web"], ["v1", "v2", "2026-11-22 10:00"]),
        (["log", "web"], ["v1", "v2", "{digest1:.12}", "{digest2:.12}", "aaaaaaaa"]),
        (["show", "web@v2"], ["{input:.12}", "{shard:.12}", "{digest2}"]),
        (["why", SHORT.url], [SHORT.id, "v1", "v2"]),
        (["diff", "web@v1", "web@v2"], ["web@v1", "web@v2", SHORT.id]),
        (["sample", "web@v1", "--reason", "quality.too_few_words"], [SHORT.id]),
    ],
)
def test_no_id_and_no_version_is_cut_on_a_narrow_terminal(
    lake: Store, args: list[str], whole: list[str], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Versions(lake).manifest("web", number) for number in (1, 2))
    names = {"digest1": first.digest, "digest2": second.digest}
    names |= {"input": second.inputs[0].digest, "shard": second.shards[0].sha256}
    monkeypatch.setenv("COLUMNS", columns)
    result = grist(*args, lake=lake)
    assert result.exit_code == 0, result.output
    for text in whole:
        assert text.format(**names) in result.stdout, result.stdout
    # only a bar may end in a sign that it was cut
    assert not [line for line in result.stdout.splitlines() if "…" in line and "█" not in line]


def test_a_terminal_of_no_columns_is_taken_for_a_wide_one(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert "web" in grist("ls", lake=lake).stdout


@pytest.mark.parametrize("args", [["show", "web"], ["show", "web", "--json"], ["ls"], ["why", "https://no.where/"]])
def test_a_reader_who_leaves_is_no_error(lake: Store, args: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)  # whoever reads has left before the first byte: no race
    command = [sys.executable, "-m", "gristmill.orchestration.cli.main", *args, "--lake", lake.uri]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    os.close(write)
    nothing_said = args[0] == "why"  # its answer goes to stderr, with a code of its own
    assert done.returncode == (1 if nothing_said else BROKEN_PIPE)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert nothing_said or done.stderr == ""


def test_a_terminal_without_unicode_gets_all_of_it_escaped(lake: Store) -> None:
    command = [sys.executable, "-m", "gristmill.orchestration.cli.main", "show", "web", "--lake", lake.uri]
    where = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2588" in done.stdout and "Shards" in done.stdout.partition("Funnel")[2]


def test_exit_codes_stand_in_one_table_that_help_and_the_docs_have() -> None:
    assert exits.markdown() in (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for args in (["--help"], ["run", "--help"]):
        output = " ".join(grist(*args).stdout.split())
        assert all(f"{row.code}: {row.meaning}" in output for row in exits.EXITS), output
    codes = [row.code for row in exits.EXITS]
    assert codes == sorted(set(codes))
    used = {"DONE", "NOT_FOUND", "BAD_CONFIG", "GATE", "CONFLICT", "INCOMPLETE", "BROKEN_PIPE"}
    assert {getattr(exits, name) for name in used} == set(codes)


WORDS = ("web@v12", "a", "long-dataset-name", "日本", "é", "x" * 40, "1,234")


def table_of(draw: random.Random) -> tables.Grid:
    """A table of some columns of all kinds, with styled cells and rows."""
    headers = [draw.choice(("name", "n>", "text~", "", "bar|")) for _ in range(draw.randint(1, 6))]
    table = tables.grid(*headers)
    for _ in range(draw.randint(0, 6)):
        cells: list[str | Text] = []
        for _ in headers:
            words = " ".join(draw.choices(WORDS, k=draw.randint(0, 3)))
            styled = Text(words, style=draw.choice(("", "red", "bold dim"))).append(draw.choice(("", " more")), "cyan")
            cells.append(draw.choice((words, styled, Text(words, style="dim"))))
        table.add_row(*cells, style=draw.choice((None, "yellow")))
    return table


def characters(table: tables.Grid, width: int) -> list[tuple[str, str]]:
    """What stands on a terminal, each character with its style; blanks have none."""
    console = Terminal(width=width, markup=False, emoji=False, highlight=False, color_system="truecolor")
    segments = console.render(table, console.options)
    return [(c, "" if c == " " else str(style or "")) for text, style, _ in segments for c in text]


@pytest.mark.parametrize("width", [30, 120])
def test_lines_that_are_put_together_here_are_those_of_rich(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [characters(table_of(random.Random(seed)), width) for seed in range(40)]
    assert sum("".join(c for c, _ in table).count("\n") > 2 for table in drawn) > 20
    monkeypatch.setattr(tables.Grid, "_natural_widths", lambda self: None)
    for seed, table in enumerate(drawn):
        assert table == characters(table_of(random.Random(seed)), width), seed
