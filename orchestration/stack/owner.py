"""Which process a flow run is: written where others look when it may have died, as a label of a run or in a job."""

from __future__ import annotations

import json
import platform

from gristmill.orchestration.stack import processes

OWNER = "gristmill_owner"
"""The key of a job's metadata, and the label of a flow run."""


def this_process() -> str:
    """This process as others find it: JSON of host, pid, start and boot."""
    return json.dumps([platform.node(), *processes.myself()])


def is_dead(owner: str | None) -> bool:
    """Whether a process is known to be gone; of another host, or where nothing is written, nothing is known."""
    try:
        host, pid, started, boot = json.loads(owner or "")
    except (ValueError, TypeError):
        return False
    return host == platform.node() and not processes.alive(processes.Identity(pid, started, boot))
