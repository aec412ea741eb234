"""A kickoff whose lake is on S3: killed in the middle of a training, it comes to the digests of one in a folder."""

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

from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify


def command(config: Path, lake: str) -> list[str]:
    kickoff = [sys.executable, "-m", "gristmill.orchestration.cli.main", "kickoff", str(config), "--json"]
    return [*kickoff, "--lake", lake]


def environment() -> dict[str, str]:
    """By the one variable that a user sets (docs/cluster.md), instead of the one for S3 alone."""
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return kept | {"AWS_ENDPOINT_URL": kept.pop("AWS_ENDPOINT_URL_S3")}


def test_a_kickoff_on_s3_that_is_killed_comes_to_the_digests_of_one_in_a_folder(s3_lake, tmp_path):
    config, here = write_whole(tmp_path), str(tmp_path / "lake")
    process = subprocess.Popen(command(config, s3_lake), stdout=subprocess.DEVNULL, env=environment())
    store = open_store(s3_lake)
    waiting.until(
        lambda: any("/checkpoints/" in info.key for info in store.list("runs/")), "a checkpoint", by=process, pause=0.2
    )
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert process.wait() == -signal.SIGKILL and family
    psutil.wait_procs(family)
    assert digests(s3_lake).keys() == {"sums", "names", "asked", "bpe", "mix"}
    finished = subprocess.run(command(config, s3_lake), capture_output=True, text=True, env=environment())
    assert finished.returncode == 0, finished.stderr
    ends = {end["node"]: end["state"] for end in json.loads(finished.stdout)["nodes"]}
    assert ends == dict.fromkeys(ends, "there") | {"train": "made", "evaluation": "made"}
    page = Path(json.loads(finished.stdout)["report"]).read_text()
    assert "small.pretrain@v1" in page and "eval@v1" in page
    in_one = [*command(config, here), "--set", "run.nodes=0"]  # all nodes in one process, for seconds of imports
    alone = subprocess.run(in_one, capture_output=True, text=True, env=environment())
    assert alone.returncode == 0, alone.stderr
    assert digests(s3_lake) == digests(here) and verify(store, deep=True) == []
