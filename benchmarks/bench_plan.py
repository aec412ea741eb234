"""How near is what `--plan` says of a training before it starts to what the training then takes?

Predicted over measured, by the trainer itself over windows in shards, one thread. Seconds a step: a prediction is of a
machine with nothing else to do, so it is compared with the CPU time of a run's steps, the median. Resident memory: what
a training adds to a process that has trained something small before. Bytes of tensors: as torch's profiler counts them
in one pass; these do not depend on the machine.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.harness import Differ, Figure, Report, Row, alone, figure
from gristmill.lake.store.objects import scratch
from gristmill.model.phi4.blocks import checkpoint_activations
from gristmill.model.phi4.config import ModelConfig, TextConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.plan.estimate import Estimate, Pace, Window, estimate
from gristmill.model.shards.files import ShardFile, ShardReader, ShardWriter
from gristmill.model.train.loop import Trainer
from gristmill.model.train.metrics import Progress
from gristmill.model.train.objective import Objective, collate
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.stage import TrainStage

ALLOWED = 0.15
"""By how much the bytes of tensors may be off, as a share, before there are no figures to show."""

MORE = 4
"""Times as many windows in a pass, where resident memory is looked at: libraries need some tens of megabytes too."""


@dataclass(frozen=True)
class Case:
    """A stage on a model. `windows`: of a step, all in one pass; `length`: of a window, in tokens."""

    name: str
    config: ModelConfig
    trainable: frozenset[Part]
    windows: int
    length: int
    precision: str = "float32"
    recompute: float = 0.0

    @property
    def stage(self) -> TrainStage:
        """Of more steps than are run."""
        return TrainStage(
            "plan", self.trainable, "windows@v1", self.windows, Optim(1e-4), steps=6, precision=self.precision
        )

    def model(self) -> Multimodal:
        """Its model, from a seed."""
        model = Multimodal.seeded(self.config, 0)
        checkpoint_activations(model, self.recompute)
        return model

    def objective(self, model: Multimodal) -> Objective:
        """The loss of texts; where adapters are trained, by the one for images."""
        return Objective(model, adapter="vision" if Part.LORA_VISION in self.trainable else None)


def cases(tiny: bool) -> list[Case]:
    """Shapes, parts and switches that a plan has to tell apart."""
    nano = PRESETS["nano"].text
    text, adapters = ModelConfig(nano), replace(PRESETS["nano"], vision=None, audio=None)
    wide = ModelConfig(
        replace(nano, hidden_size=384, intermediate_size=1056, num_attention_heads=12, num_hidden_layers=3)
    )
    language, lora = frozenset({Part.LANGUAGE}), frozenset({Part.LORA_VISION})
    length = 128 if tiny else 1024
    every = [
        Case("nano", text, language, 2, length),
        Case("wide", wide, language, 1, length),
        Case("recomputed", text, language, 2, length, recompute=1.0),
        Case("bfloat16", text, language, 2, length, precision="bfloat16"),
        Case("adapters", adapters, lora, 2, length),
    ]
    return every[:1] if tiny else every


def write(folder: Path, config: TextConfig, length: int) -> Source:
    """A shard of windows of that length, with samples of 8 tokens to a quarter of it."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder / "a.tar", folder / "a.index") as writer:
        for number in range(24):
            bounds = [0]
            while bounds[-1] < length:
                bounds.append(min(length, bounds[-1] + int(rng.integers(8, length // 4))))
            ids = rng.integers(16, config.vocab_size, length).astype(np.int32)
            arrays = {"input_ids": ids, "loss_mask": rng.random(length) < 0.8, "cu_seqlens": np.array(bounds, np.int32)}
            writer.write(f"w{number:03d}", {}, arrays, tokens=length)
    shard = ShardFile("a.tar", "a.index", writer.samples, writer.bytes, writer.sha256)
    return Source([shard], lambda name: (folder / name).open("rb"))


def window_of(source: Source, length: int) -> Window:
    """What a mixture's manifest would say of the windows."""
    reader = ShardReader(source.shards, source.open, seed=0)
    try:
        arrays = [reader.sample(number).arrays for number in range(len(reader))]
    finally:
        reader.close()
    segments = statistics.mean(len(each["cu_seqlens"]) - 1 for each in arrays)
    return Window(length, length, segments, statistics.mean(int(each["loss_mask"].sum()) for each in arrays))


def predicted(case: Case, source: Source) -> Estimate:
    """What a plan says."""
    pace = Pace(windows_per_pass=case.windows, recompute=case.recompute)
    return estimate(case.stage, case.config, window_of(source, case.length), pace, objective=case.objective)


def trained(case: Case, source: Source) -> float:
    """CPU seconds of a step, the median without the first one."""
    seen: list[float] = [time.process_time()]
    model = case.model()
    settings = Settings(windows_per_pass=case.windows)

    def on_step(_: Progress) -> None:
        seen.append(time.process_time())

    how = {"config": case.config, "base": "none", "settings": settings, "on_step": on_step}
    Trainer(case.stage, model, case.objective(model), source, **how).train()  # type: ignore[arg-type]
    return statistics.median(after - before for before, after in pairwise(seen[1:]))


def resident(case: Case, folder: Path) -> int:
    """Bytes of resident memory that a training adds, at the most, to a process that has trained on next to nothing. To
    be run in a process of its own, since a peak never falls."""
    torch.set_num_threads(1)
    short = replace(case, length=64, windows=1)
    trained(short, write(folder, case.config.text, short.length))
    source = write(folder, case.config.text, case.length)
    before = psutil.Process().memory_info().rss
    trained(case, source)
    return _peak() - before


def _peak() -> int:
    """The most resident memory that this process has had."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


def of_tensors(case: Case, source: Source, folder: Path) -> int:
    """Bytes of tensors that are there at once in a pass, at the most, beside those before it."""
    model = case.model().train()
    objective = case.objective(model)
    reader = ShardReader(source.shards, source.open, seed=0)
    batch = collate([sample.arrays for _, sample in reader.iterate(0, stop=case.windows)])
    reader.close()
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if part_of(name) in case.trainable:
            parameter.requires_grad_()
            parameter.grad = torch.zeros_like(parameter)
    with torch.profiler.profile(profile_memory=True) as profile:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            loss, *_ = objective(batch)
        loss.backward()
    profile.export_chrome_trace(str(folder / "trace.json"))
    live = peak = 0
    for event in json.loads((folder / "trace.json").read_text())["traceEvents"]:
        if event["name"] == "[memory]":
            live += event["args"]["Bytes"]
            peak = max(peak, live)
    return peak


def run(tiny: bool) -> Report:
    """All cases. `tiny`: one of them, small, for the tests."""
    rounds = 1 if tiny else 3
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, Figure] = {}
    tensors: dict[str, float] = {}
    memory: dict[str, float] = {}
    try:
        for case in cases(tiny):
            with scratch() as folder:
                source = write(folder, case.config.text, case.length)
                activations = predicted(case, source).memory.activations
                tensors[case.name] = activations / of_tensors(case, source, folder)
                pairs = [(predicted(case, source).seconds or 0.0, trained(case, source)) for _ in range(rounds)]
                seconds[case.name] = figure([before / after for before, after in pairs])
                more = replace(case, windows=(1 if tiny else MORE) * case.windows)
                memory[case.name] = predicted(more, source).memory.peak / alone(resident, more, folder)
    finally:
        torch.set_num_threads(threads)
    if wrong := [name for name, ratio in tensors.items() if abs(ratio - 1) > ALLOWED]:
        raise Differ(f"plan: tensors of a pass, predicted over measured: {wrong[0]} {tensors[wrong[0]]:.3f}")
    return Report(
        name="plan",
        data="nano, a wider model, blocks recomputed, bfloat16, adapters alone",
        rounds=rounds,
        rows=(
            *(Row(f"seconds a step, predicted over measured, {name}", each, "x") for name, each in seconds.items()),
            Row("bytes of tensors, predicted over measured", figure(list(tensors.values())), "x", "within 15%"),
            Row("resident memory, predicted over measured", figure(list(memory.values())), "x"),
        ),
        notes=("seconds of a step are CPU time, on one thread", "the range of memory is over the cases"),
        details={"tensors": tensors, "resident": memory, "torch": torch.__version__},
    )
