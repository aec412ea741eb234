"""A step of training without its memory: the model's own code on tensors that have a shape and no numbers.

What a step needs is not written down in formulas, which would be wrong after the next change to a model: its passes
and the optimizer run as they are, on fake tensors, and every storage is counted from when an operation makes it to when
the last reference to it is gone, which is when torch frees it. Tokens, segments and masks are real: they decide shapes.
Scratch memory inside a kernel is not seen. Source: torch's notes on fake tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from gristmill.model.phi4.blocks import checkpoint_activations
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.modalities import MODALITIES
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.train import optim
from gristmill.model.train.loop import trained_parameters
from gristmill.model.train.objective import Batch
from gristmill.model.train.stage import TrainStage

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors. What lives as long as the training: `parameters` by part, `gradients`, `optimizer`; with it one
    batch. On top of that, at the worst moment, `activations`: of a forward and backward pass, with all that comes and
    goes in it; `update`: what the optimizer's step and clipping need in between."""

    parameters: Mapping[Part, int]
    gradients: int
    optimizer: int
    batch: int
    activations: int
    update: int

    @property
    def standing(self) -> int:
        """What lives as long as the training."""
        return sum(self.parameters.values()) + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """The most that is ever live."""
        return self.standing + max(self.batch + self.activations, self.update)


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


@dataclass(frozen=True)
class Rehearsal:
    """What a step is: `memory`; one pass forward and backward; clipping and optimizer; parameters that are trained, by
    part; and how it was rehearsed."""

    memory: Memory
    of_pass: Phase
    of_update: Phase
    trained: Mapping[Part, int]
    precision: str
    checkpointing: bool


def rehearse(
    stage: TrainStage,
    config: ModelConfig,
    batch: Batch,
    objective: Callable[[Multimodal], nn.Module],
    *,
    stored: Mapping[Part, torch.dtype] | None = None,
    checkpointing: bool = False,
) -> Rehearsal:
    """A step whose passes are as `batch` each, of which the integers have to be real and the rest may be on the meta
    device. `objective`: what the stage minimises, of a model; `stored`: the types of parts that are not trained, else
    float32; `checkpointing`: blocks keep their inputs alone. Raises as `trained_parameters`, and what the model raises
    for a batch that does not fit it."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model = _blank_model(config, stage.trainable, stored or {}, fake).train()
    module = objective(model)
    checkpoint_activations(model, checkpointing)
    trained = trained_parameters(stage, model, module)
    batch = _blank_batch(batch, fake)
    watch = _Watch()
    with watch:
        parameters = _standing(model, watch)
        with fake:
            gradients = optim.Gradients(trained)
        grown = watch.live
        optimizer = optim.build(stage.optim, model, trained)
        optimizer.step()  # makes its state, which is there in every later step
        state, standing = watch.live - grown, watch.live

        watch.begin()
        loaded = watch.add(*_tensors(batch))
        with torch.autocast("cpu", torch.bfloat16, enabled=stage.precision == "bfloat16"):
            loss, _ = module(batch)
        if loss.requires_grad:
            loss.backward()
        del loss
        activations, of_pass = watch.peak - standing - loaded, watch.phase()

        del batch
        watch.begin()
        gradients.flat.div_(1)
        if stage.optim.clip is not None:
            nn.utils.clip_grad_norm_(trained.values(), stage.optim.clip)
        optimizer.step()
        memory = Memory(parameters, _size(gradients.flat), state, loaded, activations, watch.peak - standing)
    return Rehearsal(memory, of_pass, watch.phase(), _numbers(trained), stage.precision, checkpointing)


def _blank_model(
    config: ModelConfig, trained: Iterable[Part], stored: Mapping[Part, torch.dtype], fake: FakeTensorMode
) -> Multimodal:
    """A model of fake tensors; parts that are trained are float32."""
    kinds = {**stored, **dict.fromkeys(trained, torch.float32)}
    with torch.device("meta"):
        model = Multimodal(config)
    for owner, module in model.named_modules():
        place = f"{owner}." if owner else ""
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            kind = kinds.get(part_of(place + leaf), torch.float32)
            with fake:
                setattr(module, leaf, nn.Parameter(torch.empty(parameter.shape, dtype=kind)))
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            with fake:
                setattr(module, leaf, torch.empty(buffer.shape, dtype=buffer.dtype))
    return model


def _blank_batch(batch: Batch, fake: FakeTensorMode) -> Batch:
    """The batch with fake images, clips and log-probabilities; masks and sizes decide shapes, and stay."""

    def blank(tensor: Tensor) -> Tensor:
        with fake:
            return torch.empty(tensor.shape, dtype=tensor.dtype)

    media = {modality.inputs[0] for modality in MODALITIES}
    inputs = {name: blank(tensor) if name in media else tensor for name, tensor in batch.inputs.items()}
    references = None if batch.reference_logprobs is None else blank(batch.reference_logprobs)
    return replace(batch, inputs=inputs, reference_logprobs=references)


def _standing(model: Multimodal, watch: _Watch) -> dict[Part, int]:
    """Counts parameters and buffers as live -> bytes by part, in the order of `Part`."""
    sizes: dict[Part, int] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        sizes[part_of(name)] = sizes.get(part_of(name), 0) + watch.add(tensor)
    return {part: sizes[part] for part in Part if part in sizes}


def _numbers(trained: Mapping[str, nn.Parameter]) -> dict[Part, int]:
    """Numbers of trained parameters of the model by part, in the order of `Part`."""
    totals: dict[Part, int] = {}
    for name, parameter in trained.items():
        if not name.startswith("objective."):
            totals[part_of(name)] = totals.get(part_of(name), 0) + parameter.numel()
    return {part: totals[part] for part in Part if part in totals}


def _tensors(batch: Batch) -> list[Tensor]:
    every = (batch.input_ids, batch.loss_mask, batch.cu_seqlens, batch.reference_logprobs, *batch.inputs.values())
    return [tensor for tensor in every if tensor is not None]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@dataclass
class _Storage:
    bytes: int
    watched: weakref.ref[Any] = field(repr=False)


@dataclass
class _Heap:
    """What glibc's malloc asks the system for: blocks above 32 MiB each time they are made, others where the heap
    grows. Its end goes back to the system when more than twice the largest block is free there. Source: mallopt(3)."""

    fresh: int = 0
    _used: int = 0
    _end: int = 0
    _largest: int = 128 << 10

    def take(self, size: int) -> None:
        """A block is made."""
        if size > _MAPPED:
            self.fresh += size
            return
        self._used += size
        self._largest = max(self._largest, size)
        self.fresh += max(0, self._used - self._end)
        self._end = max(self._used, self._end)

    def give(self, size: int) -> None:
        """A block is freed."""
        if size <= _MAPPED:
            self._used -= size
            if self._end - self._used > 2 * self._largest:
                self._end = self._used


_MAPPED = 32 << 20


class _Watch(TorchDispatchMode):
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
                watched = weakref.ref(storage, lambda _, key=key: self._gone(key))
                self._storages[key] = _Storage(storage.nbytes(), watched)
                self.live += storage.nbytes()
                self._heap.take(storage.nbytes())
        self.peak = max(self.peak, self.live)
        return self.live - before

    def _gone(self, key: int) -> None:
        size = self._storages.pop(key).bytes
        self.live -= size
        self._heap.give(size)

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
            read = sum(_size(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
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
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _causal_pairs(sdpa_flop_count, 0),
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _causal_pairs(sdpa_backward_flop_count, 1),
}
"""Operations by operator, from its arguments and `out_val`; torch's table has no attention of a CPU."""


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
