"""Waiting for an event, never for the clock.

A test that says "within five seconds" fails on a busy machine and proves nothing on a quiet one. Here every wait is for
something to happen; PATIENCE only turns a hang into a failure with a name, and is far beyond what any machine needs.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE = 1800.0
"""Seconds after which a wait is taken for a hang; also the timeout of every child process of a test."""


def until(
    condition: Callable[[], Any], what: str, *, by: subprocess.Popen[Any] | None = None, pause: float = 0.02
) -> Any:
    """The first true answer of `condition`, asked every `pause` seconds.

    `by` is the process that has to bring it about: if that ends first, the wait is over, with what it printed.
    """
    end = time.monotonic() + PATIENCE
    while not (answer := condition()):
        if by is not None and by.poll() is not None and not (answer := condition()):
            pytest.fail(f"the process ended before {what}: exit code {by.returncode}, {by.communicate()}")
        if time.monotonic() > end:
            pytest.fail(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(pause)
    return answer
