"""Stacks of blocks of one kind, as decoder and encoders have them, with two switches for training.

Both change what a step costs and, but for rounding, not what it computes; neither touches the names of parameters. They
act only where gradients are computed: generation, gates and evaluation run the same operations whatever a trainer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

GRAPHS = 64
"""Graphs of a piece of a block, at most, before it runs uncompiled. A decoder's pieces have one for each set of
adapters that a batch takes (six, none of them included), and another where numbers of tokens that differ from batch to
batch became symbols; each once more for the first layer, whose input is a view, and may need no gradient."""


class Run(Protocol):
    """How a piece of a block is carried out: `run(piece, *inputs)` is `piece(*inputs)`, compiled or not."""

    def __call__(self, piece: Callable[..., Any], *inputs: Any) -> Any:
        """What the piece gives."""


def plainly(piece: Callable[..., Any], *inputs: Any) -> Any:
    """A piece as it is."""
    return piece(*inputs)


class Stack(nn.ModuleList):
    """Blocks in their order. `recomputed`: the share of them that keep their inputs alone for the backward pass, and
    are computed once more there. `backend`: that of torch.compile; None: not compiled. `in_pieces`: a block's forward
    takes a last argument `run`, a `Run`, and has its pieces carried out by it, so that what lies between them
    (attention, whose segments are other ones in each batch) is not compiled; else a block is one piece."""

    def __init__(self, *args: Any, in_pieces: bool = False) -> None:
        super().__init__(*args)
        self.in_pieces = in_pieces
        self.recomputed = 0.0
        self.backend: str | Callable[..., Any] | None = None
        self._compiled: dict[tuple[object, Callable[..., Any]], Callable[..., Any]] = {}

    def call(self, number: int, *inputs: Any) -> Tensor:
        """The output of a block, by the switches."""
        block = self[number]
        if not torch.is_grad_enabled():
            output: Tensor = block(*inputs)
            return output
        function, arguments = (block, (*inputs, self.run)) if self.in_pieces else (self.run, (_call, block, *inputs))
        if self.recomputes(number):
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)

    def recomputes(self, number: int) -> bool:
        """Whether a block is one of those that are recomputed: `recomputed` of all, rounded, as evenly as may be."""
        count = round(self.recomputed * len(self))
        return (number + 1) * count // len(self) > number * count // len(self)

    def run(self, piece: Callable[..., Any], *inputs: Any) -> Any:
        """A `Run`: a piece of a block, compiled if the switch is set. Pieces are functions of the block: each is
        compiled once for all blocks, since they differ in their tensors alone."""
        if self.backend is None:
            return piece(*inputs)
        compiled = self._compiled.get((self.backend, piece))
        if compiled is None:
            compiled = self._compiled[self.backend, piece] = torch.compile(piece, backend=self.backend)
        return compiled(*inputs)


def _call(block: nn.Module, *inputs: Any) -> Tensor:
    output: Tensor = block(*inputs)
    return output


def stacks(module: nn.Module) -> list[Stack]:
    """The stacks of a model, or of one of its parts."""
    return [child for child in module.modules() if isinstance(child, Stack)]


def checkpoint_activations(module: nn.Module, share: float = 1.0) -> None:
    """Switches all stacks of a model, or of one of its parts: this share of the blocks of each, 0 to 1, keeps its
    inputs alone. Less memory, and the forward pass of these blocks twice."""
    for stack in stacks(module):
        stack.recomputed = float(share)


def compile_blocks(module: nn.Module, backend: str | Callable[..., Any] | None = "inductor") -> None:
    """Compiles the blocks of all stacks of a model, or of one of its parts, when they are first called; None: stops
    that. Attention of the decoder stays outside: which segments there are would be compiled in, anew for each batch.
    Raises torch's limit of graphs a function to `GRAPHS`, in this process."""
    if backend is not None:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    for stack in stacks(module):
        stack.backend = backend
