"""A run that is killed at any step on disk, or told to stop: the same command ends with the same content digest.

kill -9 of a driver, of a worker and of everything at once, while Ray runs: tests/soak.py. `make soak` does both longer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import image_nights
import pytest
import reasoning_nights
import speech_nights
import web
from waiting import PATIENCE, until

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines import command

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def digest(sample, tmp_path_factory) -> str:
    return web.run(tmp_path_factory.mktemp("whole"), web.crawl_files(sample)).manifest.digest


def crashes(*arguments: object) -> list[dict[str, Any]]:
    """What became of runs that were killed and resumed (tests/crash_driver.py)."""
    driver = [sys.executable, str(Path(__file__).with_name("crash_driver.py")), *map(str, arguments)]
    run = subprocess.run(driver, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == 0, run.stdout + run.stderr
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert sum(o["killed"] == -signal.SIGKILL for o in outcomes) >= len(outcomes) - 1
    assert [o for o in outcomes if o["resumed"] != 0 or not o["same"]] == []
    return outcomes


def test_a_kill_before_any_step_on_disk_is_resumed_to_the_same_digest(sample, tmp_path):
    outcomes = crashes("web", "--sample", sample, "--folder", tmp_path, "--points", 4)
    assert sum(o["in_commit"] for o in outcomes) >= 4 and len(outcomes) >= 8
    for outcome in outcomes:  # half a version is never visible: none, or the whole one
        assert outcome["visible_after_crash"] in (None, [], [[1, _digest(tmp_path)]])


def test_images_and_a_mixture_of_them_are_resumed_to_the_same_digests(tmp_path):
    """Records, copies, an increment, a tokenizer and windows: each is whole, or not there."""
    outcomes = crashes("images", "--folder", tmp_path, "--points", 4)
    versions = Versions(open_store(str(tmp_path / "whole"), probe=False))
    whole = [[m.version, m.digest] for name in image_nights.DATASETS for m in versions.manifests(name)]
    assert len(whole) == 4 and len({len(o["visible_after_crash"] or ()) for o in outcomes}) > 1
    assert all(o["visible_after_crash"] in [whole[:n] for n in range(5)] for o in outcomes if o["killed"])


def test_speech_is_resumed_to_the_same_digests(tmp_path):
    """Clips, segments of a manifest, copies over two nights, files that are cut in their pauses, and windows."""
    outcomes = crashes("speech", "--folder", tmp_path, "--points", 3)
    versions = Versions(open_store(str(tmp_path / "whole"), probe=False))
    whole = [[m.version, m.digest] for name in speech_nights.DATASETS for m in versions.manifests(name)]
    assert len(whole) == 5
    assert all(o["visible_after_crash"] in [whole[:n] for n in range(6)] for o in outcomes if o["killed"])


def test_reasoning_is_resumed_to_the_same_digests(tmp_path):
    """Samples in waves, verdicts, selected chains and pairs, an increment, and windows; a model is taught first."""
    outcomes = crashes("reasoning", "--folder", tmp_path, "--points", 2)
    versions = Versions(open_store(str(tmp_path / "whole"), probe=False))
    names = reasoning_nights.DATASETS
    whole = {name: [[m.version, m.digest] for m in versions.manifests(name)] for name in names}
    assert [len(whole[name]) for name in names] == [2, 2, 2, 1]
    every = [version for name in names for version in whole[name]]
    assert all(version in every for o in outcomes for version in o["visible_after_crash"] or ())


def _digest(folder: Path) -> str:
    return Versions(open_store(str(folder / "whole"), probe=False)).manifest("web", 1).digest


def start(lake: Path, sample: Path) -> subprocess.Popen[str]:
    settings = ["recipe.max_quarantine_rate=0.2", f"recipe.scan.chunk_bytes={web.CHUNK}"]
    settings += ["recipe.shards.target_bytes=100000", f"recipe.inputs=[{sample}/crawl/*]"]
    command = [sys.executable, "-m", "pipelines", "run", "conf/web.yaml", "--lake", str(lake)]
    return subprocess.Popen(
        [*command, *(part for setting in settings for part in ("--set", setting))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )


def receipts(lake: Path) -> int:
    return sum(1 for _ in (lake / "receipts").rglob("*.json"))


def finish(run: subprocess.Popen[str]) -> dict[str, object]:
    out, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def test_sigterm_ends_a_run_as_incomplete_and_the_same_command_finishes_it(sample, tmp_path, digest):
    lake = tmp_path / "lake"
    run = start(lake, sample)
    until(lambda: receipts(lake) >= 3, "the first receipts", by=run)
    run.terminate()
    out, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, out) == (5, "") and "interrupted; what is done is kept" in err
    assert finish(start(lake, sample))["digest"] == digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("error", [SystemError("returned a result with an exception set"), OSError("interrupted call")])
def test_an_interrupt_that_a_library_turns_into_its_own_error_is_an_interrupt(monkeypatch, capsys, number, error):
    def library(*arguments: Any) -> None:
        try:
            os.kill(os.getpid(), number)
            os.getpid()  # a signal is taken between two steps of Python
        except KeyboardInterrupt:
            raise error from None

    before = [(each, signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    monkeypatch.setattr(command, "run_pipeline", library)
    monkeypatch.setattr(command, "open_lake", lambda uri: None)
    try:
        code = command.run(command.Request({"pipeline": "web", "recipe": {"inputs": ["x"]}}, lake="/lake"))
    finally:
        for each, handler in before:
            signal.signal(each, handler)
    assert code == 5 and capsys.readouterr().err == (
        "error: interrupted; what is done is kept: run the same command again\n"
    )
