"""Starting Ray on a busy machine: it is waited for as long as its processes live.

Ray 2.60 has two limits without a setting. A new node has 30 s to register (`Node.__init__` in _private/node.py), and a
raylet ends itself when an agent of its has not said within 15 s or 30 s which port it took (`WaitForPersistedPort`,
ray-project/ray#65983); with fifteen other processes a core both need a minute. `patient` waits in Ray's place for the
one and chooses the ports before anything starts, so that nobody waits for the other. Ray's further limits have
settings: `LIMITS`. `python -m gristmill.stages.run.ray_start` is the command `ray` with all three, for `grist up`.
"""

from __future__ import annotations

import inspect
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
_LAST_LINES = 20
"""Of a raylet's log, in the error that says that it ended."""


class NotStarted(ConnectionError):
    """Ray's raylet ended before it had registered, or did not register in time; the message has what it said last."""


@contextmanager
def patient(ports: ExitStack, limit: float = LONGEST_START) -> Iterator[None]:
    """Within it, a node that Ray starts here has `limit` seconds to register, as long as its raylet lives, and its
    agents take their ports when they get to it. Close `ports`, which holds these, when the node has ended.

    Ray's start raises NotStarted.
    """
    from ray._private import services

    start_raylet, look_up = services.start_raylet, services.get_node
    node = _Node(start_raylet, look_up, ports, limit)
    services.start_raylet, services.get_node = node.start, node.registered
    try:
        yield
    finally:
        services.start_raylet, services.get_node = start_raylet, look_up


class _Node:
    """Stands in for two of Ray's functions, with their parameters."""

    def __init__(
        self, start_raylet: Callable[..., Any], look_up: Callable[..., Any], ports: ExitStack, limit: float
    ) -> None:
        self._start_raylet, self._look_up, self._ports, self._limit = start_raylet, look_up, ports, limit
        self._logs: list[Path] = []

    def start(self, *args: Any, **options: Any) -> Any:
        """`start_raylet` with a port for each agent, which the raylet finds where the agent would write it."""
        from ray import _raylet

        compiled: Any = _raylet  # whose stubs do not name all that it has
        written_as = {
            "metrics_agent_port": compiled.METRICS_AGENT_PORT_NAME,
            "metrics_export_port": compiled.METRICS_EXPORT_PORT_NAME,
            "dashboard_agent_listen_port": compiled.DASHBOARD_AGENT_LISTEN_PORT_NAME,
            "runtime_env_agent_port": compiled.RUNTIME_ENV_AGENT_PORT_NAME,
        }
        call = inspect.signature(self._start_raylet).bind(*args, **options)
        given = call.arguments
        self._logs = [Path(given["log_dir"], name) for name in ("raylet.err", "raylet.out")]
        for parameter, name in written_as.items():
            given[parameter] = given.get(parameter) or self._ports.enter_context(_held_port())
            compiled.persist_port(given["session_dir"], given["node_id"], name, given[parameter])
        return self._start_raylet(*call.args, **call.kwargs)

    def registered(self, *args: Any, **options: Any) -> Any:
        """`get_node`, which Ray's own loop asks for until 30 s are over: it waits here instead."""
        deadline = time.monotonic() + self._limit
        while True:
            try:
                return self._look_up(*args, **options)
            except RuntimeError as error:  # Ray's word for "not registered yet"
                if not _has_raylet():
                    raise NotStarted(f"Ray did not start: its raylet has ended. {self._last_words()}") from error
                if time.monotonic() > deadline:
                    late = f"Ray did not start: its raylet has not registered in {self._limit:.0f} s."
                    raise NotStarted(f"{late} {self._last_words()}") from error
            time.sleep(0.2)

    def _last_words(self) -> str:
        lines: list[str] = []
        for log in self._logs:
            with suppress(OSError):  # it has written none
                lines += log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return "\n".join(["Its logs end so:", *lines]) if lines else "It has left no log."


@contextmanager
def _held_port() -> Iterator[int]:
    """A free port that is given to nobody else meanwhile.

    It is bound and not listened to: a server that sets SO_REUSEADDR, as Ray's agents do, may bind it nevertheless
    (socket(7)), and the kernel gives it to nobody who asks for any port.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


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
    with ExitStack() as ports, patient(ports):
        from ray.scripts.scripts import main as ray_command

        sys.argv[0] = "ray"
        ray_command()


if __name__ == "__main__":
    main()
