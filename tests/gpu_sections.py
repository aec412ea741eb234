"""Sections for `benchmarks.gpu` that end in every way: each is run in a process of its own, so none imports torch."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks is no installed package

from benchmarks.harness import Figure, Row  # noqa: E402
from benchmarks.section import Deadline  # noqa: E402

ROW = Row("a row", Figure(1.0, 1.0, 1.0), "x")


def gives(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """A row, told early and once more."""
    yield replace(ROW, unit="ms")
    yield ROW


def raises(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """A row, and an error."""
    yield ROW
    raise ValueError(f"planted in {ROOT}")


def hangs(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """A row with the number of its process, and no end."""
    yield replace(ROW, same=str(os.getpid()))
    threading.Event().wait()


def dies(tiny: bool, deadline: Deadline) -> Iterator[Row]:
    """A row, and the end of its process."""
    yield ROW
    os._exit(7)
