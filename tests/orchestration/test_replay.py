"""`grist replay` as a command: what it draws, what it prints as JSON, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import web
from typer.testing import CliRunner, Result

from gristmill.orchestration.cli.main import app

WORDS = (10, 60, 60, 200)
"""Of each page: below the threshold of the version, and of two replays."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> str:
    """web@v1 of pages of so many words, each of its own, and one with another form."""
    folder = tmp_path_factory.mktemp("replay")
    pages = [
        " ".join(f"the mill of miller number {n}{i}" for i in range(count // 6 + 1)) for n, count in enumerate(WORDS)
    ]
    rows = [
        {"text": " ".join(page.split()[:count]), "url": f"https://mill.example/{n}"}
        for n, (page, count) in enumerate(zip(pages, WORDS, strict=True))
    ]
    path = folder / "pages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\n")
    recipe = {"language": {"keep": [], "min_score": None}, "extract": {"seconds_per_record": None}}
    gopher = {"languages": [], "min_alpha_word_ratio": 0}
    web.run(folder / "lake", [path], minhash=None, gopher_quality=gopher, max_quarantine_rate=0.5, **recipe)
    return str(folder / "lake")


def grist(lake: str, *args: str) -> Result:
    return CliRunner().invoke(app, ["replay", "web@v1", "--lake", lake, *args], env={"COLUMNS": "160"})


def fates(output: str) -> dict[str, list[str]]:
    """Of the table: name -> cells behind it."""
    _, _, table = output.partition("\nFates\n")
    head, *rows = table.partition("\n\n")[0].splitlines()
    assert head.split() == ["web@v1", "replayed", "change"]
    return {name: cells for name, *cells in (row.split() for row in rows)}


def test_the_fates_of_both_are_drawn_side_by_side(lake: str) -> None:
    result = grist(lake, "--set", "recipe.gopher_quality.min_words=100")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "web@v1 with other settings, judged by its stored measures"
    assert [line.split() for line in lines if "min_words" in line] == [
        ["recipe.gopher_quality.min_words", "50", "->", "100"]
    ]
    few = fates(result.output)
    assert few["gopher_quality.too_few_words"] == ["1", "3", "+2"] and few["kept"] == ["3", "1", "-2"]
    assert few["read.unreadable"] == ["1", "1"]
    (moved,) = [line.split() for line in lines if "->" in line and "min_words" not in line]
    assert moved == ["2", "kept", "->", "gopher_quality.too_few_words"]
    assert result.output.count("gopher_quality.n_words 60") == 2 and "the mill of miller number 10" in result.output
    assert "1 record never came to the filters" in result.output
    assert "1 pass the filters, of 1 content: so many would be kept" in result.output


def test_what_comes_in_again_passes_and_no_more_is_said(lake: str) -> None:
    result = grist(lake, "--set", "recipe.gopher_quality=null", "-n", "0")
    assert result.exit_code == 0, result.output
    again = fates(result.output)
    assert again["gopher_quality.too_few_words"] == ["1", "0", "-1"] and again["kept"] == ["3", "3"]
    assert again["passes"] == ["the", "filters", "0", "1", "+1"] and "miller" not in result.output


def test_nothing_changes_and_says_so(lake: str) -> None:
    result = grist(lake, "--set", "recipe.gopher_quality.min_words=50")
    assert result.exit_code == 0 and "  none\n" in result.output
    assert {tuple(cells[:2]) for cells in fates(result.output).values()} == {("1", "1"), ("3", "3")}


def test_as_json_it_has_all_that_is_drawn(lake: str) -> None:
    result = grist(lake, "--set", "recipe.gopher_quality.min_words=100", "--json")
    answer = json.loads(result.stdout)
    assert ["gopher_quality.too_few_words", 1, 3] in answer["verdicts"] and ["kept", 3, 1] in answer["verdicts"]
    (change,) = answer["changes"]
    assert change["records"] == 2 and {example["value"] for example in change["examples"]} == {60}


def test_what_cannot_be_replayed_ends_with_exit_code_2_and_every_reason(lake: str, tmp_path: Path) -> None:
    result = grist(lake, "--set", "recipe.gopher_quality.stop_words=[a]", "--set", "recipe.dataset=x")
    assert result.exit_code == 2 and "stored measures say nothing of it" in result.output
    assert "only settings of the filters are replayed" in result.output
    assert grist(str(tmp_path / "none"), "--set", "recipe.gopher_quality=null").exit_code != 0
