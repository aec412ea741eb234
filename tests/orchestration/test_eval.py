"""`grist eval`, and how scores and comparisons are shown."""

from __future__ import annotations

import json
from typing import Any

import evaluations
import pytest
from typer.testing import CliRunner, Result

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app

SMALL = ("--set", "recipe.generate={max_tokens: 4, context: 512}", "--set", "run.max_num_seqs=4")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("eval")
    store = open_store(str(folder / "lake"))
    evaluations.lake(store, folder)
    evaluations.model(store, folder / "other", "other", seed=1)
    return store


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def grist(lake: Store, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*args, "--lake", lake.uri])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def evaluated(lake: Store) -> list[dict[str, Any]]:
    """Two models on the same data: eval@v1, eval@v2."""
    data = ("--on", "math@v1", "--on", "web@v1")
    models = ("base@v1", "other@v1")
    return [json.loads(grist(lake, "eval", model, *data, *SMALL).stdout.splitlines()[-1]) for model in models]


def test_the_last_line_is_the_result(evaluated):
    assert [(result["dataset"], result["version"], result["in"], result["kept"]) for result in evaluated] == [
        ("eval", 1, 52, 52),
        ("eval", 2, 52, 52),
    ]


def test_show_draws_the_scores_with_their_intervals_and_what_to_know(lake, evaluated):
    shown = grist(lake, "show", "eval@v1").stdout
    manifest = json.loads(grist(lake, "show", "eval@v1", "--json").stdout)
    score = next(s for s in manifest["statistics"]["scores"] if s["metric"] == "nats_per_token")
    (line,) = [line.split() for line in shown.splitlines() if "nats_per_token" in line]
    assert line == [
        "perplexity", "nats_per_token", "all", f"{score['value']:.3f}",
        f"{score['low']:.3f}", "to", f"{score['high']:.3f}", "40",
    ]  # fmt: skip
    assert "exact" in shown and "caution: exact: 12 items, fewer than 200" in shown
    assert "base@v1 (evaluated), math@v1 (on), web@v1 (on)" in " ".join(shown.split())
    assert "nats_per_token" in grist(lake, "stats", "eval").stdout


def test_diff_of_two_models_is_item_by_item(lake, evaluated):
    shown = grist(lake, "diff", "eval@v1", "eval@v2").stdout
    assert shown.startswith("eval@v1 (base@v1) to eval@v2 (other@v1): 52 items")
    data = json.loads(grist(lake, "diff", "eval@v1", "eval@v2", "--json").stdout)
    bits = next(d for d in data["differences"] if d["metric"] == "bits_per_byte")
    assert (bits["items"], bits["p_value"], bits["became_right"]) == (40, None, None)
    assert bits["low"] <= bits["after"] - bits["before"] <= bits["high"]
    (line,) = [line.split() for line in shown.splitlines() if "bits_per_byte" in line]
    assert line[3:6] == [f"{bits['before']:.3f}", f"{bits['after']:.3f}", f"{bits['after'] - bits['before']:+.3f}"]


def test_diff_of_evaluations_of_other_data_says_so(lake, evaluated):
    grist(lake, "eval", "base@v1", "--on", "tools@v1", "--name", "tools-eval", *SMALL)
    result = grist(lake, "diff", "eval@v1", "tools-eval@v1", code=2)
    assert "cannot be compared: their data is math@v1, web@v1 and tools@v1" in result.stderr


def test_diff_of_an_evaluation_and_something_else_is_that_of_versions(lake, evaluated):
    assert "different content" in grist(lake, "diff", "eval@v1", "math@v1").stdout


def test_sample_prints_an_answer_and_lineage_goes_down_to_the_data(lake, evaluated):
    drawn = json.loads(grist(lake, "sample", "eval@v1", "-n", "52", "--json").stdout)["samples"]
    answers = [record["text"] for record in drawn if record["fields"]["task"] == "exact"]
    assert len(answers) == 12 and all(isinstance(answer, str) for answer in answers)
    scored = [record for record in drawn if record["fields"]["task"] == "perplexity"]
    assert {record["why_no_text"] for record in scored} == {"this record has no `answer`"}
    lineage = grist(lake, "lineage", "eval@v1").stdout
    assert "evaluated base@v1" in lineage and "on math@v1" in lineage and "math.jsonl" in lineage


def test_a_plan_and_a_preview(lake):
    plan = json.loads(
        grist(lake, "eval", "base@v1", "--on", "math@v1", "--plan", "--name", "p").stdout.splitlines()[-1]
    )
    assert plan["plan"] == [{"stage": "evaluate", "done": 0, "todo": 1}]
    short = grist(lake, "eval", "base@v1", "--on", "math@v1", "--name", "p", "--limit", "2", *SMALL)
    assert json.loads(short.stdout.splitlines()[-1])["dataset"] == "p.limit"


def test_what_is_asked_wrongly_is_one_line(lake):
    result = grist(lake, "eval", "nobody@v1", "--on", "math@v1", code=2)
    assert result.stderr.startswith("error: recipe.model: ") and "nobody" in result.stderr
    result = grist(lake, "eval", "base@v1", "--on", "math@v1", "--set", "recipe.on=[x]", code=2)
    assert "recipe.on: unknown key; allowed here:" in result.stderr
