"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE


def test_two_increments_under_kills_come_to_the_same_digests():
    program = Path(__file__).with_name("soak.py")
    run = subprocess.run(
        [sys.executable, str(program), "--kills", "3", "--seed", "1"],
        cwd=program.parents[1],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    last = json.loads(run.stdout.splitlines()[-1])
    assert (last["kills"], last["same"]) == (3, True)
