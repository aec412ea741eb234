"""The tests that a machine without a GPU skips, by pytest where it is there. A part of `python -m benchmarks gpu`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Row
from benchmarks.on_device import plain
from benchmarks.section import Deadline

ROOT = Path(__file__).resolve().parents[1]
WHAT = "tests that need a GPU"
SKIPPED = re.compile(r"skipif\(\s*not torch\.cuda\.is_available\(\)")
"""How a test says that it needs a GPU."""
NEEDED = ("hypothesis", "boto3", "pyarrow", "ray")
"""What the fixtures that all tests share import; where one is missing, tests run without them."""


def files(folder: Path = ROOT / "tests") -> list[str]:
    """Files with tests that need a GPU, relative to the checkout."""
    paths = [path for path in sorted(folder.rglob("test_*.py")) if SKIPPED.search(path.read_text())]
    return [str(path.relative_to(folder.parent)) for path in paths]


def rows(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """How many passed; a failure is a failed row with the end of what pytest said. `tiny` changes nothing."""
    chosen, absent = files(), [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not chosen or importlib.util.find_spec("pytest") is None:
        yield Row(WHAT, None, "", why="there are none" if not chosen else "pytest is not installed")
        return
    without = ["--noconftest"] if absent else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *without, *chosen]
    place = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **place}, capture_output=True, text=True, timeout=deadline.left()
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode or passed is None:
        yield Row(WHAT, None, "", why=" ".join((done.stdout + done.stderr).split())[-300:], failed=True)
        return
    yield Row(WHAT, plain(float(passed[1])), "tests", "passed")
