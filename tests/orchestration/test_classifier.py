"""`grist classifier train | apply | eval`: what they print, and how they end."""

from __future__ import annotations

import json

import classifiers
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app


def grist(lake, *args, code=0):
    result = CliRunner().invoke(app, ["classifier", *(str(arg) for arg in args), "--lake", lake])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A lake with quality@v1, and the folder that its files lie in."""
    folder = tmp_path_factory.mktemp("classifier")
    lake = str(folder / "lake")
    open_store(lake)
    files = [
        classifiers.lines_file(folder / f"{label}.jsonl", classifiers.texts(label, 60))
        for label in ("positive", "negative")
    ]
    sides = ("--positive", files[0], "--negative", files[1])
    done = grist(lake, "train", *sides, "--name", "quality", "--set", "recipe.train.fast_text.min_count=1")
    assert json.loads(done.stdout.splitlines()[-1])["dataset"] == "quality"
    return lake, folder


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def test_show_says_what_it_was_trained_on(trained):
    shown = CliRunner().invoke(app, ["show", "quality", "--lake", trained[0]]).output
    assert "a classifier" in shown and "trained on" in shown and "within length quintiles" in shown


def test_scores_are_lines_of_json_or_parquet(trained):
    lake, folder = trained
    texts = classifiers.lines_file(
        folder / "mixed.jsonl", [classifiers.texts(label, 1, 7)[0] for label in classifiers.LABELS]
    )
    lines = [json.loads(line) for line in grist(lake, "apply", "quality@v1", texts).stdout.splitlines()]
    assert [line["id"] for line in lines] == [f"{texts}:0", f"{texts}:1"]
    assert lines[0]["score"] > 0.9 > 0.1 > lines[1]["score"]
    out = folder / "scores.parquet"
    assert grist(lake, "apply", "quality@v1", texts, "--out", out).stdout == ""
    assert pq.read_table(out)["score"].to_pylist() == [line["score"] for line in lines]
    by_file = grist(lake, "apply", classifiers.model_path(), texts, "--label", "negative").stdout.splitlines()
    assert json.loads(by_file[0])["score"] < 0.1


def test_eval_ranks_what_is_labelled(trained):
    lake, folder = trained
    rows = [(label, text) for label in classifiers.LABELS for text in classifiers.texts(label, 30, 8)]
    labelled = folder / "labelled.jsonl"
    labelled.write_text(
        "".join(json.dumps({"text": text, "label": label == "positive"}) + "\n" for label, text in rows)
    )
    report = json.loads(grist(lake, "eval", "quality@v1", "--labelled", labelled, "--json").stdout)
    assert (report["positives"], report["negatives"], report["unscored"]) == (30, 30, 0)
    assert report["auc"]["value"] == 1 and report["auc_over_length"]["low"] > 0
    assert report["thresholds"][0]["recall"]["value"] == 1
    sides = [
        classifiers.lines_file(folder / f"{name}8.jsonl", classifiers.texts(name, 30, 8)) for name in classifiers.LABELS
    ]
    other = json.loads(
        grist(lake, "eval", "quality@v1", "--positive", sides[0], "--negative", sides[1], "--json").stdout
    )
    assert other["auc"] == report["auc"]
    assert "area under the curve" in grist(lake, "eval", "quality@v1", "--labelled", labelled).stdout


@pytest.mark.parametrize(
    ("row", "error"),
    [({"text": "a", "label": "maybe"}, "line 1: 'label' is 'maybe'"), ({"label": 1}, "no text in its field 'text'")],
)
def test_rows_without_a_label_or_a_text(trained, tmp_path, row, error):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert error in grist(trained[0], "eval", "quality@v1", "--labelled", path, code=2).output


def test_labels_of_one_kind_are_no_ranking(trained, tmp_path):
    path = classifiers.lines_file(tmp_path / "ones.jsonl", classifiers.texts("positive", 3), label=1)
    assert "3 of 3 items are positive" in grist(trained[0], "eval", "quality@v1", "--labelled", path, code=2).output


def test_what_is_no_classifier(trained, tmp_path):
    grist(trained[0], "apply", "quality@v9", "x.jsonl", code=1)
    (tmp_path / "x.bin").write_text("no model")
    assert "no fastText model" in grist(trained[0], "apply", tmp_path / "x.bin", "x.jsonl", code=2).output
    grist(trained[0], "train", "--positive", "nowhere.jsonl", "--negative", "nowhere.jsonl", code=2)
