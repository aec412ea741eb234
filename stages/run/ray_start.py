"""Starting Ray on a busy machine: it is waited for as long as its processes live.

Ray 2.60 gives a new node 30 s to come up, and has no setting for it (`Node.__init__` in _private/node.py); with fifteen
other processes a core it needs a minute. Its other limits have settings: `LIMITS`. The command
`python -m gristmill.stages.run.ray_start` is `ray` with both, for the cluster of `grist up`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LIMITS = {
    "RAY_agent_register_timeout_ms": "300000",  # a raylet whose agent is slower ends itself; Ray has 30 s or 100 s
    "RAY_worker_register_timeout_seconds": "300",  # Ray has 60
    "RAY_gcs_server_port_wait_time_s": "300",  # Ray has 20 or 120
    "RAY_health_check_timeout_ms": "60000",  # a node that answers later is taken for dead; Ray has 10 s
}
"""For a busy machine; what a user has set stays."""
LONGEST_START = 600.0  # seconds


@contextmanager
def patient(limit: float = LONGEST_START) -> Iterator[None]:
    """Within it, a node that Ray starts here has `limit` seconds to register, as long as its raylet lives."""
    from ray._private import services

    look_up = services.get_node

    def get_node(*args: Any, **options: Any) -> Any:
        """What Ray's own loop asks for until 30 s are over: it waits here instead."""
        deadline = time.monotonic() + limit
        while True:
            try:
                return look_up(*args, **options)
            except RuntimeError:  # Ray's word for "not registered yet"
                if time.monotonic() > deadline or not _has_raylet():
                    raise
            time.sleep(0.2)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = look_up


def _has_raylet() -> bool:
    """Whether a raylet that this process started runs."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that ended meanwhile
            if any(_is_raylet(pid) for pid in (task / "children").read_text().split()):
                return True
    return False


def _is_raylet(pid: str) -> bool:
    with suppress(OSError):  # it ended meanwhile
        name, state = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
        return name == "raylet" and state.split()[0] != "Z"
    return False


def main() -> None:
    """The command `ray`, patiently."""
    with patient():
        from ray.scripts.scripts import main as ray_command

        sys.argv[0] = "ray"
        ray_command()


if __name__ == "__main__":
    main()
