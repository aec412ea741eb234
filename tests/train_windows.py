"""Packed windows that follow from their numbers, a tiny model with dropout, and objectives over it, for the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shard_files import opener
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gristmill.model.phi4.config import ModelConfig, RopeParameters, TextConfig
from gristmill.model.phi4.parts import Part
from gristmill.model.shards.files import ShardFile, ShardWriter
from gristmill.model.train.loop import Trainer
from gristmill.model.train.objective import Batch
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.settings import Settings, Source
from gristmill.model.train.stage import TrainStage
from gristmill.model.train.state import Reached

VOCAB, WINDOW = 40, 24

TINY = ModelConfig(
    TextConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        rope_parameters=RopeParameters(short_factor=(), long_factor=()),
        bos_token_id=0,
        pad_token_id=0,
        eos_token_id=(0,),
    )
)
"""The sizes that `Tiny` goes by, where the trainer asks for a config."""


def window(number: int, length: int, vocab: int) -> dict[str, np.ndarray]:
    """The arrays of a window: samples of 2 to half its length, of which every second token or so is one to learn."""
    rng = np.random.default_rng(number)
    bounds = [0]
    while bounds[-1] < length:
        bounds.append(min(length, bounds[-1] + int(rng.integers(2, length // 2))))
    ids = rng.integers(1, vocab, length).astype(np.int32)
    loss_mask = rng.random(length) < rng.choice([0.1, 0.5, 0.9])
    loss_mask[bounds[:-1]] = False
    return {"input_ids": ids, "loss_mask": loss_mask, "cu_seqlens": np.array(bounds, np.int32)}


def write_windows(folder: Path, count: int = 11, length: int = WINDOW, vocab: int = VOCAB) -> Source:
    """A source of windows in two shards; every fifth window is shorter by a third, as a mixture's last one."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[ShardFile] = []
    for name, numbers in (("a", range(count // 2)), ("b", range(count // 2, count))):
        with ShardWriter(folder / f"{name}.tar", folder / f"{name}.index") as writer:
            for number in numbers:
                tokens = length - (length // 3 if number % 5 == 4 else 0)
                arrays = window(number, tokens, vocab)
                writer.write(f"w{number:04d}", {"number": number}, arrays, tokens=tokens)
        shards.append(ShardFile(f"{name}.tar", f"{name}.index", writer.samples, writer.bytes, writer.sha256))
    return Source(shards, opener(folder))


def write_arrays(folder: Path, windows: Sequence[dict[str, np.ndarray]]) -> Source:
    """A source of these windows, in one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder / "a.tar", folder / "a.index") as writer:
        for number, arrays in enumerate(windows):
            writer.write(f"w{number:04d}", {}, arrays, tokens=len(arrays["input_ids"]))
    return Source([ShardFile("a.tar", "a.index", writer.samples, writer.bytes, writer.sha256)], opener(folder))


class Tiny(nn.Module):
    """A model of one part that knows the last token alone. [T] -> logits [T, VOCAB]."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = (nn.Embedding(VOCAB, 16), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, VOCAB))
            self.language = nn.Sequential(*layers)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token."""
        return self.language(input_ids)


class NextToken(nn.Module):
    """Cross-entropy on the tokens to learn, of a model that gives logits for tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum of losses, number of targets)."""
        logits = self.model(batch.input_ids)[batch.targets - 1]
        return cross_entropy(logits, batch.input_ids[batch.targets], reduction="sum"), torch.tensor(len(batch.targets))


def stage(**changes: Any) -> TrainStage:
    """A stage of 12 steps of 3 windows that trains `language`."""
    fields: dict[str, Any] = {
        "name": "pretrain",
        "trainable": frozenset({Part.LANGUAGE}),
        "data": "mix@v1",
        "batch": 3,
        "steps": 12,
        "optim": Optim(lr=1e-2),
        "seed": 5,
    }
    return TrainStage(**{**fields, **changes})


def tiny_trainer(source: Source, folder: Path | None = None, **changes: Any) -> Trainer:
    """A trainer of a new `Tiny`; `changes`: of its stage under "stage", and any argument of `Trainer`."""
    arguments: dict[str, Any] = {"settings": Settings(checkpoint_every=2), "base": "tiny", "config": TINY, **changes}
    of_stage = arguments.pop("stage", {})
    model = arguments.pop("model", None) or Tiny()
    objective = arguments.pop("objective", None) or NextToken(model)
    return Trainer(stage(**of_stage), model, objective, source, folder=folder, **arguments)


def run_through(source: Source) -> tuple[dict[str, Tensor], Reached]:
    """Weights and end of a run of `Tiny` on one thread, without checkpoints: what a killed one is compared with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = Tiny()
    reached = tiny_trainer(source, model=model).train()
    torch.set_num_threads(threads)
    return model.state_dict(), reached
