"""Processes that train together, forked from the test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from gristmill.model.train.ranks import Ranks


def in_ranks(folder: Path, world: int, work: Callable[[Ranks], None]) -> list[int]:
    """Does work in so many processes of one group. -> How each of them ended, as `os.waitpid` says."""
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            try:
                os.environ["GLOO_SOCKET_IFNAME"] = "lo"
                dist.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=world)
                work(Ranks.of_group())
                dist.destroy_process_group()
                os._exit(0)
            except BaseException as error:
                os.write(2, f"rank {rank}: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    (folder / "meeting").unlink(missing_ok=True)
    return statuses
