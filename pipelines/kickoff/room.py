"""How much of a machine a node takes while it runs, and whether there is room for it beside others.

A training takes what its ranks do, an evaluation what its workers do, any other pipeline a CPU a worker. What is larger
than the machine runs alone. On a cluster, which has its own scheduler, only the number of nodes side by side counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gristmill.pipelines.evaluate import EvaluateRun
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.reason.settings import ReasoningRun
from gristmill.pipelines.training.run import TrainRun


class Share(NamedTuple):
    """CPUs and GPUs."""

    cpus: float
    gpus: float


def share_of(config: PipelineConfig) -> Share:
    """What a node holds while it runs."""
    run = config.run
    workers = max(1, run.workers)
    shares = [Share(workers, 0)]
    if isinstance(run, TrainRun):
        shares.append(Share(run.ranks * run.cpus, run.ranks * run.gpus))
    if isinstance(run, EvaluateRun):
        shares.append(Share(workers * run.cpus, workers * run.gpus))
    if isinstance(run, ReasoningRun):
        engines = max(1, run.hosts.engines)
        shares.append(Share(engines * run.hosts.cpus, engines * run.hosts.gpus))
    return Share(max(share.cpus for share in shares), max(share.gpus for share in shares))


def pieces_of(config: PipelineConfig) -> tuple[int, Share]:
    """(pieces of work that run side by side, what each of them holds of the share of its node)."""
    share = share_of(config)
    count = 1 if isinstance(config.run, TrainRun) else max(1, config.run.workers)
    return count, Share(share.cpus / count, share.gpus / count)


@dataclass(frozen=True)
class Room:
    """`nodes` at most, and together no more than `cpus` and `gpus`; None: as many as there are nodes."""

    nodes: int
    cpus: float | None = None
    gpus: float = 0

    def has(self, share: Share, taken: Iterable[Share]) -> bool:
        """Whether a node may start beside those that run."""
        running = list(taken)
        if not running:
            return True
        if len(running) >= self.nodes:
            return False
        if self.cpus is None:
            return True
        cpus, gpus = (sum(held) for held in zip(share, *running, strict=True))
        return cpus <= self.cpus and gpus <= self.gpus
