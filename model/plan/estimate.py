"""What a stage needs, before it starts: memory by kind, operations and seconds of a step, the size of a checkpoint.

Memory and operations are those of a rehearsal (`model.plan.rehearsal`), on a batch made of what the mixture says of
its windows; seconds are the operations' on this machine, tried out, or by what a GPU that is not here is known for
(`model.plan.speed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.plan.rehearsal import Memory, Rehearsal, rehearse
from gristmill.model.plan.speed import SHARE, measured, reckoned
from gristmill.model.train.objective import Batch, Drawn, Objective, PolicyObjective, PreferenceObjective
from gristmill.model.train.stage import ON_GRADED, ON_PAIRS, TrainStage

OBJECTIVES: Mapping[str, Callable[[Multimodal], nn.Module]] = {
    "cross_entropy": Objective,
    "dpo": PreferenceObjective,
    "grpo": PolicyObjective,
}
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
    """How a step is carried out on `ranks`, each on a device of this name, as "cpu" or "NVIDIA H100".
    `windows_per_pass` go through the model together; `recompute`: the share of blocks that keep their inputs alone for
    backward; `shard`: where a stage trains the language model alone, each rank has a share of it and its optimizer."""

    device: str = "cpu"
    ranks: int = 1
    windows_per_pass: int = 1
    recompute: float = 0.0
    shard: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a rank needs for a step. `memory` in bytes of its device; `checkpoint`: bytes of one, which are in the
    host's memory too while it is written; `flops`: operations; `seconds`, None where nothing is known of the device;
    `by`: what the seconds are by; `parameters`, `trained`: how many, by part."""

    memory: Memory
    checkpoint: int
    flops: float
    seconds: float | None
    by: str
    parameters: Mapping[Part, int]
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
        raise ValueError(
            f"loss={stage.loss!r}: what it computes is not known here; allowed are {', '.join(OBJECTIVES)}"
        )
    windows = -(-stage.batch // pace.ranks)  # of the rank that has most
    of_pass = min(pace.windows_per_pass, windows)
    batch = batch_of(config, window, of_pass, pairs=stage.loss in ON_PAIRS)
    if stage.loss in ON_GRADED:
        segments, targets = len(batch.cu_seqlens) - 1, len(batch.targets)
        drawn = Drawn(*(torch.empty(count, device="meta") for count in (segments, targets, targets)))
        batch = replace(batch, drawn=drawn)
    rehearsal = rehearse(stage, config, batch, objective, stored=stored, recompute=pace.recompute)
    # Memory is that of full windows, time that of windows as they are on average.
    passes = windows / of_pass * window.tokens / window.length
    flops = rehearsal.of_pass.flops * passes + rehearsal.of_update.flops
    seconds, by = _seconds(rehearsal, pace.device)
    step = None if seconds is None else seconds[0] * passes + seconds[1]
    checkpoint = 4 * sum(rehearsal.trained.values()) + rehearsal.memory.optimizer
    is_shared = pace.shard and stage.trainable == {Part.LANGUAGE}
    memory = _shared(rehearsal.memory, pace.ranks) if is_shared else rehearsal.memory
    return Estimate(memory, checkpoint, flops, step, by, rehearsal.parameters, rehearsal.trained)


def _shared(memory: Memory, ranks: int) -> Memory:
    """Of a rank that has a share of what is trained; layers that are whole while they compute are not counted."""
    parameters = {**memory.parameters, Part.LANGUAGE: -(-memory.parameters[Part.LANGUAGE] // ranks)}
    gradients, optimizer = -(-memory.gradients // ranks), -(-memory.optimizer // ranks)
    return replace(
        memory, parameters=parameters, gradients=gradients, optimizer=optimizer, update=memory.update // ranks
    )


def _seconds(rehearsal: Rehearsal, device: str) -> tuple[tuple[float, float] | None, str]:
    """Of a pass and of an update, and what they are by."""
    if device == "cpu":
        count = torch.get_num_threads()
        threads = f"{count} thread{'s' if count > 1 else ''}"
        return measured(rehearsal), f"its operations, tried out here on {threads}"
    seconds = reckoned(rehearsal, device)
    known = f"{SHARE:.0%} of the peak of {device}" if seconds else f"nothing is known of the speed of {device!r}"
    return seconds, known


def batch_of(config: ModelConfig, window: Window, windows: int, *, pairs: bool = False) -> Batch:
    """A batch of full windows: segments of equal lengths, targets spread evenly, images of one crop and the global view
    and clips in segments of their own; pictures and sound on the meta device. `pairs`: for preferences. Raises
    ValueError for images and clips that do not fit in."""
    tokens, rows = window.length * windows, list[Tensor]()
    inputs: dict[str, Tensor] = {}
    if config.vision is not None and (images := round(window.crops * windows / 2)):
        side, crop, grid = config.vision.grid // 2, config.vision.crop_size, config.vision.grid
        places = 2 * side * (side + 1) + 1  # in each of two pictures a separator ends a row; and one between them
        rows += [torch.full((places,), config.vision.image_token_id)] * images
        inputs["image_pixel_values"] = torch.empty(2 * images, 3, crop, crop, device="meta")
        inputs["image_sizes"] = torch.full((images, 2), crop)
        inputs["image_attention_mask"] = torch.ones(2 * images, grid, grid, dtype=torch.bool)
    if config.audio is not None and (frames := round(window.frames * windows)):
        longest = config.audio.window * config.audio.time_reduction
        clips = -(-frames // longest)
        each = -(-frames // clips)
        places = frames_after(each, config.audio.time_reduction)
        rows += [torch.full((places,), config.audio.audio_token_id)] * clips
        inputs["audio_input_features"] = torch.empty(clips, each, config.audio.input_size, device="meta")
        inputs["audio_embed_sizes"] = torch.full((clips,), places)
    left = tokens - sum(map(len, rows))
    if left < 0:
        raise ValueError(
            f"crops={window.crops:g}, frames={window.frames:g}: their {tokens - left} tokens are more than the {tokens}"
            f" of {windows} windows"
        )
    texts = max(1, min(left, round(window.segments * windows) - len(rows)))
    texts += (texts + len(rows)) % 2 if pairs else 0
    word = next(token for token in range(config.text.vocab_size) if token not in _placeholders(config))
    rows += [torch.full((length,), word) for length in _shares(left, texts)]
    learnt = np.floor(np.arange(tokens + 1) * (window.targets / window.length))
    segments = len(rows)
    return Batch(
        torch.cat(rows),
        torch.from_numpy(np.diff(learnt) > 0),
        torch.tensor([0, *accumulate(map(len, rows))]),
        inputs,
        torch.empty(segments, device="meta") if pairs else None,
    )


def _placeholders(config: ModelConfig) -> set[int]:
    return {part.token_id for part in (config.vision, config.audio) if part is not None}


def _shares(total: int, parts: int) -> list[int]:
    """Whole numbers that differ by 1 at most and make `total`."""
    return [total * (number + 1) // parts - total * number // parts for number in range(parts)]
