"""The optimizer of a stage: AdamW over the trained parameters, weight decay on matrices alone.

All gradients lie in one flat buffer, of which each parameter's is a view: adding up over passes and the sum over
ranks are one operation each, and a part that a batch does not reach has zeros there rather than nothing, on
every rank alike. Trained parameters are float32: in bfloat16 an update below 1/256 of a weight would be lost.
Source: arXiv 1711.05101 (AdamW).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gristmill.model.train.optim_config import Optim


def build(optim: Optim, model: nn.Module, trained: Mapping[str, nn.Parameter]) -> torch.optim.AdamW:
    """AdamW over `trained`, parameters of `model` by name: those that decay, then those that do not."""
    decaying = decayed(model)
    groups: list[dict[str, Any]] = [
        {"params": [parameter for name, parameter in trained.items() if name in decaying]},
        {"params": [parameter for name, parameter in trained.items() if name not in decaying], "weight_decay": 0.0},
    ]
    lr = optim.lr if isinstance(optim.lr, float | int) else 0.0  # the loop sets it at every step
    return torch.optim.AdamW(groups, lr=lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay)


def decayed(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay is for: matrices and kernels, but no embedding.

    Norms, biases, separators and whatever else is a vector say how much, and where; pulling them to zero has no sense.
    Rows of an embedding would shrink at every step, seen or not (arXiv 2501.00656, section 3.3.3).
    """
    names: set[str] = set()
    for owner, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            if sum(size > 1 for size in parameter.shape) >= 2:
                names.add(f"{owner}.{leaf}" if owner else leaf)
    return names


class Gradients:
    """The gradients of parameters as one buffer, float32 [numbers], zero until a backward pass adds to it.

    Raises ValueError for a parameter of another type, or two on different devices.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter]) -> None:
        for name, parameter in trained.items():
            if parameter.dtype != torch.float32:
                raise ValueError(f"{name} is {parameter.dtype}: trained parts are kept in float32; load them so")
        if len(devices := {parameter.device for parameter in trained.values()}) != 1:
            raise ValueError(f"trained parameters lie on {sorted(map(str, devices))}: one device is allowed")
        self._trained = dict(trained)
        count = sum(parameter.numel() for parameter in trained.values())
        self.flat = torch.zeros(count, device=devices.pop())
        """All of them, in the order of the parameters."""
        start = 0
        for parameter in trained.values():
            parameter.grad = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def check(self) -> None:
        """Raises RuntimeError if something has given a parameter a gradient of its own, which would not be summed."""
        memory = self.flat.untyped_storage().data_ptr()
        for name, parameter in self._trained.items():
            if parameter.grad is None or parameter.grad.untyped_storage().data_ptr() != memory:
                raise RuntimeError(f"the gradient of {name} was replaced: an objective must not call zero_grad")

    def release(self) -> None:
        """Takes the buffer from the parameters, which have no gradient afterwards."""
        for parameter in self._trained.values():
            parameter.grad = None
