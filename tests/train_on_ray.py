"""What ranks do in tests: they train `Tiny`, and one of them is killed once, at an event that is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from shard_files import opener
from torch import Tensor
from train_kills import kill_me, killing
from train_windows import NextToken, Tiny, tiny_trainer

from gristmill.model.shards.files import ShardFile
from gristmill.model.train.objective import Batch
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Source
from gristmill.model.train.state import Reached


class Kill(NamedTuple):
    """`rank` dies at the event before which there were `count` of the same: "pass", of windows through the model, or
    one of `train_kills`."""

    rank: int
    event: str
    count: int


class Counting(NextToken):
    """Kills its process at a pass."""

    def __init__(self, model: torch.nn.Module, left: int) -> None:
        super().__init__(model)
        self.left = left

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As NextToken."""
        self.left -= 1
        if self.left < 0:
            kill_me()
        return super().forward(batch)


@dataclass(frozen=True)
class TinyRun:
    """12 steps of 4 windows from below `windows`; checkpoints below `folder`, and weights at its end."""

    windows: Path
    shards: Sequence[ShardFile]
    folder: Path
    kill: Kill | None = None

    def __call__(self, ranks: Ranks, on_checkpoint: Callable[[Reached], None] | None = None) -> Reached:
        """What a rank does. An error of its stage is "error" as the kill's event."""
        model, dies = Tiny(), self.dies(ranks)
        if dies is not None and dies.event == "error":
            raise ValueError(f"rank {ranks.rank} was told to raise")
        on_step: Callable[[Any], None] | None = None
        if dies is not None and dies.event != "pass":
            on_step = killing(dies.event, dies.count, pytest.MonkeyPatch())  # never undone: it is of this process
        objective = Counting(model, dies.count if dies is not None and dies.event == "pass" else 1 << 30)
        reached = tiny_trainer(
            Source(self.shards, opener(self.windows)),
            self.folder / "c",
            model=model,
            objective=objective,
            stage={"batch": 4},
            ranks=ranks,
            on_step=on_step,
            on_checkpoint=on_checkpoint,
        ).train()
        if ranks.rank == 0:
            save_file(model.state_dict(), self.folder / "weights")
        return reached

    def dies(self, ranks: Ranks) -> Kill | None:
        """The kill, if it is this rank's, and its first time."""
        if self.kill is None or self.kill.rank != ranks.rank:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return None
        return self.kill
