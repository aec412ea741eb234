"""How a kernel is launched, and what is asked of its tensors so that it is always the same compiled kernel."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ALIGNMENT = 16
"""Bytes to which every tensor begins. Triton compiles another kernel for others, whose sums may go in another order."""


def available(device: torch.device) -> bool:
    """Whether kernels run on this device: CUDA, and Triton is installed."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton interprets its kernels, on the CPU: TRITON_INTERPRET=1 was set before it was imported."""
    import triton

    return bool(triton.knobs.runtime.interpret)


def launch(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], **options: Any) -> None:
    """Runs `kernel` (a function of `jit_*.py`) on a grid of programs. `options`: Triton's: num_warps, num_stages, ...

    Raises ValueError for tensors that are not on CUDA, on several devices or not aligned.
    """
    tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    devices = {tensor.device for tensor in tensors.values()}
    if len(devices) > 1:
        raise ValueError(f"tensors are on several devices: {', '.join(map(str, devices))}")
    (device,) = devices
    if device.type != "cuda" and not interpreted():
        raise ValueError(f"tensors are on {device}: kernels run on CUDA")
    for name, tensor in tensors.items():
        if tensor.data_ptr() % ALIGNMENT:
            raise ValueError(f"{name} does not begin at a multiple of {ALIGNMENT} bytes")
    if 0 not in grid:
        # Triton launches on the current device, wherever tensors are.
        with torch.cuda.device_of(next(iter(tensors.values()))):
            kernel[grid](**arguments, **options)


def check_dtype(dtype: torch.dtype, **tensors: Tensor) -> None:
    """Raises ValueError unless all have this dtype, and kernels do."""
    if dtype not in DTYPES:
        raise ValueError(f"{dtype}: kernels are for {', '.join(map(str, DTYPES))}")
    for name, tensor in tensors.items():
        if tensor.dtype != dtype:
            raise ValueError(f"{name} is {tensor.dtype}, not {dtype}")


def power_of_two(count: int) -> int:
    """The least power of two that is `count` or more: lengths of Triton's ranges."""
    return 1 << (count - 1).bit_length()
