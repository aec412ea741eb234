"""The command `grist` on samples, tokenizers and mixtures: what people see, and clear errors where there is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mixtures
import pytest
import webdataset
from typer.testing import CliRunner, Result

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.orchestration.cli.main import app


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("mixed")
    store = open_store(str(folder / "lake"))
    mixtures.documents(store, "web", mixtures.texts(60))
    mixtures.samples(store, folder, "math", [mixtures.word_problem(i) for i in range(50)], form="pair")
    mixtures.tokenizer(store, "web@v1", "math@v1")
    mixtures.mix(store, {"web@v1": 0.7, "math@v1": 0.3}, tokens=6_000)
    return store


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def grist(lake: Store, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*args, "--lake", lake.uri])
    assert result.exit_code == code, result.output
    return result


def test_show_says_planned_against_drawn(lake):
    shown = grist(lake, "show", "mix").stdout
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("  web@v1 ")]
    manifest = json.loads(grist(lake, "show", "mix", "--json").stdout)
    fact = next(entry for entry in manifest["statistics"]["mixture"] if entry["source"] == "web@v1")
    assert line[:4] == ["web@v1", "70.0%", f"{fact['planned']:,}", f"{fact['drawn']:,}"]
    assert "empty places" in shown and "none cut" in shown
    assert "Mixture" in grist(lake, "stats", "mix").stdout


def test_a_field_of_a_schema_is_shown_once_whatever_lies_within_it(lake):
    shown = " ".join(grist(lake, "show", "math").stdout.split())
    assert "parts: list<item: struct<length: int32, special: bool, learn: bool>>, date: string" in shown
    assert "child 0" not in shown


def test_sample_marks_what_is_learned(lake):
    shown = grist(lake, "sample", "mix", "-n", "2", "--source", "math@v1", "--full").stdout
    assert shown.count("<|assistant|>«") == 2 and shown.count("<|end|>»<|endoftext|>") == 2 and "web@v1" not in shown
    drawn = json.loads(grist(lake, "sample", "mix", "-n", "3", "--json").stdout)
    assert {stretch["source"] for stretch in drawn["stretches"]} == {"web@v1", "math@v1"} and len(
        drawn["stretches"]
    ) == 6
    assert "<|assistant|>«" in grist(lake, "sample", "math", "-n", "1").stdout


def test_why_says_how_often_a_record_was_drawn(lake):
    (stretch,) = json.loads(grist(lake, "sample", "mix", "-n", "1", "--source", "math@v1", "--json").stdout)[
        "stretches"
    ]
    history = grist(lake, "why", stretch["id"], "--dataset", "mix").stdout
    assert "math@v1 shard 0, record" in history and "kept  drawn" in history and "bytes" not in history


def test_a_checkout_is_plain_webdataset(lake, tmp_path: Path):
    grist(lake, "checkout", "mix@v1", str(tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", "mix-00000.index.parquet", "mix-00000.tar"]
    windows = list(webdataset.WebDataset(str(tmp_path / "out" / "mix-00000.tar"), shardshuffle=False).decode())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(windows) == manifest["statistics"]["windows"]
    assert sum(len(window["input_ids.npy"]) for window in windows) == manifest["statistics"]["tokens"]
    grist(lake, "checkout", "bpe@v1", str(tmp_path / "tokenizer"))
    assert "model" in json.loads((tmp_path / "tokenizer" / "bpe-00000.tokenizer.json").read_text())


def test_a_tokenizer_is_taken_in_as_it_is(lake, tmp_path: Path):
    grist(lake, "checkout", "bpe@v1", str(tmp_path / "out"))
    file = str(tmp_path / "out" / "bpe-00000.tokenizer.json")
    result = json.loads(grist(lake, "tokenizer", "add", file, "--name", "taken").stdout.splitlines()[-1])
    again = json.loads(grist(lake, "tokenizer", "add", file, "--name", "taken").stdout.splitlines()[-1])
    assert result["new"] and not again["new"] and result["digest"] == json.loads(
        grist(lake, "show", "bpe", "--json").stdout
    )["digest"]  # fmt: skip
    (tmp_path / "bad.json").write_text('{"model": 7}')
    wrong = grist(lake, "tokenizer", "add", str(tmp_path / "bad.json"), code=2)
    assert "recipe.file" in wrong.stderr and "bad.json" in wrong.stderr
    assert "recipe.file" in grist(lake, "tokenizer", "add", "nowhere.json", code=2).stderr


def test_lineage_goes_down_to_the_files(lake):
    shown = grist(lake, "lineage", "mix").stdout
    assert "mixed math@v1" in shown and "math.jsonl" in shown and "tokenizer bpe@v1" in shown and "trained_on" in shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sample", "bpe"], "bpe@v1 holds no records, but a tokenizer"),
        (["sample", "mix", "--source", "code@v1"], "mix@v1 has no source 'code@v1'; it has math@v1, web@v1"),
        (["similar", "mix", "README.md"], "mix@v1 has no signatures"),
    ],
)
def test_where_there_is_nothing_to_see(lake, args, message):
    assert message in grist(lake, *args, code=1).stderr


def test_dropped_records_say_where_their_text_is(lake):
    shown = grist(lake, "sample", "mix", "--fate", "dropped", "-n", "1").stdout
    assert "mix.not_drawn" in shown and "its text is in the version that the mixture was made from" in shown
