"""The Ray cluster that work runs on: the one that a submitted job has, else one of this process alone.

A cluster started here is private: it listens on 127.0.0.1 only, asks for a token that only this process and its
children know, and keeps its sessions below a folder that no other user can enter (stages/run/private.py). Without each
of the three, whoever has an account on this machine could run code as the user who runs the pipeline.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any

from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Resources
from gristmill.stages.run.private import locked_folder
from gristmill.stages.run.ray_start import LIMITS, patient

log = logging.getLogger("gristmill")

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""By this Ray takes 127.0.0.1 for the machine's address, as it does on a Mac, and every part of it binds to that: with
`--node-ip-address=127.0.0.1` alone it replaces the address by one that other machines reach (ray 2.60,
_private/services.py, `get_node_ip_address`)."""
UNLIMITED = 1 << 30
"""Pieces of work on a node, of those that reserve nothing of it."""


class WrongCluster(ValueError):
    """Work that this cluster cannot do, now or later."""


class NotReachable(WrongCluster):
    """The lake is a directory of this node, and the cluster has others."""


class TooSmall(WrongCluster):
    """No node has what one piece of work needs."""


def connect(workers: int) -> None:
    """Joins the cluster of RAY_ADDRESS (a submitted job has one), else starts Ray here with `workers` CPUs.

    Raises ConnectionError where that cluster does not answer, or Ray does not start.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns about its own coming default
    if os.environ.get("RAY_ADDRESS"):
        import ray

        if not ray.is_initialized():
            keep_stdout()
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
            stop_on_sigterm()
            _at_once(workers, int(ray.cluster_resources().get("CPU", workers)), "the Ray cluster")
        return
    for name, value in {**LOOPBACK, **LIMITS}.items():  # before Ray is imported: it reads them then
        os.environ.setdefault(name, value)
    _close_to_others()
    import ray

    if ray.is_initialized():
        _at_once(workers, int(ray.cluster_resources().get("CPU", workers)), "the Ray that this process has started")
        return
    cpus = _at_once(workers, len(os.sched_getaffinity(0)), "this machine")
    log.info("starting Ray on this machine with %s", "1 CPU" if cpus == 1 else f"{cpus} CPUs")
    with ExitStack() as leaving:
        folder = leaving.enter_context(locked_folder())
        ports = leaving.enter_context(ExitStack())
        parent = leaving.enter_context(_thread_of_ray())
        leaving.callback(ray.shutdown)
        keep_stdout()
        with patient(ports):
            parent(
                functools.partial(
                    ray.init,
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    object_store_memory=128 << 20,  # only pointers travel through it; data goes through the store
                    _temp_dir=str(folder / "r"),
                )
            )
        atexit.register(leaving.pop_all().close)
    stop_on_sigterm()


@contextmanager
def _thread_of_ray() -> Iterator[Callable[[Callable[[], object]], object]]:
    """Within it, what calls a function in a thread that lasts as long: the kernel kills Ray's processes when the thread
    that started them has ended (`PR_SET_PDEATHSIG`, ray 2.60, _private/utils.py), though the program goes on."""
    if threading.current_thread() is threading.main_thread():
        yield lambda start: start()
        return
    ended = threading.Event()

    def in_thread(start: Callable[[], object]) -> object:
        outcome = Future[object]()

        def keep() -> None:
            try:
                outcome.set_result(start())
            except BaseException as error:
                outcome.set_exception(error)
            ended.wait()

        # A daemon: a program waits for other threads when it ends, before it closes what `connect` opened.
        threading.Thread(target=keep, name="parent of Ray", daemon=True).start()
        return outcome.result()

    try:
        yield in_thread
    finally:
        ended.set()


@functools.cache
def keep_stdout() -> None:
    """What Ray tells a driver, as of a node that died, goes to stderr from now on: the last line of stdout is the
    result. Ray prints it to stdout, some of it when a program ends, and has no setting for that (ray 2.60,
    _private/worker.py, `listen_error_messages`)."""
    from ray._private import worker

    show = worker.print_to_stdstream

    def show_as_error(data: dict[str, Any], ignore_prefix: bool) -> None:
        show({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = show_as_error


def _at_once(workers: int, cpus: int, where: str) -> int:
    """How many pieces of work run at a time: each takes a CPU. Says so where fewer than asked for."""
    if workers > cpus:
        log.warning("run.workers is %d, but %s has %d CPUs: so many pieces run at a time", workers, where, cpus)
    return min(workers, cpus)


def _close_to_others() -> None:
    """Settings by which Ray asks for a token. Where a program has imported Ray before, it read its settings then: it
    would listen to all, and show no token."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if "ray" in sys.modules:
        from ray import _raylet  # extension, of which mypy knows nothing
        from ray._private import ray_constants

        raylet: Any = _raylet
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
        ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, True)


def stop_on_sigterm() -> None:
    """Makes SIGTERM (a job's stop, a scheduler's) what Ctrl-C is, and counts both. Ray puts its crash report there
    instead."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)


_INTERRUPTS: list[int] = []


def interrupts() -> int:
    """How often this process was interrupted. An interrupt comes out of a library as whatever that makes of it, such as
    a SystemError of an extension that was called back, so its own exception does not tell."""
    return len(_INTERRUPTS)


def _interrupt(signum: int, frame: object) -> None:
    _INTERRUPTS.append(signum)
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


def check_fits(stage: str, resources: Resources) -> int:
    """How many pieces of work of a stage the cluster holds at a time. Raises TooSmall if it is none: Ray would wait for
    a larger node for ever."""
    nodes = _nodes()
    held = sum(_pieces_on(node, resources) for node in nodes)
    if held:
        return held
    most_cpus = max((node.get("CPU", 0) for node in nodes), default=0)
    most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
    largest = Resources(most_cpus, most_gpus)
    raise TooSmall(
        f"{stage}: one piece of work needs {resources}, and no node of the cluster has that (the most is {largest})."
        " Run it where there is such a node; a cluster that is started on this machine has run.workers CPUs"
    )


def fits_beside(resources: Resources, idle: Sequence[Resources]) -> bool:
    """Whether some node has room for a piece of work once all other work is done, wherever the `idle` ones stand: they
    hold what they have until they are ended."""
    cpus, gpus = sum(held.cpus for held in idle), sum(held.gpus for held in idle)
    left = ({"CPU": node.get("CPU", 0) - cpus, "GPU": node.get("GPU", 0) - gpus} for node in _nodes())
    return any(_pieces_on(node, resources) > 0 for node in left)


def _nodes() -> list[dict[str, float]]:
    """What each living node has: CPU, GPU and others."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _pieces_on(node: Mapping[str, float], resources: Resources) -> int:
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    return min((int(node.get(name, 0) / amount) for name, amount in needs.items() if amount), default=UNLIMITED)
