"""What ranks do in tests: they train `Tiny`, and one of them is killed once, at an event that is counted.

As a program: trains in so many ranks on Ray, WINDOWS FOLDER RANKS KILL, the last one as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from shard_files import opener
from torch import Tensor
from train_kills import kill_me, killing
from train_windows import NextToken, Tiny, tiny_trainer, write_windows

from gristmill.lake.store.local import LocalStore
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.s3 import S3Store
from gristmill.model.shards.files import ShardFile
from gristmill.model.train.objective import Batch
from gristmill.model.train.ranks import Ranks
from gristmill.model.train.settings import Source
from gristmill.model.train.state import Reached
from gristmill.stages.train.job import Execution
from gristmill.stages.train.mirror import CheckpointMirror

PREFIX = "runs/tiny/checkpoints/"


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


def surroundings() -> dict[str, Any]:
    """What a rank finds around it."""
    return {
        "threads": torch.get_num_threads(),
        "cwd": os.getcwd(),
        "backend": dist.get_backend() if dist.is_initialized() else None,
        "interfaces": [os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")],
    }


@dataclass(frozen=True)
class TinyRun:
    """12 steps of 4 windows from below `windows`; checkpoints below `folder`, and at the end a file with the weights.

    `lake`: where checkpoints are mirrored; each process then begins in a folder of its own.
    """

    windows: Path
    shards: Sequence[ShardFile]
    folder: Path
    kill: Kill | None = None
    lake: str = ""

    def __call__(self, ranks: Ranks, on_checkpoint: Callable[[Reached], None] | None = None) -> Reached:
        """What a rank does."""
        with ExitStack() as stack:
            checkpoints, mirror = self.folder / "c", None
            if self.lake:
                mirror = CheckpointMirror(open_store(self.lake, probe=False), PREFIX)
                checkpoints = Path(stack.enter_context(TemporaryDirectory())) / "c"
            return self._train(ranks, on_checkpoint, checkpoints, mirror)

    def _train(
        self,
        ranks: Ranks,
        on_checkpoint: Callable[[Reached], None] | None,
        checkpoints: Path,
        mirror: CheckpointMirror | None,
    ) -> Reached:
        model, dies = Tiny(), self.dies(ranks)
        on_step: Callable[[Any], None] | None = None
        if dies is not None and dies.event != "pass":
            store = S3Store if self.lake.startswith("s3://") else LocalStore
            on_step = killing(dies.event, dies.count, pytest.MonkeyPatch(), store)  # never undone: of this process
        reached = tiny_trainer(
            Source(self.shards, opener(self.windows)),
            checkpoints,
            model=model,
            objective=Counting(model, dies.count if dies is not None and dies.event == "pass" else 1 << 30),
            stage={"batch": 4},
            ranks=ranks,
            on_step=on_step,
            on_checkpoint=on_checkpoint,
            mirror=mirror,
        ).train()
        if ranks.rank == 0:
            save_file(model.state_dict(), self.folder / "weights", metadata={"order": reached.order})
        (self.folder / f"rank-{ranks.rank}").write_text(json.dumps(surroundings()))
        return reached

    def dies(self, ranks: Ranks) -> Kill | None:
        """The kill, if it is this rank's, and its first time."""
        if self.kill is None or self.kill.rank != ranks.rank:
            return None
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return None
        return self.kill


@dataclass(frozen=True)
class RaisesAtTheEnd:
    """A run after which rank 1 raises, while rank 0 waits for it; `folder` gets a line a rank with the step of each end
    that it came to."""

    run: TinyRun
    folder: Path

    def __call__(self, ranks: Ranks, on_checkpoint: Callable[[Reached], None]) -> Reached:
        """What a rank does. Raises ValueError on rank 1."""
        reached = self.run(ranks, on_checkpoint)
        with (self.folder / f"ends-{ranks.rank}").open("a") as file:
            file.write(f"{reached.step}\n")
        dist.barrier()  # both have said so
        if ranks.rank == 1:
            raise ValueError("rank 1 was told to raise")
        dist.barrier()
        return reached


def main(windows: str, folder: str, ranks: str, kill: str) -> None:
    """Trains on Ray. The windows are written there anew, and are the same."""
    from gristmill.stages.train.ray_train import on_ray

    source = write_windows(Path(windows))
    on_ray(
        TinyRun(Path(windows), source.shards, Path(folder), Kill(*json.loads(kill))),
        Execution(trainer="ray", ranks=int(ranks)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
