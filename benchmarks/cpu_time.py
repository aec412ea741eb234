"""CPU time of a process and of all below it, read cheaply enough to stand within what is timed."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path


def cpu_seconds() -> float:
    """User and system time of this process and its children, those that ended and those that are kept. On Linux
    alone."""
    import psutil  # a machine lent for its GPU may lack it

    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    kept = [psutil.Process(pid).cpu_times() for pid in _descendants(os.getpid())]
    ended = sum(c.children_user + c.children_system for c in kept)  # what kept children had themselves
    return sum(u.ru_utime + u.ru_stime for u in usages) + sum(c.user + c.system for c in kept) + ended


def _descendants(pid: int) -> Iterator[int]:
    """The processes below one. psutil would look at every process of the machine, for milliseconds within what is
    timed."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (thread / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended
            continue
        for child in map(int, children):
            yield child
            yield from _descendants(child)
