"""Runs that are killed, one after the other, until one of them ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def kills_until(done: Callable[[], Any], run: Callable[[], Any], receipts: int = 2) -> int:
    """How many runs died before `done()`: each, in a process of its own, writes so many receipts more than were there,
    then dies of a signal."""
    kills, link = 0, os.link
    while not done():
        pid = os.fork()
        if not pid:
            written = 0

            def dying(*args: Any, **kwargs: Any) -> None:
                nonlocal written
                written += "receipts" in str(args[1])
                if written > receipts:
                    os.kill(os.getpid(), signal.SIGKILL)
                link(*args, **kwargs)

            os.link = dying
            try:
                run()
            finally:
                os._exit(0)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return kills
