"""A device and its graphs without a GPU: what the engine hands to them, on the CPU, for its tests.

A tape stands for a CUDA graph: it keeps the operations of a function, with the tensors that they read and wrote, and
plays them again without the function. So what a graph would freeze is frozen here too: values that the function had in
Python, and the addresses of its buffers. What a capture forbids, to wait for values, is refused.
The kernels are written in torch as plainly as can be, for all rows, with every shape fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gristmill.model.generate.engine
from gristmill.model.generate.forward import DeviceSide
from gristmill.model.generate.graphs import Runner
from gristmill.model.phi4.rope import rotate

_WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select")
"""Operations whose result a device would have to be waited for."""
Operation = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in _WAITING:
            raise RuntimeError(f"{function} waits for the device")
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result


class Tapes(Runner):
    """Records each key's function when it first comes, and plays it again from then on. `played`: keys, in order;
    `recorded`: those that were recorded, once for each time."""

    def __init__(self) -> None:
        self._tapes: dict[Hashable, list[Operation]] = {}
        self._addresses: list[int] = []
        self.recorded: list[Hashable] = []
        self.played: list[Hashable] = []

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        if key not in self._tapes:
            function()  # the warm-up of a capture: a function may run more than once for a call
            with _Recorder() as recorder:
                function()
            self._tapes[key] = recorder.operations
            self.recorded.append(key)
        for operation in self._tapes[key]:
            _play(*operation)
        self.played.append(key)

    def watch(self, tensors: Iterable[Tensor]) -> None:
        addresses = [tensor.data_ptr() for tensor in tensors]
        if addresses != self._addresses:
            self._tapes.clear()
            self._addresses = addresses


def _play(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], kept: Any) -> None:
    """Runs an operation again, into the memory that its result had."""
    for old, new in zip(_tensors(kept), _tensors(function(*args, **kwargs)), strict=True):
        if old.data_ptr() != new.data_ptr():  # else a view, or in place
            old.copy_(new)


def _tensors(result: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def use_device_side(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    """Engines made from now on work as on CUDA: with kernels of their own, by `runner`, ahead of the host."""
    side = DeviceSide(KERNELS, runner)
    monkeypatch.setattr(gristmill.model.generate.engine, "device_side", lambda model, options: side)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `Kernels.rms_norm`."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As `Kernels.add_rms_norm`."""
    total = residual + x
    return total, rms_norm(total, weight, eps)


def silu_mul(gate_up: Tensor) -> Tensor:
    """As `Kernels.silu_mul`."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def rotate_and_write(
    qkv_BLE: Tensor,
    cos_B1LR: Tensor,
    sin_B1LR: Tensor,
    keys: Tensor,
    values: Tensor,
    table_BN: Tensor,
    positions_BL: Tensor,
) -> Tensor:
    """As `Kernels.rotate_and_write`."""
    _, groups, dim, block = keys.shape
    qkv_BELD = qkv_BLE.unflatten(-1, (-1, dim)).transpose(1, 2)
    turning, v_BGLD = qkv_BELD.split([qkv_BELD.shape[1] - groups, groups], 1)
    turned = rotate(turning, cos_B1LR, sin_B1LR)
    q_BHLD, k_BGLD = turned.split([turned.shape[1] - groups, groups], 1)
    # Rows that rest write to the page that is nobody's.
    places_BL = positions_BL.clamp(min=0)
    pages_BL = table_BN.long().gather(1, places_BL // block).where(positions_BL >= 0, 0)
    keys[pages_BL, :, :, places_BL % block] = k_BGLD.transpose(1, 2)
    values[pages_BL, :, places_BL % block] = v_BGLD.transpose(1, 2)
    return q_BHLD


def paged_attention(
    q_BHLD: Tensor, keys: Tensor, values: Tensor, table_BN: Tensor, positions_BL: Tensor, scale: float
) -> Tensor:
    """As `Kernels.paged_attention`, over all pages of the table."""
    groups, block = keys.shape[1], keys.shape[3]
    q_BGMLD = q_BHLD.unflatten(1, (groups, -1)) * scale
    k_BGDT = keys[table_BN.long()].movedim(1, 3).flatten(3, 4)
    v_BGTD = values[table_BN.long()].movedim(1, 2).flatten(2, 3)
    seen_BLT = torch.arange(table_BN.shape[1] * block) <= positions_BL[..., None]
    scores_BGMLT = (q_BGMLD @ k_BGDT[:, :, None]).masked_fill(~seen_BLT[:, None, None], -torch.inf)
    # A row that rests sees nothing: a softmax of nothing is no number.
    weights_BGMLT = scores_BGMLT.softmax(-1).masked_fill(~seen_BLT[:, None, None], 0)
    # What nobody sees may be no number either, and nothing times that is none.
    v_BGTD = v_BGTD.masked_fill(~seen_BLT.any(1)[:, None, :, None], 0)
    return (weights_BGMLT @ v_BGTD[:, :, None]).flatten(1, 2)


KERNELS: Any = SimpleNamespace(
    rms_norm=rms_norm,
    add_rms_norm=add_rms_norm,
    silu_mul=silu_mul,
    rotate_and_write=rotate_and_write,
    paged_attention=paged_attention,
)
