"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE


def soak(program: str, *arguments: str) -> dict[str, object]:
    """The last line of a short soak."""
    path = Path(__file__).with_name(program)
    run = subprocess.run(
        [sys.executable, str(path), *arguments], cwd=path.parents[1], capture_output=True, text=True, timeout=PATIENCE
    )
    assert run.returncode == 0, run.stdout + run.stderr
    last: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
    return last


def test_two_increments_under_kills_come_to_the_same_digests():
    last = soak("soak.py", "--kills", "3", "--seed", "1")
    assert (last["kills"], last["same"]) == (3, True)


def test_trainings_under_kills_come_to_the_same_bits():
    last = soak("soak_train.py", "--kills", "7", "--without-ray")
    assert (last["kills"], last["episodes"], last["same"]) == (7, 5, True)
