"""What `--plan` says of a training before it starts: of every stage what it trains, on how much, with which means.

Memory and time follow from shapes (`model.plan.estimate`), of a stage too that waits for the ones before it. A stage
that is done is only named. The same facts are lines for people and values for programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gristmill.lake.versions.manifest import Manifest
from gristmill.model.assembly.shapes import parts_of
from gristmill.model.phi4.parts import Part
from gristmill.model.plan.estimate import Estimate, Pace, Window, estimate
from gristmill.pipelines.training.lookup import StageLookup
from gristmill.stages.mix.pairs import of_pairs
from gristmill.stages.run.unfinished import Outlook
from gristmill.stages.train.job import Execution
from gristmill.stages.train.local import objective_of

ASSUMED_GPU = "NVIDIA H100"
"""What a training on a GPU is reckoned for where there is none to ask."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a recipe. `manifest`: the version that it came to, None: it is not done; `reached`: steps of it that
    are."""

    lookup: StageLookup
    manifest: Manifest | None = None
    reached: int = 0


def outlook(stages: Sequence[PlannedStage], execution: Execution) -> Outlook:
    """Of a recipe's stages, in their order. Costs a second or some a stage that is not done."""
    lookups = {f"stage:{stage.lookup.stage.name}": stage.lookup for stage in stages}
    lines: list[str] = []
    values: list[dict[str, Any]] = []
    for planned in stages:
        needs = None
        if planned.manifest is None:
            needs = _estimate(planned.lookup, lookups, execution)
        about = _values(planned, needs)
        values.append(about)
        lines += _lines(about)
    return Outlook(tuple(lines), values)


def window_of(mixture: Manifest) -> Window:
    """A window of a mixture, as its manifest says they are on average."""
    statistics = mixture.statistics
    count = statistics["windows"]
    samples = statistics["samples"] * (2 if of_pairs(mixture) else 1)  # a pair is one sample, of two segments
    pieces = statistics["documents"] + samples + statistics["documents_cut"]
    return Window(
        length=mixture.recipe["window"],
        tokens=statistics["tokens"] / count,
        segments=max(1.0, pieces / count),
        targets=statistics["loss_tokens"] / count,
        crops=statistics.get("crops", 0) / count,
        frames=statistics.get("frames", 0) / count,
    )


def _estimate(lookup: StageLookup, lookups: Mapping[str, StageLookup], execution: Execution) -> Estimate:
    settings = execution.settings
    pace = Pace(
        device=_device(execution.device, execution.gpus),
        ranks=execution.ranks,
        windows_per_pass=settings.windows_per_pass,
        recompute=settings.recompute,
        shard=settings.shard,
    )
    stored = {part: kind for part in parts_of(lookup.config) if (kind := _kind(part, lookup, lookups))}
    stage = lookup.stage
    window = window_of(lookup.mixture)
    return estimate(
        stage, lookup.config, window, pace, stored=stored, objective=lambda model: objective_of(stage, model)
    )


def _device(name: str, gpus: float) -> str:
    """The device as `Pace` has it."""
    if torch.cuda.is_available() and name != "cpu":
        return torch.cuda.get_device_name()
    return ASSUMED_GPU if name.startswith("cuda") or gpus else "cpu"


def _kind(part: Part, lookup: StageLookup, lookups: Mapping[str, StageLookup]) -> torch.dtype:
    """The type that a part has which a stage takes and does not train: of a version, that of its language model; what
    a stage trained, or makes anew, is float32."""
    source = lookup.taken.get(part)
    if source is None:
        return torch.float32
    if source.manifest is not None:
        kind: torch.dtype = getattr(torch, source.manifest.statistics["dtype"])
        return kind
    before = lookups[source.name]
    return torch.float32 if part in before.stage.trainable else _kind(part, before, lookups)


def _values(planned: PlannedStage, needs: Estimate | None) -> dict[str, Any]:
    """What is known of a stage, as JSON has it, in bytes and seconds of a rank; of one that is done, not its needs."""
    lookup = planned.lookup
    stage, facts, steps = lookup.stage, lookup.facts, lookup.steps
    tokens = round(steps * stage.batch * facts.tokens / facts.windows)
    about: dict[str, Any] = {
        "stage": stage.name,
        "trained": sorted(stage.trainable),
        "frozen": sorted(parts_of(lookup.config) - stage.trainable),
        "data": str(lookup.mixture),
        "steps": steps,
        "batch": stage.batch,
        "window": facts.window,
        "tokens": tokens,
        "epochs": round(tokens / facts.tokens, 3),
        "peak_lr": stage.peak,
        "done": None if planned.manifest is None else str(planned.manifest),
        "steps_reached": steps if planned.manifest is not None else planned.reached,
    }
    if needs is None:
        return about
    memory, left = needs.memory, steps - planned.reached
    about["trained"] = {str(part): needs.trained.get(part, 0) for part in sorted(stage.trainable)}
    about["frozen"] = {str(part): needs.parameters[part] for part in about["frozen"]}
    about["memory"] = {
        "parameters": sum(memory.parameters.values()),
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "batch": memory.batch,
        "activations": memory.activations,
        "update": memory.update,
        "peak": memory.peak,
    }
    about["checkpoint_bytes"] = needs.checkpoint
    about["flops_a_step"] = needs.flops
    about["seconds_a_step"] = needs.seconds
    about["seconds_left"] = None if needs.seconds is None else left * needs.seconds
    about["seconds_by"] = needs.by
    return about


def _lines(about: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    head = f"stage {about['stage']}: "
    if about["done"] is not None:
        return [f"{head}done, {about['done']}"]
    trained, frozen = (_parts(about[name]) for name in ("trained", "frozen"))
    memory = about["memory"]
    kinds = ", ".join(f"{name} {_bytes(memory[name])}" for name in ("parameters", "gradients", "optimizer"))
    length = (
        f"{about['steps']:,} steps of {about['batch']} windows of {about['window']:,} of {about['data']}: about"
        f" {about['tokens']:,} tokens, {about['epochs']:g} epochs"
    )
    reached = f"; {about['steps_reached']:,} are done" if about["steps_reached"] else ""
    each = about["seconds_a_step"]
    time = about["seconds_by"]
    if each is not None:
        time = f"about {each:.3g} s a step and {_duration(about['seconds_left'])} in all, by {time}"
    return [
        f"{head}trains {trained}; frozen: {frozen or 'nothing'}",
        f"  {length}{reached}; peak LR {about['peak_lr']:.2e}",
        f"  memory of a rank: {_bytes(memory['peak'])} of tensors; {kinds}, and for a pass"
        f" {_bytes(memory['activations'])}, for the update {_bytes(memory['update'])}",
        f"  {time}; a checkpoint {_bytes(about['checkpoint_bytes'])}",
    ]


def _parts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{part} ({count:,} parameters)" for part, count in numbers.items())


def _bytes(count: int) -> str:
    """In the unit that leaves a number from 1 to 1,000."""
    value, units = float(count), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
