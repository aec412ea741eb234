"""CPU time of commands, for what is measured in minutes."""

from __future__ import annotations

import resource


def spent() -> float:
    """CPU seconds of the commands that this process started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
