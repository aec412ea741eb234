"""Gradients of a step: added up over passes and ranks, divided by the targets, clipped.

All of them lie in one flat buffer, of which each parameter's is a view: adding up over passes and the sum over ranks
are one operation each, and a part that a batch does not reach has zeros there rather than nothing, on every rank alike.
Trained parameters are float32: in bfloat16 an update below 1/256 of a weight would be lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from gristmill.model.train.ranks import Ranks, whole


class NotSummed(RuntimeError):
    """Gradients are not where they would be added up: a fault of the objective or of the stage, not of a rank."""


class Gradients:
    """The gradients of parameters as one buffer, float32 [numbers], zero until a backward pass adds to it.

    Raises ValueError for a parameter of another type, or two on different devices.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter]) -> None:
        device = check_types(trained)
        self._trained = dict(trained)
        count = sum(parameter.numel() for parameter in trained.values())
        self.flat = torch.zeros(count, device=device)
        """All of them, in the order of the parameters."""
        start = 0
        for parameter in trained.values():
            parameter.grad = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def clear(self) -> None:
        """Zeros, before the first pass of a step."""
        self.flat.zero_()

    def add_up(self, ranks: Ranks) -> None:
        """After the last pass: the sums over all ranks. Raises NotSummed if something has given a parameter a
        gradient of its own, which would not be summed."""
        self._check()
        ranks.add(self.flat)

    def mean(self, targets: int, clip: float | None) -> float:
        """Divides by the targets, and clips. -> The norm before it was clipped."""
        self.flat.div_(max(targets, 1))
        return clipped(self._trained.values(), clip)

    def _check(self) -> None:
        memory = self.flat.untyped_storage().data_ptr()
        for name, parameter in self._trained.items():
            if parameter.grad is None or parameter.grad.untyped_storage().data_ptr() != memory:
                raise NotSummed(f"the gradient of {name} was replaced: an objective must not call zero_grad")

    def release(self) -> None:
        """Takes the buffer from the parameters, which have no gradient afterwards."""
        for parameter in self._trained.values():
            parameter.grad = None


class ShardedGradients:
    """As `Gradients`, of parameters in shares: a pass has added its sums over all ranks when its backward has ended."""

    def __init__(self, trained: Mapping[str, nn.Parameter]) -> None:
        self._parameters = list(trained.values())

    def clear(self) -> None:
        """Nothing, before the first pass of a step."""
        self.release()

    def add_up(self, ranks: Ranks) -> None:
        """They are added up. Raises NotSummed where a pass reached none of a parameter: its share has no sum."""
        if any(parameter.grad is None for parameter in self._parameters):
            raise NotSummed("a parameter that is trained got no gradient in any pass: such a stage is not sharded")

    def mean(self, targets: int, clip: float | None) -> float:
        """Divides by the targets, and clips. -> The norm before it was clipped."""
        for parameter in self._parameters:
            assert parameter.grad is not None, "seen by add_up"
            parameter.grad.div_(max(targets, 1))
        return clipped(self._parameters, clip)

    def release(self) -> None:
        """Takes the gradients from the parameters."""
        for parameter in self._parameters:
            parameter.grad = None


def check_types(trained: Mapping[str, nn.Parameter]) -> torch.device:
    """The device of parameters. Raises ValueError for one that is not float32, or two on different devices."""
    for name, parameter in trained.items():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}: trained parts are kept in float32; load them so")
    if len(devices := {parameter.device for parameter in trained.values()}) != 1:
        raise ValueError(f"trained parameters lie on {sorted(map(str, devices))}: one device is allowed")
    return devices.pop()


def clipped(parameters: Iterable[nn.Parameter], clip: float | None) -> float:
    """Scales gradients down to a norm of `clip`, if it is larger. -> Their norm before."""
    return float(whole(nn.utils.clip_grad_norm_(list(parameters), math.inf if clip is None else clip)))
