"""What a layer does between two products, each in one launch: norms, sums and the gate of the MLP.

Sums of a row are float32, in an order that depends on its width and dtype alone. Products and sums are not fused, so
that each is rounded as torch rounds it.
Run so far: by Triton's interpreter against torch, and compiled for sm_90. Never yet on a card.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gristmill.model.generate.kernels.launch import check_dtype, launch, power_of_two

_WIDEST = 1 << 15
"""Channels of a row that fit the registers of one program."""
_GATE_TILE = 1024
"""Channels of a program: 8 a thread of 128, which are 16 bytes, and programs enough for a card at 64 rows of 8,192."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`model.phi4.decoder.RMSNorm` of [..., D], rounded in the same order; its sum over a row is within float32
    rounding of torch's. Raises ValueError for other dtypes than weight's, and for rows that are too wide."""
    sizes = _row_sizes(x, weight)
    x = x.contiguous()
    normed = torch.empty_like(x)
    _launch_norm("norm", x, {"weight": weight, "normed": normed, "eps": eps, **sizes})
    return normed


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + residual, `rms_norm` of that), both [..., D]: the sum is rounded before it is normed, as torch's is. Raises
    as `rms_norm`, and ValueError for another shape or dtype of `residual`."""
    if residual.shape != x.shape:
        raise ValueError(f"residual is {list(residual.shape)}, x {list(x.shape)}")
    check_dtype(x.dtype, residual=residual)
    sizes = _row_sizes(x, weight)
    x, residual = x.contiguous(), residual.contiguous()
    sums, normed = torch.empty_like(x), torch.empty_like(x)
    arguments = {"residual": residual, "weight": weight, "sums": sums, "normed": normed, "eps": eps}
    _launch_norm("add_norm", x, {**arguments, **sizes})
    return sums, normed


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 I], the gate first -> [..., I], rounded where torch rounds. Raises ValueError for an
    odd width or another dtype than float32, bfloat16, float16."""
    check_dtype(gate_up.dtype)
    if gate_up.shape[-1] % 2:
        raise ValueError(f"{gate_up.shape[-1]} channels are no gates and as many values")
    from gristmill.model.generate.kernels import jit_layers

    gate_up = gate_up.contiguous()
    width = gate_up.shape[-1] // 2
    y = gate_up.new_empty(*gate_up.shape[:-1], width)
    grid = (gate_up.numel() // (2 * width), -(-width // _GATE_TILE))
    arguments = {"gate_up": gate_up, "y": y, "WIDTH": width, "TILE": _GATE_TILE}
    launch(jit_layers.gate, grid, arguments, num_warps=4, enable_fp_fusion=False)
    return y


def _row_sizes(x: Tensor, weight: Tensor) -> dict[str, int]:
    check_dtype(x.dtype, weight=weight)
    width = x.shape[-1]
    if weight.shape != (width,):
        raise ValueError(f"weight is {list(weight.shape)}, for rows of {width}")
    if width > _WIDEST:
        raise ValueError(f"rows of {width} channels: at most {_WIDEST}")
    return {"WIDTH": width, "WIDTH_PADDED": power_of_two(width)}


def _launch_norm(name: str, x: Tensor, arguments: dict[str, Any]) -> None:
    from gristmill.model.generate.kernels import jit_layers

    # A program a row: a decode step has fewer rows than the card has processors, so what counts is how soon a row's
    # loads are under way. 256 threads ask for 4 KiB at once, 3,072 channels in two goes.
    warps = min(max(arguments["WIDTH_PADDED"] // 256, 1), 8)
    rows = x.numel() // x.shape[-1]
    launch(getattr(jit_layers, name), (rows,), {"x": x, **arguments}, num_warps=warps, enable_fp_fusion=False)
