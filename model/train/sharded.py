"""Weights, gradients and optimizer in shares, one a rank: FSDP2, for stages that train the language model.

A layer's weights are whole while it computes, and its gradients are summed and cut into shares as soon as they are
there. Both are collectives of all ranks, so each rank has to go through the same layers the same number of times: which
holds of text, and of passes that are equally many. What is frozen stays whole on every rank.
Source: torch.distributed.fsdp.fully_shard; arXiv 2304.11277.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from gristmill.model.phi4.blocks import stacks
from gristmill.model.train.gradients import check_types
from gristmill.model.train.ranks import Ranks


def shard(
    model: nn.Module, objective: nn.Module, trained: Mapping[str, nn.Parameter], ranks: Ranks
) -> dict[str, nn.Parameter]:
    """Leaves each rank its share of the trained parameters of `model`, for good. -> They by name, as they are now.

    `objective`: a module over the model, by which it is called. Raises ValueError as `Gradients` does, and for trained
    parameters that are none of the model.
    """
    if own := sorted(set(trained) - {name for name, _ in model.named_parameters()}):
        raise ValueError(f"shard: {own[0]} is no parameter of the model; an objective with its own is not sharded")
    device = check_types(trained)
    mesh = init_device_mesh(device.type, (ranks.world,))
    learning = {id(parameter) for parameter in trained.values()}
    frozen = {parameter for parameter in objective.parameters() if id(parameter) not in learning}
    for stack in stacks(model):
        for block in stack:
            if any(id(parameter) in learning for parameter in block.parameters()):
                fully_shard(block, mesh=mesh, ignored_params=frozen)
    # What no block has, embeddings and the last norm, is whole from the objective's first operation to its last: it is
    # used outside of their modules too, as the head of tied embeddings.
    fully_shard(objective, mesh=mesh, ignored_params=frozen)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            # Sums, not means: the loop divides by the targets of all ranks. By a plain sum, the only one that gloo has.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return {name: parameter for name, parameter in model.named_parameters() if name in trained}
