"""Memory of the CPU for large tensors that are made anew for every batch, as the pixels of images are.

The system hands out fresh memory in pages of 4 KB, each zeroed at its first touch: that costs four times what it costs
to fill 40 MB with pixels. So a block that no tensor uses any more is kept, and the next tensor that fits gets it. It is
free when torch lets go of the storage: views, `numpy()` and what autograd has saved count as use.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 18
"""Floats below which torch's own memory is as good: the allocator keeps it."""
KEPT = 2
"""Blocks that are kept free: a batch is made while the one before it is in use."""

_free: dict[int, np.ndarray] = {}
"""By `id`, the oldest first. Each step below is one operation of a dict, so threads, and finalizers within them, do not
need a lock."""


def empty_floats(shape: Sequence[int], device: torch.device) -> Tensor:
    """A float32 tensor to be written, as `torch.empty` makes it."""
    count = math.prod(shape)
    if device.type != "cpu" or count < SMALL:
        return torch.empty(tuple(shape), dtype=torch.float32, device=device)
    block = _block(count)
    array = block[:count].reshape(shape)
    # The tensor's storage holds this very array, and lets go of it when it is freed itself.
    weakref.finalize(array, _give_back, block).atexit = False
    return torch.from_numpy(array)


def _block(count: int) -> np.ndarray:
    """The smallest free block for so many floats, but none of which most would lie idle; else a new one."""
    for block in sorted(_free.values(), key=len):
        if count <= len(block) <= 4 * count and _free.pop(id(block), None) is not None:
            return block
    return np.empty(count, np.float32)


def _give_back(block: np.ndarray) -> None:
    _free[id(block)] = block
    for oldest in list(_free)[:-KEPT]:
        _free.pop(oldest, None)
