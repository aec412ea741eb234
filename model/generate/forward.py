"""Forward passes of the engine: the decoder over pages, a fixed number of rows and of tokens of each.

On the CPU a pass goes through the model as anybody's does, with attention that looks only at pages in use
(`model.generate.cache`). On CUDA it is the same layers with fused kernels over buffers that stay: no shape depends on
data and nothing waits for the device, so that a CUDA graph of it can be replayed (`model.generate.graphs`).
In shapes: B rows, L tokens of each, D channels, N pages of a row at most, R rotating channels of a head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.cache import NOWHERE, Cache
from gristmill.model.generate.graphs import Graphs, Runner, current, put
from gristmill.model.generate.requests import Options
from gristmill.model.phi4.decoder import Decoder, Layer
from gristmill.model.phi4.lora import Routes
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.rope import tables

_LOG = logging.getLogger(__name__)


class Angles:
    """cos and sin of all positions, computed once: a position has the same bits wherever it stands in a batch.

    `length`: positions; `dtype` and `device`: of the tables, which are those of the model's activations."""

    def __init__(self, model: Multimodal, length: int, dtype: torch.dtype, device: torch.device) -> None:
        # Two rows: the short factors of LongRoPE for every position, and the long ones.
        places_2L = torch.arange(length, device=device).expand(2, length)
        long_21 = torch.tensor([[False], [True]], device=device)
        cos_21LR, sin_21LR = tables(model.config.text, places_2L, long_21, dtype)
        self._cos_2LR, self._sin_2LR = cos_21LR[:, 0], sin_21LR[:, 0]

    def at(self, positions_BL: Tensor, long_B1: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, 1, L, rotary_dim], as `model.phi4.rope.rotate` takes them. `long_B1`: whether a row's
        sequence exceeds the original context."""
        where = (long_B1.long().expand_as(positions_BL), positions_BL)
        return self._cos_2LR[where][:, None], self._sin_2LR[where][:, None]


@dataclass(frozen=True)
class Rows:
    """What a pass computes, as the host says it. `positions` int64 [B, L]: of each token in its sequence, -1 in rows
    that rest; `long` bool [B]: whether LongRoPE's long factors hold; `pages`: of each row; `masks`: of each adapter in
    use the tokens that take it, bool [B, L]."""

    positions: np.ndarray
    long: np.ndarray
    pages: list[list[int]]
    masks: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def resting(cls, rows: int, tokens: int) -> Rows:
        """Of which nothing is computed yet."""
        return cls(np.full((rows, tokens), -1), np.zeros(rows, bool), [[] for _ in range(rows)])


class Forward(Protocol):
    """A pass, made with a function `after` of its hidden states."""

    def __call__(self, rows: Rows, x_BLD: Tensor) -> Tensor:
        """What `after` makes of these rows, whose embeddings are given, until the next call. Rows that rest are
        computed too, since shapes never change, and nobody looks at them."""


After = Callable[[Tensor], Tensor]


class Kernels(Protocol):
    """Fused operations between products. In shapes: H query heads, G key heads, E = (H + 2 G) D channels, D of a head;
    a layer's keys [pages, G, D, K] and values [pages, G, K, D], of which row b has pages table_BN[b], int32."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """As `model.phi4.decoder.RMSNorm`."""

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x + residual, and that normed."""

    def rotate_and_write(
        self,
        qkv_BLE: Tensor,
        cos_B1LR: Tensor,
        sin_B1LR: Tensor,
        keys: Tensor,
        values: Tensor,
        table_BN: Tensor,
        positions_BL: Tensor,
    ) -> Tensor:
        """Queries [B, H, L, D], rotated; keys, rotated, and values are written into the pages of their positions."""

    def paged_attention(
        self, q_BHLD: Tensor, keys: Tensor, values: Tensor, table_BN: Tensor, positions_BL: Tensor, scale: float
    ) -> Tensor:
        """[B, H, L, D]: a query at position p sees the keys of its row's positions 0 to p; at -1, none: zeros."""

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu of the first half of the channels times the second."""


@dataclass(frozen=True)
class DeviceSide:
    """How passes and draws run beside the host's work: with which kernels, and by what."""

    kernels: Kernels
    runner: Runner


def device_side(model: Multimodal, options: Options) -> DeviceSide | None:
    """Where a model's weights are on CUDA and the kernels can do its shapes; None: the host computes one operation
    after another. Raises ValueError where `graphs` were asked for and cannot be."""
    from gristmill.model.generate import kernels

    text, weight = model.config.text, model.language.norm.weight
    try:
        if not kernels.available(weight.device):
            raise ValueError(f"the model's weights are on {weight.device}, or Triton is not installed")
        shape = (text.num_attention_heads, text.num_key_value_heads, text.head_dim, options.block_size)
        kernels.check_shapes(*shape, weight.dtype)
    except ValueError as error:
        if options.graphs:
            raise ValueError(f"graphs=True: {error}") from None
        if weight.device.type == "cuda":
            _LOG.warning("generation without kernels and CUDA graphs, which is slow: %s", error)
        return None
    with current(weight.device):
        return DeviceSide(kernels, Runner() if options.graphs is False else Graphs())


class PlainPass:
    """Through `Decoder.forward`, on any device. Pages in use decide shapes."""

    def __init__(self, model: Multimodal, cache: Cache, angles: Angles, after: After) -> None:
        self._model, self._cache, self._angles, self._after = model, cache, angles, after

    def __call__(self, rows: Rows, x_BLD: Tensor) -> Tensor:
        """As `Forward`."""
        device = x_BLD.device
        positions_BL = torch.from_numpy(rows.positions).clamp(min=0).to(device)
        rope = self._angles.at(positions_BL, torch.from_numpy(rows.long)[:, None].to(device))
        # Masks, not places: an adapter is computed for all rows, so that shapes do not depend on who uses it.
        routes = {name: torch.from_numpy(mask).to(device) for name, mask in sorted(rows.masks.items())}
        attend = self._cache.at(rows.pages, positions_BL)
        return self._after(self._model.language(x_BLD, rope, attend, routes))


class StaticPass:
    """Over buffers that stay, run by `side.runner`: as one graph for each set of adapters in use. `after` is run with
    it, and may read nothing else that changes. `result_BX`: the buffer for what it makes; `name` of the graphs."""

    def __init__(
        self,
        model: Multimodal,
        cache: Cache,
        angles: Angles,
        after: After,
        result_BX: Tensor,
        side: DeviceSide,
        name: str,
    ) -> None:
        self._model, self._cache, self._angles, self._side, self._name = model, cache, angles, side, name
        self._after, self._result_BX = after, result_BX
        self._inputs: _Inputs | None = None

    def __call__(self, rows: Rows, x_BLD: Tensor) -> Tensor:
        """As `Forward`."""
        if self._inputs is None:
            self._inputs = _Inputs(x_BLD, self._cache.depth)
        inputs, names = self._inputs, tuple(sorted(rows.masks))
        inputs.put(rows, x_BLD)
        # Weights are the model's and buffers this pass's own: what else differs is which adapters are in use.
        self._side.runner.run((self._name, *names), lambda: self._compute(inputs, names))
        return self._result_BX

    def _compute(self, inputs: _Inputs, names: Sequence[str]) -> None:
        rope = self._angles.at(inputs.positions_BL.clamp(min=0), inputs.long_B1)
        pages = _Pages(self._cache, inputs, self._side.kernels)
        routes = {name: inputs.masks[name] for name in names}
        self._result_BX.copy_(self._after(through_layers(self._model.language, inputs.x_BLD, rope, pages, routes)))


class _Inputs:
    """The buffers that a pass reads. `masks` [B, L]: of adapters that were in use so far."""

    def __init__(self, x_BLD: Tensor, depth: int) -> None:
        rows, length, device = *x_BLD.shape[:2], x_BLD.device
        self.x_BLD = torch.zeros_like(x_BLD)
        self.positions_BL = torch.full((rows, length), -1, device=device)
        self.long_B1 = torch.zeros(rows, 1, dtype=torch.bool, device=device)
        self.table_BN = torch.full((rows, depth), NOWHERE, dtype=torch.int32, device=device)
        self.masks: dict[str, Tensor] = {}

    def put(self, rows: Rows, x_BLD: Tensor) -> None:
        """Fills them, without waiting for the device."""
        self.x_BLD.copy_(x_BLD)
        put(self.positions_BL, rows.positions)
        put(self.long_B1, rows.long[:, None])
        table_BN = np.full(self.table_BN.shape, NOWHERE, np.int32)
        for row, pages in enumerate(rows.pages):
            table_BN[row, : len(pages)] = pages
        put(self.table_BN, table_BN)
        for name, mask_BL in rows.masks.items():
            if name not in self.masks:
                self.masks[name] = torch.zeros_like(self.positions_BL, dtype=torch.bool)
            put(self.masks[name], mask_BL)


class _Pages:
    """The cache as kernels take it: keys and values by layer, pages of rows, and positions of this call's tokens."""

    def __init__(self, cache: Cache, inputs: _Inputs, kernels: Kernels) -> None:
        self._cache, self._inputs, self.kernels = cache, inputs, kernels

    def attend(self, layer: int, qkv_BLE: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Rotates, writes and attends: [B, L, H D]."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        where = (keys, values, self._inputs.table_BN, self._inputs.positions_BL)
        q_BHLD = self.kernels.rotate_and_write(qkv_BLE, *rope, *where)
        return self.kernels.paged_attention(q_BHLD, *where, self._cache.scale).transpose(1, 2).flatten(2)


def through_layers(
    language: Decoder, x_BLD: Tensor, rope: tuple[Tensor, Tensor], pages: _Pages, routes: Routes
) -> Tensor:
    """What `Decoder.forward` computes, [B, L, D], with what lies between two products fused.

    A walk of its own, since an addition here is one with the norm that follows, also where that belongs to the next
    layer: a block that is called, checkpointed or compiled by itself ends with the addition.
    """
    kernels, layers = pages.kernels, cast(list[Layer], list(language.layers))
    following = [*(layer.input_layernorm for layer in layers[1:]), language.norm]
    first = layers[0].input_layernorm
    normed_BLD = kernels.rms_norm(x_BLD, first.weight, first.eps)
    for number, (layer, norm) in enumerate(zip(layers, following, strict=True)):
        y_BLE = pages.attend(number, layer.self_attn.qkv_proj(normed_BLD, routes), rope)
        added_BLD, middle = layer.self_attn.o_proj(y_BLE, routes), layer.post_attention_layernorm
        x_BLD, normed_BLD = kernels.add_rms_norm(added_BLD, x_BLD, middle.weight, middle.eps)
        inner = kernels.silu_mul(layer.mlp.gate_up_proj(normed_BLD, routes))
        x_BLD, normed_BLD = kernels.add_rms_norm(layer.mlp.down_proj(inner, routes), x_BLD, norm.weight, norm.eps)
    return normed_BLD
