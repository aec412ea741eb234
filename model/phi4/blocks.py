"""Stacks of blocks of one kind, as decoder and encoders have them, with two switches for training.

Both change what a step costs and, but for rounding, not what it computes; neither touches the names of parameters. They
act only where gradients are computed: generation, gates and evaluation run the same operations whatever a trainer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Stack(nn.ModuleList):
    """Blocks in their order. `checkpointing`: a block keeps its inputs alone for the backward pass, and is computed
    once more there. `backend`: that of torch.compile for a block; None: not compiled."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.checkpointing = False
        self.backend: str | Callable[..., Any] | None = None
        self._compiled: tuple[object, Callable[..., Tensor]] | None = None

    def call(self, block: nn.Module, *inputs: Any) -> Tensor:
        """`block(*inputs)`, by the switches."""
        if not torch.is_grad_enabled():
            output: Tensor = block(*inputs)
            return output
        run = self._run()
        return checkpoint(run, block, *inputs, use_reentrant=False) if self.checkpointing else run(block, *inputs)

    def _run(self) -> Callable[..., Tensor]:
        if self.backend is None:
            return _call
        if self._compiled is None or self._compiled[0] is not self.backend:
            # A function of the block: compiled once for all of them, since they differ in their tensors alone.
            self._compiled = self.backend, torch.compile(_call, backend=self.backend)
        return self._compiled[1]


def _call(block: nn.Module, *inputs: Any) -> Tensor:
    return block(*inputs)


def stacks(module: nn.Module) -> list[Stack]:
    """The stacks of a model, or of one of its parts."""
    return [child for child in module.modules() if isinstance(child, Stack)]


def checkpoint_activations(module: nn.Module, on: bool = True) -> None:
    """Switches all stacks of a model, or of one of its parts: less memory, and every block's forward pass twice."""
    for stack in stacks(module):
        stack.checkpointing = on


def compile_blocks(module: nn.Module, backend: str | Callable[..., Any] | None = "inductor") -> None:
    """Compiles the blocks of all stacks of a model, or of one of its parts, when they are first called; None: stops
    that. Attention stays outside: which segments there are would be compiled in, anew for each batch."""
    for stack in stacks(module):
        stack.backend = backend
