"""Operations as torch meets them: which ones, on what shapes, how often, and the memory that lives between them.

A `Watch` stands below autograd, so it sees forward and backward pass, recomputed blocks and the optimizer alike. The
memory of a tensor is its storage, counted from the operation that makes it until the storage itself is gone, whoever
held it last; views share one. It works on fake tensors and on real ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Blank:
    """A tensor of an operation, without its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(eq=False)
class Operation:
    """A kind of operation: same operator, same shapes. `args`, `kwargs`: fake tensors as `Blank`, integers as they
    were; `flops`: of a product or convolution, else 0; `bytes`: read and written; `count`: how often it came."""

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    flops: float
    bytes: int
    count: int = 0


@dataclass(frozen=True)
class Phase:
    """A part of a step: its kinds of operations, and `fresh`, the bytes that an allocator has to ask the system for."""

    operations: tuple[Operation, ...]
    fresh: int

    @property
    def calls(self) -> int:
        """Operations, each as often as it is done."""
        return sum(operation.count for operation in self.operations)

    @property
    def flops(self) -> float:
        """Operations of products and convolutions, each as often as it is done."""
        return sum(operation.count * operation.flops for operation in self.operations)


@dataclass
class _Storage:
    bytes: int
    watched: weakref.ref[Any] = field(repr=False)


_MAPPED = 32 << 20


@dataclass
class _Heap:
    """What glibc's malloc asks the system for: blocks above 32 MiB each time they are made, others where the heap
    grows. Its end goes back to the system when more than twice the largest block is free there. Source: mallopt(3)."""

    fresh: int = 0
    _used: int = 0
    _end: int = 0
    _largest: int = 128 << 10

    def take(self, block: int) -> None:
        """A block of so many bytes is made."""
        if block > _MAPPED:
            self.fresh += block
            return
        self._used += block
        self._largest = max(self._largest, block)
        self.fresh += max(0, self._used - self._end)
        self._end = max(self._used, self._end)

    def give(self, block: int) -> None:
        """A block is freed."""
        if block <= _MAPPED:
            self._used -= block
            if self._end - self._used > 2 * self._largest:
                self._end = self._used


class Watch(TorchDispatchMode):
    """Sees every operation below it. `live`: bytes of all storages that operations made, or that were added, and that
    are still there; `peak`: the most since `begin`."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._operations: dict[object, Operation] = {}
        self._storages: dict[int, _Storage] = {}
        self._heap = _Heap()

    def begin(self) -> None:
        """Counts peak and operations from here on."""
        self.peak, self._operations, self._heap.fresh = self.live, {}, 0

    def phase(self) -> Phase:
        """What was done since `begin`."""
        return Phase(tuple(self._operations.values()), self._heap.fresh)

    def add(self, *tensors: Tensor) -> int:
        """Counts the storages of tensors as live from now on. -> The bytes of those that were not yet."""
        before = self.live
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._storages:
                # The storage itself calls when it goes: the same moment as that in which its memory is freed.
                watched = weakref.ref(storage, partial(self._gone, key))
                self._storages[key] = _Storage(storage.nbytes(), watched)
                self.live += storage.nbytes()
                self._heap.take(storage.nbytes())
        self.peak = max(self.peak, self.live)
        return self.live - before

    def _gone(self, key: int, _: object) -> None:
        freed = self._storages.pop(key).bytes
        self.live -= freed
        self._heap.give(freed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket in _INDEXING:
            args = (args[0], _places(args[1]), *args[2:])
        output = func(*args, **kwargs)
        if func.namespace != "prim":  # questions about a tensor
            fresh = self.add(*(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)))
            self._note(func, args, kwargs, output, fresh)
        return output

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, fresh: int) -> None:
        key = (func, _key(args), _key(kwargs))
        operation = self._operations.get(key)
        if operation is None:
            count_flops = _FLOPS.get(func._overloadpacket)
            flops = 0.0 if count_flops is None else float(count_flops(*args, **kwargs, out_val=output))
            read = sum(size(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            moved = 0 if func.is_view else read + fresh
            operation = Operation(func, _described(args), _described(kwargs), flops, moved)
            self._operations[key] = operation
        operation.count += 1


_INDEXING = (_ATEN.index, _ATEN.index_put, _ATEN.index_put_, _ATEN._unsafe_index_put, _ATEN._index_put_impl_)


def _places(indices: Any) -> list[Tensor | None]:
    """Masks as the places where they are true: how many there are, a fake tensor could not tell."""
    places: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype == torch.bool
        places += index.nonzero(as_tuple=True) if is_mask else (index,)
    return places


def _causal_pairs(count: Callable[..., float], first: int) -> Callable[..., float]:
    """A counter of attention on a CPU: each query sees half of the keys on average. `first`: where queries stand."""

    def counted(*args: Any, **kwargs: Any) -> float:
        shapes = [tensor.shape for tensor in args[: first + 3]]
        causal = kwargs.get("is_causal", next((arg for arg in args[first + 3 :] if isinstance(arg, bool)), False))
        return count(*shapes) / (2 if causal else 1)

    return counted


_FLOPS: dict[Any, Callable[..., float]] = {
    **flop_registry,
    _ATEN.addmm_: flop_registry[_ATEN.addmm],
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _causal_pairs(sdpa_flop_count, 0),
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _causal_pairs(sdpa_backward_flop_count, 1),
}
"""Operations by operator, from its arguments and `out_val`; torch's table has no attention of a CPU and no
product that is added in place."""


def _key(value: Any) -> object:
    """Equal for arguments of the same shapes and settings."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in value.items())
    return type(value), value


def _described(value: Any) -> Any:
    """Arguments that hold no memory: fake tensors as `Blank`, real ones, which are indices, copied."""
    if isinstance(value, FakeTensor):
        return Blank(tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return tuple(map(_described, value)) if isinstance(value, tuple) else list(map(_described, value))
    if isinstance(value, dict):
        return {name: _described(item) for name, item in value.items()}
    return value


def size(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()
