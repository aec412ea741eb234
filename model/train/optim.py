"""The optimizer of a stage: AdamW over the trained parameters, weight decay on matrices alone.

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
