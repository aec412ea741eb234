"""`python -m pipelines run`: exit codes, one JSON object as the last line of stdout, and what is said when it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from waiting import PATIENCE

from gristmill.lake.inputs.sources import open_input
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import CommitConflict, Versions
from gristmill.pipelines.command import main

ROOT = Path(__file__).parents[2]
CONF = str(ROOT / "conf" / "web.yaml")
INPUT = ROOT / "tests" / "golden" / "input"
KEYS = ["dataset", "version", "digest", "in", "kept", "dropped", "quarantined", "new"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, object]:
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def grist(tmp_path, capfd, monkeypatch):
    """The command over the golden input, in this process, without Ray."""
    monkeypatch.delenv("GRIST_LAKE", raising=False)

    def run(*more: str, inputs: object = f"{INPUT}/*", rate: float = 0.5, lake: str | None = None) -> Answer:
        fixed = [f"recipe.inputs=[{inputs}]", "run.workers=0", f"recipe.max_quarantine_rate={rate}"]
        options = [word for setting in fixed for word in ("--set", setting)]
        code = main(["run", CONF, "--lake", lake or str(tmp_path / "lake"), *options, *more])
        return Answer(code, *capfd.readouterr())

    return run


def versions(tmp_path: Path) -> Versions:
    return Versions(open_store(str(tmp_path / "lake"), probe=False))


def test_done_and_already_done_are_0_and_the_last_line_is_the_result(grist, tmp_path, caplog):
    first, again = grist(), grist()
    assert (first.code, again.code) == (0, 0)
    assert list(first.result) == KEYS and first.result | {"new": False} == again.result
    committed = versions(tmp_path).manifest("web", 1)
    assert first.result == {
        "dataset": "web", "version": 1, "digest": committed.digest,
        "in": 26, "kept": 6, "dropped": 18, "quarantined": 2, "new": True,
    }  # fmt: skip
    assert len(first.out.splitlines()) == 1  # everything else is on stderr
    assert "web@v1 was made by this very run before" in caplog.text
    assert versions(tmp_path).numbers("web") == [1]


def test_a_limit_commits_to_a_dataset_of_its_own(grist, tmp_path):
    answer = grist("--limit", "3")
    assert answer.code == 0 and (answer.result["dataset"], answer.result["in"]) == ("web.limit", 3)
    assert versions(tmp_path).names() == ["web.limit"]


def test_a_plan_is_json_and_commits_nothing(grist, tmp_path):
    answer = grist("--plan")
    assert answer.code == 0 and answer.result == {"plan": [{"stage": "scan", "done": 0, "todo": 4}]}
    assert "pages.warc" in answer.err and "planned when it is done" in answer.err
    store = versions(tmp_path).store
    assert [info.key for info in store.list("") if not info.key.startswith("runs/")] == ["lake.json"]

    grist()
    answer = grist("--plan", "--set", "recipe.gopher_quality.min_words=10")
    assert answer.result == {
        "plan": [
            {"stage": "scan", "done": 4, "todo": 0},
            {"stage": "extract", "done": 4, "todo": 0},
            {"stage": "screen", "done": 0, "todo": 4},
        ]
    }
    assert versions(tmp_path).numbers("web") == [1]


def test_a_plan_with_nothing_left_but_the_commit_does_not_commit(grist, tmp_path):
    grist()
    slot = "datasets/web/versions/00000001.json"
    versions(tmp_path).store.delete(slot)  # as if killed just before the commit: all work is done
    answer = grist("--plan")
    assert answer.code == 0 and answer.result["plan"][-1] == {"stage": "commit", "done": 0, "todo": 1}
    assert versions(tmp_path).numbers("web") == []


def test_a_plan_of_what_is_done_says_so(grist):
    done = grist()
    plan = grist("--plan")
    assert plan.code == 0 and plan.result == done.result | {"new": False}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--set", "recipe.gopher_quality.min_word=3"],
            r"error: recipe\.gopher_quality\.min_word: unknown key; allowed",
        ),
        (["--set", "recipe.limit"], "error: --set 'recipe.limit': expected a.b=value"),
        (["--set", "recipe.dataset=Web"], "error: recipe.dataset: dataset name 'Web'"),
        (["--set", "recipe.language.keep=[en, xx]"], r"error: recipe\.language: language\.keep has \['xx'\]"),
        (["--set", "recipe.language.model_path=/none"], "error: recipe.language: language model '/none', named by the"),
        (["--set", "recipe.inputs=[]"], "error: recipe.inputs is empty: give paths or patterns"),
        (["--set", "recipe.inputs=[/no/such/*.gz]"], "error: recipe.inputs: input '/no/such/.*' matches no file"),
        (["--set", "recipe.inputs=['ftp://x/y']"], "error: recipe.inputs: input 'ftp://x/y': .*allowed are"),
        (["--limit", "0"], "error: recipe.limit: "),
        (["--lake", "ftp://x"], "error: the lake 'ftp://x' cannot be opened: .*allowed are an absolute folder"),
        (["--lake", "/dev/null/lake"], "error: the lake '/dev/null/lake' cannot be opened: .*Not a directory"),
    ],
)
def test_a_bad_config_is_2_says_why_and_leaves_nothing(grist, tmp_path, more, message):
    answer = grist(*more)
    assert answer.code == 2 and answer.out == ""
    line = answer.err.splitlines()[-1]
    assert re.match(message, line), line
    assert not (tmp_path / "lake" / "datasets").exists()


def test_an_input_whose_name_is_not_utf_8_is_a_bad_config(grist, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(b'{"text": "a"}\n')
    answer = grist(inputs=f"{folder}/*")
    assert answer.code == 2 and "name is not UTF-8; rename it" in answer.err


def test_a_missing_config_file_and_a_lake_of_another_format_are_2(capfd, tmp_path):
    assert main(["run", str(tmp_path / "none.yaml"), "--lake", str(tmp_path)]) == 2
    assert "none.yaml: there is no such file" in capfd.readouterr().err
    (tmp_path / "lake.json").write_text('{"format": 99, "lake": "gristmill"}')
    assert main(["run", CONF, "--lake", str(tmp_path), "--set", "run.workers=0"]) == 2
    assert "has format 99; this version of gristmill reads format 1" in capfd.readouterr().err


def test_arguments_that_are_none_are_2(capfd):
    for argv in ([], ["run"], ["walk", CONF], ["run", CONF, "--limit", "many"]):
        with pytest.raises(SystemExit) as exit_:
            main(argv)
        assert exit_.value.code == 2
    assert "usage: python -m pipelines" in capfd.readouterr().err


def test_a_gate_is_3_and_commits_nothing(grist, tmp_path):
    answer = grist(rate=0.05)
    assert answer.code == 3 and answer.out == ""
    assert "2 of 26 records are quarantined (7.7%), more than recipe.max_quarantine_rate=5.0%" in answer.err
    assert versions(tmp_path).names() == []
    assert grist(rate=0.1).code == 0


def test_a_conflict_is_4(grist, monkeypatch):
    def lost(*args: object, **more: object) -> None:
        raise CommitConflict("web: expected v1 to be the latest, but v2 is there already")

    monkeypatch.setattr(Versions, "commit", lost)
    answer = grist()
    assert answer.code == 4 and answer.out == "" and "v2 is there already" in answer.err


def test_a_full_disk_under_the_driver_is_5_and_the_same_command_finishes(grist, monkeypatch):
    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Versions, "commit", full)
        answer = grist()
    assert answer.code == 5 and answer.out == "" and "No space left on device; what is done is kept" in answer.err
    assert grist().code == 0


def test_incomplete_is_5_and_the_same_command_goes_on(grist, tmp_path, monkeypatch):
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    (crawl / "good.warc").write_bytes((INPUT / "pages.warc").read_bytes())
    (crawl / "far.jsonl").write_bytes((INPUT / "lines.jsonl").read_bytes())

    def flaky(uri, offset=0):
        if uri.endswith("far.jsonl"):
            raise OSError("connection reset")
        return open_input(uri, offset)

    with monkeypatch.context() as patch:
        patch.setattr("gristmill.stages.read.scan.open_input", flaky)
        answer = grist(inputs=f"{crawl}/*")
    assert answer.code == 5 and answer.out == ""
    assert "scan: 1 of 2 pieces of work failed" in answer.err and "far.jsonl: OSError: connection reset" in answer.err
    assert "run the same command again" in answer.err and versions(tmp_path).names() == []
    assert grist(inputs=f"{crawl}/*").code == 0


def test_a_file_that_is_no_crawl_is_2_because_no_rerun_will_help(grist, tmp_path):
    (tmp_path / "odd.txt").write_text("just some notes\n")
    answer = grist(inputs=f"{tmp_path}/odd.txt")
    assert answer.code == 2 and answer.out == ""
    assert "odd.txt" in answer.err and "allowed: WARC" in answer.err and "leave it out" in answer.err


def test_as_a_program_stdout_is_the_result_alone(tmp_path):
    command = [sys.executable, "-m", "pipelines", "run", CONF, "--lake", str(tmp_path / "lake")]
    settings = [f"recipe.inputs=[{INPUT}/lines.jsonl]", "run.workers=0", "recipe.max_quarantine_rate=1"]
    done = subprocess.run(
        [*command, *(word for setting in settings for word in ("--set", setting))],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == KEYS and "scan: 1 piece, 8 records, " in done.stderr
