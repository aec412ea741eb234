"""The processes that train together, each with the whole model: replicas that add up their gradients.

What they add up is one flat buffer of the trained parts, zeros where a rank's batch reached none of a part. Collectives
of a part each would differ from rank to rank with what their batches hold, and wait for each other for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process's number among `world`, 0 to world - 1; the default is a process alone."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_group(cls) -> Ranks:
        """Of torch's default process group, which has been set up. Raises ValueError if it has not."""
        return cls(dist.get_rank(), dist.get_world_size())

    def add(self, tensor: Tensor) -> None:
        """Puts the sum over all ranks into `tensor`, on every rank alike; all of them have to call it."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def wait(self) -> None:
        """Until every rank has called it."""
        if self.world > 1:
            dist.barrier()

    def agree(self, value: int, what: str) -> None:
        """Raises ValueError if ranks have different values of the same thing."""
        if self.world > 1:
            values: list[int | None] = [None] * self.world
            dist.all_gather_object(values, value)
            if len(set(values)) > 1:
                raise ValueError(f"the ranks have different {what}: {values}, by rank; all must see the same folder")
