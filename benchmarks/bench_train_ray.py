"""What does Ray cost a step of training, against the same steps in this process?

One rank on one thread trains a model so small that a step is a few milliseconds, with checkpoints on the way, of which
Ray is told; the start of the ranks is not timed, which takes Ray seconds and is paid once. Both take turns, so that the
machine's load falls on both. They have to come to the same weights, to the bit. A step's overhead is the difference of
the two, checkpoints included: in CPU time of the process, Ray's threads in it too, and on the clock, which also counts
waits for Ray and whatever else the machine does.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.harness import Report, Row, figure, require_equal
from gristmill.model.phi4.config import ModelConfig, RopeParameters, TextConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.model.shards.files import ShardFile, ShardWriter
from gristmill.model.train.loop import Trainer
from gristmill.model.train.objective import Objective
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.stage import TrainStage
from gristmill.model.train.state import Reached
from gristmill.stages.run.cluster import connect
from gristmill.stages.train.job import Execution
from gristmill.stages.train.ray_train import on_ray

VOCAB, WINDOW, WINDOWS = 512, 128, 64
CONFIG = ModelConfig(
    TextConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        rope_parameters=RopeParameters(short_factor=(), long_factor=()),
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=(0,),
    )
)


class Outcome(NamedTuple):
    """Seconds of a run, of CPU and on the clock, and the digest of its weights."""

    cpu: float
    wall: float
    digest: str


@dataclass(frozen=True)
class Rounds:
    """What both sides do: `rounds` times `steps` steps over the windows in `folder`, a time only when it is told to."""

    folder: Path
    shard: ShardFile
    steps: int
    rounds: int

    def __call__(self, ranks: Ranks, on_checkpoint: Callable[[Reached], None]) -> list[Outcome]:
        """On Ray: rounds by turns with this process, which says when by a file."""
        outcomes = []
        for number in range(self.rounds):
            while not (self.folder / f"go-{number}").exists():
                time.sleep(0.05)
            outcomes.append(self.train(ranks, on_checkpoint))
            (self.folder / f"done-{number}").touch()
        return outcomes

    def train(self, ranks: Ranks | None = None, on_checkpoint: Callable[[Reached], None] | None = None) -> Outcome:
        """A run, its set-up not timed."""
        stage = TrainStage(
            "bench", frozenset({Part.LANGUAGE}), "bench@v1", batch=2, steps=self.steps, optim=Optim(lr=1e-3)
        )
        source = Source([self.shard], lambda name: (self.folder / name).open("rb"))
        model = Multimodal.seeded(CONFIG, 0)
        with tempfile.TemporaryDirectory() as checkpoints:
            trainer = Trainer(
                stage,
                model,
                Objective(model),
                source,
                config=CONFIG,
                base="bench",
                folder=Path(checkpoints) / "c",
                settings=Settings(checkpoint_every=max(1, self.steps // 4)),
                ranks=ranks,
                on_checkpoint=on_checkpoint,
            )
            cpu, wall = time.process_time(), time.perf_counter()
            trainer.train()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        digest = hashlib.sha256()
        for value in model.state_dict().values():
            digest.update(value.numpy().tobytes())
        return Outcome(cpu, wall, digest.hexdigest())


def write_windows(folder: Path) -> ShardFile:
    """A shard of windows of random tokens."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder / "a.tar", folder / "a.index") as writer:
        for number in range(WINDOWS):
            arrays = {
                "input_ids": rng.integers(1, VOCAB, WINDOW).astype(np.int32),
                "loss_mask": np.arange(WINDOW) % WINDOW > 0,
                "cu_seqlens": np.array([0, WINDOW], np.int32),
            }
            writer.write(f"w{number:04d}", {}, arrays, tokens=WINDOW)
    return ShardFile("a.tar", "a.index", writer.samples, writer.bytes, writer.sha256)


def by_turns(rounds: Rounds) -> tuple[list[Outcome], list[Outcome]]:
    """Of each round, here and on Ray."""
    connect(2)  # not by the thread: what Ray starts ends with the thread that started it. Others here may want two CPUs
    here: list[Outcome] = []
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(on_ray, rounds, Execution(trainer="ray"))
        there.add_done_callback(lambda future: over.set())
        for number in range(rounds.rounds):
            here.append(rounds.train())
            (rounds.folder / f"go-{number}").touch()
            while not (rounds.folder / f"done-{number}").exists() and not over.wait(0.05):
                pass  # over: it failed, and its error comes at the end
    return here, there.result()


def run(tiny: bool) -> Report:
    """The contest. `tiny`: a few steps, for the tests."""
    steps, count = (4, 2) if tiny else (200, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            here, there = by_turns(Rounds(folder, write_windows(folder), steps, count))
    finally:
        torch.set_num_threads(threads)
    require_equal("weights", [outcome.digest for outcome in here], [outcome.digest for outcome in there])
    pairs = list(zip(here, there, strict=True))[1:]  # the first round imports and allocates
    ms = 1e3 / steps
    cpu = figure([(ray.cpu - local.cpu) * ms for local, ray in pairs])
    wall = figure([(ray.wall - local.wall) * ms for local, ray in pairs])
    return Report(
        name="train_ray",
        data=f"{steps} steps of 2 windows of {WINDOW} tokens, a checkpoint every {max(1, steps // 4)}",
        rounds=len(pairs),
        rows=(
            Row("a step in process, CPU time", figure([local.cpu * ms for local, _ in pairs]), "ms"),
            Row(
                "a step in a rank on Ray", figure([ray.cpu * ms for _, ray in pairs]), "ms", "every weight, to the bit"
            ),
        ),
        notes=tuple(
            f"Ray adds {added.median:.2f} ms a step {what} ({added.low:.2f} to {added.high:.2f} by round)"
            for what, added in (("of CPU time", cpu), ("on the clock", wall))
        ),
        details={"added_cpu_ms": cpu._asdict(), "added_wall_ms": wall._asdict(), "torch": torch.__version__},
    )
