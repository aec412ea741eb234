"""Seconds that the operations of a step take: tried out on this machine, or by what a GPU that is not here is known for.

Each kind of operation of a rehearsal is run a few times on tensors of its own shapes, the dearest first, until a second
or so is spent; what is left over, and what would take too long by itself, is reckoned by the speed of those that were
run: products by their operations, the rest by the bytes that they move. Nothing is assumed of the machine but that it
is as busy, and has as many threads, as when it will train.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gristmill.model.train.metrics import PEAKS
from gristmill.model.train.rehearsal import Blank, Operation, Operations

BUDGET = 1.5
"""Seconds for trying out operations."""
LONGEST = 0.25
"""Seconds above which an operation is not tried out, by the speed of shorter ones."""
RUNS = 3
"""Times that an operation is run, of which the middle one counts; the first run before them does not."""
SHARE = 0.35
"""Of a GPU's peak, for the operations that a step really computes: what an H100 was measured to reach with this model
in bfloat16, with and without recomputing blocks."""
_SIZE = 768
"""Rows and columns of the product, and megabytes of the copy, by which the first speeds are measured: larger than
caches, and done in some milliseconds."""


@dataclass
class _Rates:
    """Speeds of what was run so far: operations a second of products, bytes a second of the rest."""

    flops: float
    bytes: float

    def seconds(self, operation: Operation) -> float:
        """Of one call, by these speeds."""
        return operation.flops / self.flops if operation.flops else operation.bytes / self.bytes


def measured(groups: Sequence[Operations], budget: float = BUDGET) -> list[float]:
    """Seconds of each group of operations, on this machine's CPU with the threads that torch now has."""
    rates = _first_rates()
    every = [operation for operations in groups for operation in operations.values()]
    tried: dict[int, float] = {}
    deadline = time.perf_counter() + budget
    for operation in sorted(every, key=lambda each: -each.count * rates.seconds(each)):
        if time.perf_counter() > deadline:
            break
        if rates.seconds(operation) <= LONGEST:
            tried[id(operation)] = _timed(operation)
    _adjust(rates, every, tried)
    return [
        sum(each.count * tried.get(id(each), rates.seconds(each)) for each in operations.values())
        for operations in groups
    ]


def reckoned(groups: Sequence[Operations], device: str) -> list[float] | None:
    """Seconds of each group on a device of this name at `SHARE` of its peak; None: its peak is not known."""
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    if peak is None:
        return None
    return [flops_of(operations.values()) / (peak * SHARE) for operations in groups]


def flops_of(operations: Iterable[Operation]) -> float:
    """Operations of products and convolutions, each as often as it is done."""
    return sum(operation.count * operation.flops for operation in operations)


def _first_rates() -> _Rates:
    matrix, block = torch.ones(_SIZE, _SIZE), torch.ones(_SIZE << 18)
    copy = torch.empty_like(block)
    product = _middle(lambda: torch.mm(matrix, matrix))
    moved = _middle(lambda: copy.copy_(block))
    return _Rates(2.0 * _SIZE**3 / product, 2.0 * 4 * len(block) / moved)


def _adjust(rates: _Rates, every: Sequence[Operation], tried: dict[int, float]) -> None:
    """Sets the speeds to those of the operations that were run, which are closer to the rest than the first ones."""
    products = [each for each in every if id(each) in tried and each.flops]
    others = [each for each in every if id(each) in tried and not each.flops and each.bytes]
    if products:
        rates.flops = sum(e.count * e.flops for e in products) / sum(e.count * tried[id(e)] for e in products)
    if others:
        rates.bytes = sum(e.count * e.bytes for e in others) / sum(e.count * tried[id(e)] for e in others)


def _timed(operation: Operation) -> float:
    """Seconds of one call on numbers of its shapes."""
    args, kwargs = tree_map(_filled, (operation.args, operation.kwargs))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return _middle(lambda: operation.operator(*args, **kwargs))


def _filled(value: Any) -> Any:
    """Small numbers in the place of a blank; anything else as it is."""
    if not isinstance(value, Blank):
        return value
    places = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride, strict=True))
    memory = torch.zeros(0 if 0 in value.shape else places, dtype=value.dtype)
    if value.dtype.is_floating_point:
        memory.uniform_(0.5, 1.0)
    return memory.as_strided(value.shape, value.stride)


def _middle(run: Any) -> float:
    """Seconds of a run: the middle one of `RUNS` after one that is not counted."""
    run()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[RUNS // 2]
