"""A cluster of several nodes: one dies in the middle of a run, and the version is the one that it would have been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import web
from waiting import PATIENCE

TESTS = Path(__file__).parent
RECEIPTS = 12
"""After so many the node is killed: in the middle of extraction."""


def test_a_node_that_dies_in_the_middle_changes_nothing(sample: Path, tmp_path: Path) -> None:
    """Longer than five seconds: three nodes are started, and the loss of one has to be noticed."""
    files = [str(file) for file in web.crawl_files(sample)]
    command = [sys.executable, TESTS / "cluster_driver.py", tmp_path / "lake", str(RECEIPTS), *files]
    paths = f"{TESTS}{os.pathsep}{TESTS.parent}"
    environment = {**os.environ, "PYTHONPATH": paths}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ran.returncode == 0, ran.stderr[-3000:]
    facts = json.loads(ran.stdout.splitlines()[-1])
    assert facts["nodes"] == 3 and facts["alive"] == 2
    assert RECEIPTS <= facts["at"] < facts["receipts"]
    alone = web.run(tmp_path / "alone", web.crawl_files(sample), scan={"chunk_bytes": 10_000}).manifest
    assert facts["digest"] == alone.digest
