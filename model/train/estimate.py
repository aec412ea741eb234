"""What a stage needs, before it starts: memory by kind, operations and seconds of a step, the size of a checkpoint.

Memory and operations are those of a rehearsal (`model.train.rehearsal`), on a batch made of what the mixture says of
its windows; seconds are the operations' on this machine, tried out, or by what a GPU that is not here is known for
(`model.train.speed`). Every rank of a run that is not sharded needs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from gristmill.model.phi4.audio import frames_after
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.train.objective import Batch, Objective, PreferenceObjective
from gristmill.model.train.rehearsal import Memory, Rehearsal, rehearse
from gristmill.model.train.speed import flops_of, measured, reckoned
from gristmill.model.train.stage import TrainStage

OBJECTIVES: Mapping[str, Callable[[Multimodal], nn.Module]] = {"cross_entropy": Objective, "dpo": PreferenceObjective}
"""What a loss is of a model, for those that need nothing else."""


@dataclass(frozen=True)
class Window:
    """A window as a mixture has them: `length`: places of one; on average `tokens` that fill them, of `segments`
    samples, and `targets` to learn; `crops` of its images, global views included, and `frames` of its clips. Raises
    ValueError that names the field."""

    length: int
    tokens: float
    segments: float
    targets: float
    crops: float = 0
    frames: float = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("length", 1, float("inf")),
            ("tokens", 0, self.length),
            ("segments", 0, self.length),
            ("targets", 0, self.length),
            ("crops", 0, float("inf")),
            ("frames", 0, float("inf")),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}={value}: allowed are {least} to {most} of a window of {self.length}")


@dataclass(frozen=True)
class Pace:
    """How a step is carried out on `ranks`, each on a device of this name, as "cpu" or "NVIDIA H100": `windows_per_pass`
    go through the model together; `checkpointing`: blocks keep their inputs alone for the backward pass."""

    device: str = "cpu"
    ranks: int = 1
    windows_per_pass: int = 1
    checkpointing: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a rank needs for a step. `memory` in bytes of its device; `checkpoint`: bytes of one, which are in the host's
    memory too while it is written; `flops`: operations; `seconds`, None where nothing is known of the device; `by`: what
    the seconds are by; `trained`: parameters by part."""

    memory: Memory
    checkpoint: int
    flops: float
    seconds: float | None
    by: str
    trained: Mapping[Part, int]


def estimate(
    stage: TrainStage,
    config: ModelConfig,
    window: Window,
    pace: Pace | None = None,
    *,
    stored: Mapping[Part, torch.dtype] | None = None,
    objective: Callable[[Multimodal], nn.Module] | None = None,
) -> Estimate:
    """Of a stage on windows like this. `stored`, `objective`: as `rehearse` takes them, which is what this costs, and a
    second or two to try out operations where the device is this machine's CPU. Raises ValueError for a loss that needs
    an objective of its own, and what `rehearse` raises."""
    pace = pace or Pace()
    objective = objective or OBJECTIVES.get(stage.loss)
    if objective is None:
        raise ValueError(f"loss={stage.loss!r}: what it computes is not known here; allowed are {', '.join(OBJECTIVES)}")
    windows = -(-stage.batch // pace.ranks)  # of the rank that has most
    of_pass = min(pace.windows_per_pass, windows)
    batch = batch_of(config, window, of_pass, pairs=stage.loss == "dpo")
    rehearsal = rehearse(stage, config, batch, objective, stored=stored, checkpointing=pace.checkpointing)
    # Memory is that of full windows, time that of windows as they are on average.
    passes = windows / of_pass * window.tokens / window.length
    groups = (rehearsal.of_pass, rehearsal.of_update)
    flops = flops_of(rehearsal.of_pass.values()) * passes + flops_of(rehearsal.of_update.values())
    seconds, by = _seconds(rehearsal, pace)
    step = None if seconds is None else seconds[0] * passes + seconds[1]
    checkpoint = 4 * sum(rehearsal.trained.values()) + rehearsal.memory.optimizer
    return Estimate(rehearsal.memory, checkpoint, flops, step, by, rehearsal.trained)
