"""Training on Ray: the same work in every rank, under Ray Train's `TorchTrainer`; what rank 0 returns comes back.

Ray places the ranks, makes torch's process group of them (gloo on CPUs, NCCL on GPUs) and begins all of them again when
one dies; each then goes on from the newest checkpoint in the lake, as any process would. Ray stores nothing: what it
writes goes to a scratch folder. `on_ray` may be called by a driver, or in a piece of work that reserves no CPU: the
controller reserves none either, so nothing that waits for the ranks holds what they wait for.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.scratch import scratch
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.state import Reached
from gristmill.stages.core.work import Resources
from gristmill.stages.run.cluster import TooSmall, check_fits, check_reachable, connect
from gristmill.stages.train.folder import RunFolder
from gristmill.stages.train.follow import followed
from gristmill.stages.train.job import Execution, Trained, TrainJob
from gristmill.stages.train.local import about_run, train_rank, trained
from gristmill.stages.train.reporting import reporting

T = TypeVar("T")
RankWork = Callable[[Ranks, Callable[[Reached], None]], T]
"""What every rank does. It is handed its number among how many, and what to call after each checkpoint
(`Trainer(on_checkpoint=...)`); it travels by pickle. What it returns on rank 0 travels back, and holds no tensors."""

SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # a start takes up to two minutes on a busy machine; Ray has 60
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how late an end or a death is seen; Ray has 2
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a job are those of its working directory
}
"""Of Ray Train, read in the driver; what a user has set stays."""


def train(store: Store, job: TrainJob, folder: RunFolder) -> Trained:
    """Carries out a stage in ranks on Ray, from its last checkpoint if there is one. Raises as `on_ray`, and
    NotReachable for a lake in a folder that other nodes do not see."""
    execution = job.execution
    if execution.device == "auto":
        execution = replace(execution, device="cuda" if execution.gpus else "cpu")
    connect(execution.ranks * execution.cpus)
    check_reachable(store, execution.shared_filesystem)
    work = partial(_train_rank, store.uri, replace(job, execution=execution), folder.key, folder.holder)
    about = about_run(job, folder)
    with (
        reporting(execution.report, about, job.stage, folder.metrics_file) as show,
        followed(store, folder.metrics_key, show),
    ):
        reached = on_ray(work, execution)
    folder.fetch(reached.step)
    return trained(folder, reached, world=execution.ranks)


def _train_rank(
    uri: str, job: TrainJob, key: str, holder: int, ranks: Ranks, on_checkpoint: Callable[[Reached], None]
) -> Reached:
    """What each rank does; its steps are shown by whoever follows the metrics. `holder`: its driver's number, so that a
    rank that is started again after another process took the run over is refused."""
    store = open_store(uri, probe=False)
    folder = RunFolder(store, key, holder)
    with folder.placed():
        return train_rank(store, job, folder, ranks, lambda progress: None, on_checkpoint)


def on_ray(work: RankWork[T], execution: Execution) -> T:
    """Does the work in every rank of an execution. -> What it returned on rank 0.

    Raises TooSmall where the cluster does not hold so many ranks, RankLost when they died too often, and what the work
    raises, as it is: an error that another try would meet again ends all ranks at once.
    """
    connect(execution.ranks * execution.cpus)
    needs = Resources(execution.cpus, execution.gpus)
    if (held := check_fits("train", needs)) < execution.ranks:
        raise TooSmall(
            f"train: run.ranks={execution.ranks} need {needs} each, and the cluster holds {held} of them. Give fewer"
            " ranks, or run it where it holds so many; one that is started on this machine has run.workers CPUs, and"
            " with run.workers=0 as many as the ranks need, if the machine has them, and keeps that size as long as its"
            " process lives: train in a process of its own where something else ran before on fewer"
        )
    from gristmill.stages.train.ray_ranks import fit  # it imports Ray, whose settings `connect` makes

    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        stack.enter_context(_settings())
        stack.enter_context(_interruptible())
        value: T = fit(work, execution, folder, _environment_of_ranks())
        return value


def _environment_of_ranks() -> dict[str, str]:
    """In a cluster that listens on 127.0.0.1 only, the process group does so too: gloo would take the address that the
    machine's name stands for."""
    import ray

    if not ray.util.get_node_ip_address().startswith("127."):
        return {}
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    return {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}


@contextmanager
def _settings() -> Iterator[None]:
    """Ray Train's settings, in the environment of this process for as long as they are needed."""
    added = [name for name in SETTINGS if name not in os.environ]
    os.environ |= {name: SETTINGS[name] for name in added}
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt within, and what it was afterwards: Ray Train puts a handler of its own there,
    which ends the ranks and then this process, as if all were well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler: Any = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, handler)
