"""What a layer does between two products, each in one launch: norms, sums and the gate of the MLP."""

from __future__ import annotations

import torch
from torch import Tensor

from gristmill.model.generate.kernels.launch import check_dtype, launch, power_of_two

_WIDEST = 1 << 15
"""Channels of a row that fit the registers of one program."""
_GATE_TILE = 1024


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`model.phi4.decoder.RMSNorm` of [..., D], rounded in the same order; its sum over a row is within float32
    rounding of torch's. Raises ValueError for other dtypes than weight's, and for rows that are too wide."""
    x, options = _rows(x, weight)
    normed = torch.empty_like(x)
    _launch_norm("norm", {"x": x, "weight": weight, "normed": normed, "eps": eps}, options)
    return normed


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + residual, `rms_norm` of that), both [..., D]: the sum is rounded before it is normed, as torch's is. Raises
    as `rms_norm`, and ValueError for another shape or dtype of `residual`."""
    if residual.shape != x.shape:
        raise ValueError(f"residual is {list(residual.shape)}, x {list(x.shape)}")
    check_dtype(x.dtype, residual=residual)
    x, options = _rows(x, weight)
    sums, normed = torch.empty_like(x), torch.empty_like(x)
    tensors = {"x": x, "residual": residual.contiguous(), "weight": weight, "sums": sums, "normed": normed, "eps": eps}
    _launch_norm("add_norm", tensors, options)
    return sums, normed


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 I], the gate first -> [..., I], rounded where torch rounds. Raises ValueError for an
    odd width or another dtype than float32, bfloat16, float16."""
    from gristmill.model.generate.kernels import jit_layers

    check_dtype(gate_up.dtype)
    if gate_up.shape[-1] % 2:
        raise ValueError(f"{gate_up.shape[-1]} channels are no gates and as many values")
    gate_up = gate_up.contiguous()
    width = gate_up.shape[-1] // 2
    y = gate_up.new_empty(*gate_up.shape[:-1], width)
    grid = (gate_up.numel() // (2 * width), -(-width // _GATE_TILE))
    arguments = {"gate_up": gate_up, "y": y, "WIDTH": width, "TILE": _GATE_TILE}
    launch(jit_layers.gate, grid, arguments, num_warps=4, enable_fp_fusion=False)
    return y


def _rows(x: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, int]]:
    check_dtype(x.dtype, weight=weight)
    width = x.shape[-1]
    if weight.shape != (width,):
        raise ValueError(f"weight is {list(weight.shape)}, for rows of {width}")
    if width > _WIDEST:
        raise ValueError(f"rows of {width} channels: at most {_WIDEST}")
    return x.contiguous(), {"WIDTH": width, "WIDTH_PADDED": power_of_two(width)}


def _launch_norm(name: str, arguments: dict[str, object], sizes: dict[str, int]) -> None:
    from gristmill.model.generate.kernels import jit_layers

    x = arguments["x"]
    assert isinstance(x, Tensor)
    # A program a row: a decode step has fewer rows than the card has processors, so what counts is how soon a row's
    # loads are under way. 256 threads of 16 bytes ask for 4 KiB at a time, 3,072 channels in two goes.
    warps = min(max(sizes["WIDTH_PADDED"] // 256, 1), 8)
    launch(
        getattr(jit_layers, name),
        (x.numel() // x.shape[-1],),
        arguments | sizes,
        num_warps=warps,
        enable_fp_fusion=False,
    )
