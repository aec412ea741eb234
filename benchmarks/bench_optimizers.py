"""Does Muon pay? AdamW against Muon with AdamW for the rest, on word problems, from scratch, in equally many steps.

A model of a million parameters learns the answers of generated word problems, a window of them as a mixture packs it.
Each side has the better of two rates, between which its optimum was looked for by hand; a round is a seed of the
weights and the order of windows, which is the same for both. What is compared is the loss on held-out problems and the
CPU time of a step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.harness import Report, Row, figure, require_equal
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.segments import Segment
from gristmill.model.processing.text import Tokenizer
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.model.shards.files import ShardFile, ShardWriter
from gristmill.model.train.loop import Trainer
from gristmill.model.train.objective import Objective, collate
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.schedule import Schedule
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.stage import TrainStage
from gristmill.synth.tasks.instructions import distinct
from gristmill.synth.tasks.maths import problem

WINDOW, BATCH = 256, 8
CONFIG = replace(PRESETS["nano"], vision=None, audio=None, adapters=())
RATES = {"adamw": (2e-3, 4e-3), "muon": (8e-3, 1.6e-2)}
Window = dict[str, np.ndarray]


class Outcome(NamedTuple):
    """The loss on held-out windows in nats a target, CPU seconds of a step, and the hash of the order of windows."""

    loss: float
    seconds: float
    order: str


def windows_of(count: int) -> list[Window]:
    """So many problems, asked and answered, in windows that they fill one after the other."""
    rows = [row.fields for row in distinct(problem, count, "optimizers")]
    tokenizer = Tokenizer.from_bytes(train_tokenizer((f"{row['question']} {row['answer']}" for row in rows), 2048))
    windows, ids, learn, ends = list[Window](), list[int](), list[bool](), [0]
    for row in rows:
        turn = [Segment("<|user|>", special=True), Segment(row["question"]), Segment("<|assistant|>", special=True)]
        answer = [Segment(row["answer"], loss_mask=True), Segment("<|end|>", special=True, loss_mask=True)]
        encoded = tokenizer.encode([[*turn, *answer]])
        if len(encoded.ids) > WINDOW:
            continue
        if len(ids) + len(encoded.ids) > WINDOW:
            windows.append(_window(ids, learn, ends))
            ids, learn, ends = [], [], [0]
        ids, learn = [*ids, *encoded.ids.tolist()], [*learn, *encoded.loss_mask.tolist()]
        ends.append(len(ids))
    return windows


def _window(ids: Sequence[int], learn: Sequence[bool], ends: Sequence[int]) -> Window:
    return {
        "input_ids": np.array(ids, np.int32),
        "loss_mask": np.array(learn, bool),
        "cu_seqlens": np.array(ends, np.int32),
    }


def stored(folder: Path, windows: Sequence[Window]) -> Source:
    """The windows as a shard."""
    with ShardWriter(folder / "a.tar", folder / "a.index") as writer:
        for number, arrays in enumerate(windows):
            writer.write(f"w{number:05d}", {}, arrays, tokens=len(arrays["input_ids"]))
    shard = ShardFile("a.tar", "a.index", writer.samples, writer.bytes, writer.sha256)
    return Source([shard], lambda name: (folder / name).open("rb"))


def trained(kind: str, lr: float, seed: int, steps: int, source: Source, held_out: Sequence[Window]) -> Outcome:
    """Trains a new model, and asks it for the held-out windows."""
    stage = TrainStage(
        "bench",
        frozenset({Part.LANGUAGE}),
        "bench@v1",
        batch=BATCH,
        steps=steps,
        seed=seed,
        optim=Optim(lr=lr, kind=kind),
        schedule=Schedule("cosine", min(10, steps - 1), 0.05),
    )
    model = Multimodal.seeded(CONFIG, seed)
    objective = Objective(model)
    settings = Settings(windows_per_pass=BATCH)
    trainer = Trainer(stage, model, objective, source, config=CONFIG, base="bench", settings=settings)
    start = time.process_time()
    order = trainer.train().order
    seconds = (time.process_time() - start) / steps
    loss, targets = 0.0, 0
    with torch.no_grad():
        for window in held_out:
            of_window, count = objective(collate([window]))
            loss, targets = loss + float(of_window), targets + int(count)
    return Outcome(loss / targets, seconds, order)


def run(tiny: bool) -> Report:
    """The contest. `tiny`: a few steps, for the tests."""
    problems, steps, seeds = (60, 2, 1) if tiny else (6000, 150, 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best: dict[str, list[Outcome]] = {kind: [] for kind in RATES}
    try:
        with tempfile.TemporaryDirectory() as folder:
            windows = windows_of(problems)
            cut = max(1, len(windows) // 20)
            held_out, source = windows[:cut], stored(Path(folder), windows[cut:])
            for seed in range(seeds):
                for kind, rates in RATES.items():
                    outcomes = [trained(kind, lr, seed, steps, source, held_out) for lr in rates]
                    best[kind].append(min(outcomes))
    finally:
        torch.set_num_threads(threads)
    require_equal("orders of windows", *([outcome.order for outcome in best[kind]] for kind in RATES))
    pairs = list(zip(best["adamw"], best["muon"], strict=True))
    checked = "windows and their order"
    return Report(
        name="optimizers",
        data=f"{len(windows):,} windows of {WINDOW} tokens of word problems, {steps} steps of {BATCH}",
        rounds=seeds,
        rows=(
            Row("held-out loss, AdamW", figure([adamw.loss for adamw, _ in pairs]), "nats", checked),
            Row("held-out loss, Muon for matrices", figure([muon.loss for _, muon in pairs]), "nats", checked),
            Row("CPU time of a step, Muon to AdamW", figure([m.seconds / a.seconds for a, m in pairs]), "x"),
        ),
        notes=(f"rates tried: {', '.join(f'{kind} {rates}' for kind, rates in RATES.items())}; a round is a seed",),
        details={"torch": torch.__version__},
    )
