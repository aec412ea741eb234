"""The processes that train together: replicas that add up their gradients, or holders of a share of the weights each.

What replicas add up is one flat buffer of the trained parts, zeros where a rank's batch reached none of a part.
Collectives of a part each would differ from rank to rank with what their batches hold, and wait for each other forever.
Shares (`model.train.sharded`) are for text alone, where every pass reaches every weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each rank has a share (DTensor): they have to ask for it together. Any other, itself."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def own_share(tensor: Tensor, other: Any) -> Tensor:
    """This rank's share of a whole tensor, if `other`, of its shape, lies in shares (DTensor); else the tensor."""
    if not hasattr(other, "placements"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # a second to import, for nothing where there are no shares

    # Every rank has the whole: none needs to be sent anything.
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
