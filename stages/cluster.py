"""The Ray cluster that work runs on: the one that a submitted job has, else one of this process alone.

A cluster started here is private: it listens on 127.0.0.1 only, asks for a token that only this process and its
children know, and keeps its sessions below a folder that no other user can enter (stages/private.py). Without each of
the three, whoever has an account on this machine could run code as the user who runs the pipeline.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import signal
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from lake.store import Store
from stages.private import locked_folder

log = logging.getLogger("gristmill")

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""By this Ray takes 127.0.0.1 for the machine's address, as it does on a Mac, and every part of it binds to that: with
`--node-ip-address=127.0.0.1` alone it replaces the address by one that other machines reach (ray 2.60,
_private/services.py, `get_node_ip_address`)."""


ATTEMPTS = 5
TOO_SLOW = "timed out during startup"
"""What Ray says when the processes that it started were not up in time."""


class NotReachable(ValueError):
    """The lake is a directory of this node, and the cluster has others."""


def connect(workers: int) -> None:
    """Joins the cluster of RAY_ADDRESS (a submitted job has one), else starts Ray here with `workers` CPUs.

    Raises ConnectionError where that cluster does not answer, or where Ray does not come up here.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns about its own coming default
    if os.environ.get("RAY_ADDRESS"):
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
            stop_on_sigterm()
            _at_once(workers, int(ray.cluster_resources().get("CPU", workers)), "the Ray cluster")
        return
    _close_to_others()  # before Ray is imported: it reads this then
    import ray

    if ray.is_initialized():
        return
    cpus = _at_once(workers, len(os.sched_getaffinity(0)), "this machine")
    log.info("starting Ray on this machine with %s", "1 CPU" if cpus == 1 else f"{cpus} CPUs")
    with ExitStack() as leaving:
        folder = leaving.enter_context(locked_folder())
        leaving.callback(ray.shutdown)
        _start(cpus, folder / "r")
        atexit.register(leaving.pop_all().close)
    stop_on_sigterm()


def _start(cpus: int, folder: Path) -> None:
    """Starts Ray here, anew where a busy machine was too slow for it: Ray gives up after 30 s, and cannot be told
    otherwise (ray 2.60, _private/node.py). Raises ConnectionError where that goes on, which is waited out as an outage.
    """
    import ray

    before = _children()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                object_store_memory=128 << 20,  # only pointers travel through it; data goes through the store
                _temp_dir=str(folder),
            )
            return
        except Exception as error:
            if TOO_SLOW not in str(error):
                raise
            ray.shutdown()
            for pid in _children() - before:  # what it had started so far, which it does not stop itself
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            log.warning("Ray did not start within its 30 s (attempt %d of %d): a busy machine", attempt, ATTEMPTS)
            last = error
    raise ConnectionError(f"Ray did not start on this machine in {ATTEMPTS} attempts: {last}") from last


def _children() -> set[int]:
    """The processes that any thread of this one started and that still run."""
    pids = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that ended meanwhile
            pids.update(int(pid) for pid in (task / "children").read_text().split())
    return pids


def _at_once(workers: int, cpus: int, where: str) -> int:
    """How many pieces of work run at a time: each takes a CPU. Says so where fewer than asked for."""
    if workers > cpus:
        log.warning("run.workers is %d, but %s has %d CPUs: so many pieces run at a time", workers, where, cpus)
    return min(workers, cpus)


def _close_to_others() -> None:
    for name, value in LOOPBACK.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def stop_on_sigterm() -> None:
    """Makes SIGTERM (a job's stop, a scheduler's) what Ctrl-C is. Ray puts its crash report there instead."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def check_reachable(store: Store, shared: bool) -> None:
    """Raises NotReachable if the store is a local directory and the cluster has other nodes that cannot see it."""
    import ray

    if store.uri.startswith("s3://") or shared:
        return
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1:
        raise NotReachable(
            f"the lake {store.uri} is a directory, but the Ray cluster has {len(nodes)} nodes: work on another node"
            " would write where nobody looks. Use an s3:// lake, or set run.shared_filesystem: true if every node"
            " mounts this directory at this path."
        )
