"""The command `grist`: its answers as text and JSON, its exit codes, and what it does not import."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import web
from lake_builder import commit, pages
from rich.console import Console
from two_versions import BROKEN, SHORT, grist, two_versions
from typer.testing import CliRunner

from gristmill.lake.query.query import list_versions
from gristmill.lake.store.base import Store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.keep import seconds
from gristmill.orchestration.cli.main import app
from gristmill.orchestration.show import tables as show
from gristmill.orchestration.show.records import version_ranges
from gristmill.orchestration.show.terminal import exit_code, plain


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    return two_versions(tmp_path)


@pytest.fixture(autouse=True)
def no_lake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def ask(lake: Store, *args: str) -> Any:
    """The JSON document that the command prints, which has to be all of stdout."""
    result = grist(*args, "--json", lake=lake)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


QUICK = [
    ["ls"],
    ["log", "web"],
    ["show", "web"],
    ["sample", "web"],
    ["sample", "web", "--fate", "dropped"],
    ["why", "https://example.org/2"],
    ["lineage", "web", "--record", "https://example.org/1"],
]
"""Which pandas alone would make half as slow again: pyarrow imports it for whatever it converts."""


def test_a_look_imports_nothing_heavy(lake: Store) -> None:
    code = (
        "import sys\nfrom gristmill.orchestration.cli.main import app\n"
        f"for words in {QUICK!r}: app([*words, '--lake', {lake.uri!r}], standalone_mode=False)\n"
        "print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0 and "web" in done.stdout, done.stderr
    loaded = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
    assert "gristmill" in loaded
    assert not loaded & {"ray", "prefect", "torch", "pandas", "spacy", "boto3", "datatrove", "scipy"}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["ls"], ["web", "v2", "19"]),
        (["ls", "web"], ["v1", "v2"]),
        (["log", "web"], ["2026-11-22 10:00", "aaaaaaaa"]),
        (["show", "web@v1"], ["20 in = 18 kept + 1 dropped", "too_few_words", "5.3%", "unreadable (quarantined)", "█"]),
        (["stats", "web"], ["Languages", "from 1,000"]),
        (["lineage", "web"], ["web@v2", "crawl/a.warc.gz"]),
        (["why", SHORT.url], ["v1", "dropped", "quality.too_few_words value 12", "v2", "kept"]),
        (["diff", "web@v1", "web@v2"], ["quality.min_words", "too_few_words -> kept", SHORT.id]),
        (["sample", "web@v1", "--reason", "quality.too_few_words"], [SHORT.id, "The text of", "--full"]),
        (["verify", "--deep"], ["nothing is wrong"]),
        (["gc"], ["nothing to collect"]),
    ],
)
@pytest.mark.parametrize("columns", ["80", "120"])
def test_answers_for_people_fit_the_terminal(
    lake: Store, args: list[str], expected: list[str], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = grist(*args, lake=lake)
    assert result.exit_code == 0, result.output
    for text in expected:
        assert text in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    assert "…" not in result.stdout


def test_every_answer_is_one_json_document(lake: Store, tmp_path: Path) -> None:
    (dataset,) = ask(lake, "ls")
    assert (dataset["dataset"], dataset["latest"]["version"], dataset["latest"]["kept"]) == ("web", 2, 19)
    assert [row["version"] for row in ask(lake, "log", "web")] == [2, 1]
    shown = ask(lake, "show", "web@v1")
    assert shown["funnel"][1]["dropped"] == {"quality.too_few_words": 1} and shown["tags"] == []
    assert ask(lake, "stats", "web@v1")["statistics"]["languages"] == {"en": 2}
    graph = ask(lake, "lineage", "web")
    assert graph["version"] == "web@v2" and graph["nodes"][0]["inputs"][0]["records"] == 20 and graph["edges"] == []
    assert [s["fate"] for s in ask(lake, "why", SHORT.url)["stories"]] == ["dropped", "kept"]
    assert ask(lake, "diff", "web@v1", "web@v2")["kept"] == {"both": 18, "only_a": 0, "only_b": 1}
    assert len(ask(lake, "sample", "web", "-n", "3")["samples"]) == 3
    assert ask(lake, "tag", "web@v1", "paper") == {"dataset": "web", "version": 1, "tag": "paper"}
    assert ask(lake, "checkout", "web@paper", str(tmp_path / "out"))["written"] == 2
    assert ask(lake, "verify") == []
    assert ask(lake, "gc")["report"] is None
    assert ask(lake, "withdraw", "web@v2", "--reason", "asked to")["reason"] == "asked to"
    assert ask(lake, "ls")[0]["withdrawn"] == {"2": "asked to"}


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["show", "nope"], 1, "there is no dataset 'nope'"),
        (["show", "web@v9"], 1, "it has v1, v2"),
        (["log", "nope"], 1, "it has web"),
        (["why", "https://example.org/none#here"], 1, "normalised: https://example.org/none\n"),
        (["why", "example.org/2"], 1, "try https://"),
        (["why", "0123456789abcdef"], 1, "ids that begin with 0123456789abcdef"),
        (["sample", "web@v1", "--reason", "quality.nope"], 1, "has no record with reason"),
        (["sample", "web", "--fate", "lost"], 2, "kept, dropped, quarantined"),
        (["show", "Not A Name"], 2, "lower-case letters"),
        (["tag", "web", "paper"], 2, "name the exact version"),
        (["tag", "web@v1", "v7"], 2, "not like 'v3'"),
        (["gc", "--grace", "soon"], 2, "such as 24h"),
        (["bogus"], 2, "No such command"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(lake: Store, args: list[str], code: int, message: str) -> None:
    result = grist(*args, lake=lake)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


def test_without_a_lake_it_says_how_to_give_one(tmp_path: Path) -> None:
    missing = grist("ls")
    assert missing.exit_code == 2 and "GRIST_LAKE" in missing.stderr
    wrong = grist("ls", "--lake", str(tmp_path / "typo"))
    assert wrong.exit_code == 1 and "there is no lake at" in wrong.stderr
    assert not (tmp_path / "typo").exists()


def test_the_environment_names_the_lake(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIST_LAKE", lake.uri)
    assert "web" in grist("ls").stdout


def test_a_defect_keeps_its_traceback(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("gristmill.lake.query.query.list_datasets", broken)
    assert isinstance(grist("ls", lake=lake).exception, KeyError)
    assert exit_code(PermissionError("no")) == 1


def test_a_withdrawn_version_says_why_and_gives_nothing_out(lake: Store, tmp_path: Path) -> None:
    assert grist("withdraw", "web@v2", "--reason", "asked to", lake=lake).exit_code == 0
    assert "withdrawn: asked to" in grist("show", "web@v2", lake=lake).stdout
    assert "withdrawn: asked to" in grist("ls", lake=lake).stdout
    for args in (["sample", "web@v2"], ["checkout", "web@v2", str(tmp_path / "out")]):
        result = grist(*args, lake=lake)
        assert result.exit_code == 1 and "was withdrawn (asked to)" in result.stderr
        assert "`grist ls web` lists the versions that are" in result.stderr
    assert "withdrawn since: web@v2" in grist("why", SHORT.url, lake=lake).stdout


def test_damage_is_found_by_checkout_and_verify(lake: Store, tmp_path: Path) -> None:
    ref = Versions(lake).resolve("web@v1").shards[0]
    data = lake.get(ref.key)
    lake.put(ref.key, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    result = grist("checkout", "web@v1", str(tmp_path / "out"), lake=lake)
    assert result.exit_code == 1 and ref.sha256 in result.stderr
    findings = grist("verify", "--deep", "--json", lake=lake)
    assert findings.exit_code == 1
    assert [(f["where"], f["harmed"]) for f in json.loads(findings.stdout)] == [(ref.sha256, ["web@v1"])]


def test_gc_deletes_only_when_told_to(lake: Store) -> None:
    key = "objects/ab/" + "ab" * 32
    lake.put(key, b"nobody's")
    assert "would go" in grist("gc", "--grace", "0s", lake=lake).stdout
    assert lake.info(key) is not None
    assert grist("gc", "--grace", "0s", "--yes", lake=lake).exit_code == 0
    assert lake.info(key) is None
    assert grist("verify", "--deep", lake=lake).exit_code == 0


def test_run_has_the_pipelines_exit_codes(tmp_path: Path) -> None:
    config = tmp_path / "web.yaml"
    config.write_text("pipeline: web\nrecipe: {inputz: []}\n")
    result = grist("run", str(config), "--lake", str(tmp_path / "lake"))
    assert result.exit_code == 2 and "recipe.inputz: unknown key" in result.stderr
    config.write_text("pipeline: web\nrun: {workers: 0}\n")
    result = grist("run", str(config), "--lake", str(tmp_path / "lake"), "--set", "recipe.inputs=[nothing/*]")
    assert result.exit_code == 2 and "matches no file" in result.stderr


def test_run_prints_its_result_last(tmp_path: Path) -> None:
    config, rows = tmp_path / "web.yaml", tmp_path / "rows.jsonl"
    config.write_text("pipeline: web\nrecipe: {language: {keep: []}}\nrun: {workers: 0}\n")
    rows.write_text(json.dumps({"text": "too short", "url": "https://example.org/a"}) + "\n")
    args = ("run", str(config), "--lake", str(tmp_path / "lake"), "--set", f"recipe.inputs=[{rows}]")
    planned = grist(*args, "--plan")
    assert planned.exit_code == 0 and json.loads(planned.stdout.splitlines()[-1])["plan"][0]["todo"] == 1
    result = grist(*args)
    assert result.exit_code == 0, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert (last["dataset"], last["version"], last["in"], last["kept"], last["new"]) == ("web", 1, 1, 0, True)
    answer = grist("why", "https://example.org/a", "--lake", str(tmp_path / "lake"))
    assert "too_few_words" in answer.stdout


def test_text_of_a_document_cannot_drive_the_terminal() -> None:
    assert plain("a\x1b[2Jb\x9bc\r\n\td\u202e") == "a\\x1b[2Jb\\x9bc\\r\n\td\\u202e"


def test_brackets_in_data_are_no_markup(lake: Store) -> None:
    commit(lake, "odd", pages(2), file="[bold]:smile:.warc", recipe={"keep": ["[red]x[/red]"]})
    text = grist("show", "odd", lake=lake).stdout
    assert "[bold]:smile:.warc" in text and '["[red]x[/red]"]' in text


def test_a_record_in_several_datasets_is_told_once(lake: Store) -> None:
    commit(lake, "copy", pages(20, p2=SHORT, p5=BROKEN))
    lines = grist("why", SHORT.url, lake=lake).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["record", "crawl/a.warc.gz,", "copy", "web", "web"]


def test_log_has_one_line_a_version_where_there_is_room(lake: Store) -> None:
    rows = list_versions(Versions(lake), "web")
    for width, lines in ((120, 3), (80, 5)):
        console = Console(width=width, record=True, file=open(os.devnull, "w"), markup=False)  # noqa: SIM115
        show.draw_log(console, rows)
        assert len(console.export_text().splitlines()) == lines


@pytest.mark.parametrize(
    ("part", "whole", "drawn"), [(0, 9, ""), (1, 10**9, "▏"), (1, 2, "█████"), (9, 9, "█" * 10), (5, 0, "")]
)
def test_bars_never_hide_a_count(part: int, whole: int, drawn: str) -> None:
    assert show.bar(part, whole, 10) == drawn


def test_small_helpers() -> None:
    assert version_ranges([1, 2, 4, 7], [1, 2, 4, 5, 7]) == "v1-v4, v7"
    assert version_ranges([3], [3]) == "v3"
    assert (show.percent(1, 10**6), show.percent(0, 9), show.percent(1, 0)) == ("<0.1%", "0.0%", "-")
    assert (seconds("90s"), seconds("24h"), seconds("1.5d")) == (90, 86_400, 129_600)


def test_a_record_that_was_met_before_is_not_in_favour_of_itself(tmp_path):
    line = json.dumps({"url": "https://a.example/1", "id": "1", "text": "The same record, in a file and in its copy."})
    for name, first in (("one.jsonl", ""), ("two.jsonl", " ")):  # blanks: other bytes, the same record
        (tmp_path / name).write_text(first + line + "\n")
    plain = {"language": {"keep": [], "min_score": 0}, "gopher_quality": {"languages": ["xx"]}}
    web.run(tmp_path / "lake", [tmp_path / "one.jsonl", tmp_path / "two.jsonl"], **plain)
    answer = CliRunner().invoke(app, ["why", "https://a.example/1", "--lake", str(tmp_path / "lake")])
    assert answer.exit_code == 0, answer.output
    output = " ".join(answer.output.split())
    assert "exact.same_record met before (kept; " in output and "in favour of" not in output
