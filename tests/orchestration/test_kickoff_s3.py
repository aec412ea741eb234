"""A kickoff whose lake is on S3: killed in its first nodes and in a training, it leaves no process and comes to the
digests of one in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import waiting
from kickoffs import digests, write_whole
from typer.testing import CliRunner

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.orchestration.cli.main import app


def command(config: Path, lake: str) -> list[str]:
    kickoff = [sys.executable, "-m", "gristmill.orchestration.cli.main", "kickoff", str(config), "--json"]
    return [*kickoff, "--lake", lake]


def environment() -> dict[str, str]:
    """By the one variable that a user sets (docs/cluster.md), instead of the one for S3 alone."""
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return kept | {"AWS_ENDPOINT_URL": kept.pop("AWS_ENDPOINT_URL_S3")}


def killed(config: Path, lake: str, prefix: str, part: str) -> None:
    """A kickoff that is killed when the lake has a file below `prefix` with this in its key. All that it started ends,
    which is waited for."""
    process = subprocess.Popen(command(config, lake), stdout=subprocess.DEVNULL, env=environment())
    store = open_store(lake)
    waiting.until(lambda: any(part in info.key for info in store.list(prefix)), part, by=process, pause=0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert process.wait() == -signal.SIGKILL and family
    psutil.wait_procs(family)


def test_a_kickoff_on_s3_that_is_killed_comes_to_the_digests_of_one_in_a_folder(s3_lake, tmp_path, monkeypatch):
    config, here = write_whole(tmp_path), str(tmp_path / "lake")
    killed(config, s3_lake, "receipts/", ".json")  # two nodes run side by side
    killed(config, s3_lake, "runs/", "/checkpoints/")
    assert digests(s3_lake).keys() == {"sums", "names", "asked", "bpe", "mix"}
    finished = subprocess.run(command(config, s3_lake), capture_output=True, text=True, env=environment())
    assert finished.returncode == 0, finished.stderr
    ends = {end["node"]: end["state"] for end in json.loads(finished.stdout)["nodes"]}
    assert ends == dict.fromkeys(ends, "there") | {"train": "made", "evaluation": "made"}
    page = Path(json.loads(finished.stdout)["report"]).read_text()
    assert "small.pretrain@v1" in page and "eval@v1" in page
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    alone = CliRunner().invoke(app, [*command(config, here)[3:], "--set", "run.nodes=0"])  # all nodes in this process
    assert alone.exit_code == 0, alone.output
    assert digests(s3_lake) == digests(here) and verify(open_store(s3_lake), deep=True) == []
    assert {name: len(versions) for name, versions in digests(s3_lake).items()} == dict.fromkeys(digests(here), 1)
