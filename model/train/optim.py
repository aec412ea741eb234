"""The optimizer of a stage: AdamW over the trained parameters, weight decay on matrices alone; or Muon for matrices.

Muon makes the momentum of a matrix orthogonal, so that all its directions move alike. It is for what maps hidden
channels to others: an embedding's rows are looked up one by one, the head's are classes, an adapter's two matrices are
one thin product. These, norms and biases stay with AdamW, at the same rate, to whose size Muon's updates are scaled.
Source: arXiv 1711.05101 (AdamW); arXiv 2502.16982, section 2.2 (Muon, and its scale of 0.2 sqrt(max(rows, columns))).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from gristmill.model.phi4.lora import MultiLoRALinear
from gristmill.model.train.optim_config import Optim


def build(
    optim: Optim, model: nn.Module, trained: Mapping[str, nn.Parameter], objective: nn.Module | None = None
) -> torch.optim.Optimizer:
    """The optimizer of `trained`, parameters by name: those of `model`, and under `objective.` those that `objective`
    has of its own."""
    owners = [("", model)] + ([("objective.", objective)] if objective is not None else [])
    decaying = {prefix + name for prefix, owner in owners for name in decayed(owner)}
    by_muon = {prefix + name for prefix, owner in owners for name in matrices(owner)} if optim.kind == "muon" else set()
    lr = optim.lr if isinstance(optim.lr, float | int) else 0.0  # the loop sets it anyway
    by_adamw = {name: parameter for name, parameter in trained.items() if name not in by_muon}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for name, parameter in by_adamw.items() if name in decaying]},
        {"params": [parameter for name, parameter in by_adamw.items() if name not in decaying], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        groups, lr=lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=_in_one_pass(by_adamw)
    )
    hidden = [parameter for name, parameter in trained.items() if name in by_muon]
    if not hidden:
        return adamw
    muon = torch.optim.Muon(
        hidden,
        lr=lr,
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    return Together(muon, adamw)


def _in_one_pass(trained: Mapping[str, nn.Parameter]) -> bool | None:
    """Whether AdamW reads and writes each number once, by a kernel of its own: on CUDA. It rounds otherwise than the
    loops over parameters that a CPU keeps (None: torch's choice), where a run goes on to the bits that it had."""
    on_cuda = bool(trained) and all(parameter.is_cuda for parameter in trained.values())
    return True if on_cuda else None


class Together(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, as one: the groups and the state of all of them."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._optimizers = optimizers
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self._join()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._join()

    def _join(self) -> None:
        """Groups and state are the very objects of each: a rate that is set here counts there."""
        first = 0
        for optimizer in self._optimizers:
            last = first + len(optimizer.param_groups)
            optimizer.param_groups, optimizer.state = self.param_groups[first:last], self.state
            first = last

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """A step of each. Takes no closure: they would each call it."""
        if closure is not None:
            raise ValueError("step: optimizers that are joined take no closure")
        for optimizer in self._optimizers:
            optimizer.step()


def matrices(model: nn.Module) -> set[str]:
    """Names of the weights that Muon is for: those of linears, but the head's."""
    linears = (nn.Linear, MultiLoRALinear)
    owners = [name for name, module in model.named_modules() if isinstance(module, linears)]
    return {f"{name}.weight" for name in owners if name.rpartition(".")[2] != "lm_head"}


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
