"""The ranks of Ray Train: what each process does, what it reports, and which failures are borne.

A checkpoint is reported without one: its place is the lake, where any process finds it, while Ray wants what it is
handed inside a storage of its own, seen by all nodes, from which it removes. So a report says only how far the run is,
and renews the number of failures that are borne: a run of weeks may lose a rank every day, but not the same steps for
ever. A report waits, for seconds, until Ray's controller has taken the report before it; hence REPORT_SECONDS between.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
import torch
import torch.distributed as dist
from ray.train.torch import TorchConfig, TorchTrainer

from gristmill.model.train.ranks import Ranks
from gristmill.model.train.state import Reached
from gristmill.stages.train.job import Execution

log = logging.getLogger("gristmill")

REPORT_SECONDS = 10.0
FAILURES = 3
"""Deaths that are borne without a new checkpoint between them."""


class RankLost(RuntimeError):
    """Ranks died too often without a checkpoint between their deaths."""


def fit(
    work: Callable[[Ranks, Callable[[Reached], None]], Any],
    execution: Execution,
    folder: Path,
    environment: dict[str, str],
) -> Any:
    """Does the work in every rank of an execution. -> What it returned on rank 0. `folder`: where Ray writes.

    `environment`: of the ranks. Raises RankLost, and what the work raises.
    """
    ranks, cpus, gpus = execution.ranks, execution.cpus, execution.gpus

    def rank() -> Any:
        torch.set_num_threads(cpus)
        own = Ranks.of_group()
        return work(own, Reports(own))

    trainer = partial(
        TorchTrainer,
        rank,
        # Both backends: objects and flags go by gloo where tensors go by NCCL
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=ranks, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, "GPU": gpus}
        ),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(max_failures=-1),  # as many as `Borne` lets pass
            callbacks=[Borne(FAILURES, ranks)],
            worker_runtime_env={"env_vars": environment},
        ),
    )
    for lost in range(FAILURES + 1):
        try:
            return trainer().fit().return_value
        except (ray.train.ControllerError, ray.exceptions.RayActorError) as failed:
            cause = _cause(failed)
            if not isinstance(cause, ray.exceptions.RayActorError):
                raise cause from failed
            if lost == FAILURES:
                raise RankLost(f"ranks died {lost + 1} times while they were started: {_brief(cause)}") from failed
            # Ray Train bears a death while ranks train, and not while it starts them
            log.warning("train: a rank died while the ranks were started, which is tried again: %s", _brief(cause))
    raise AssertionError("the last try returns or raises")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _cause(error: Exception) -> Exception:
    """What a controller ended with, out of its wraps."""
    while isinstance(error, ray.train.ControllerError):
        error = error.controller_failure
    return error


class Reports:
    """Tells Ray after a checkpoint how far the run is, on all ranks or on none of them: rank 0's clock decides."""

    def __init__(self, ranks: Ranks, clock: Callable[[], float] = time.monotonic) -> None:
        self._ranks, self._clock = ranks, clock
        self._last = float("-inf")

    def __call__(self, reached: Reached) -> None:
        """After the same steps on every rank."""
        now = self._clock()
        due = torch.tensor(now - self._last >= REPORT_SECONDS)
        dist.broadcast(due, 0)
        if due:
            self._last = now
            ray.train.report({"step": reached.step})


class Borne(ray.train.UserCallback):
    """Ends a run in Ray's controller by raising what no other try would mend, and the last of too many deaths."""

    def __init__(self, failures: int, ranks: int) -> None:
        self._failures, self._ranks = failures, ranks
        self._deaths, self._step = 0, 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """A checkpoint is made: earlier deaths do not count any more, unless it is one that there was before."""
        if metrics[0]["step"] > self._step:
            self._deaths, self._step = 0, metrics[0]["step"]

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the error that ends the run; returns where it is to be tried again."""
        for error in worker_exceptions.values():
            if not self._is_death(error):
                raise error
        self._deaths += 1
        if self._deaths > self._failures:
            number, error = min(worker_exceptions.items(), key=lambda item: not _of_ray(item[1]))
            raise RankLost(
                f"rank {number} of {self._ranks} was lost, {self._deaths} times without a new checkpoint after"
                f" step {self._step}: {_brief(error)}. A process that is killed again and again"
                " may have no memory left; what is done is kept, and the same command goes on from there"
            ) from error

    def _is_death(self, error: Exception) -> bool:
        """Whether a process died, or lost another one: torch's collectives then raise a RuntimeError."""
        of_torch = isinstance(error, RuntimeError) and not type(error).__module__.startswith("gristmill.")
        return _of_ray(error) or (self._ranks > 1 and of_torch)


def _of_ray(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "ray"
