"""Kernels of generation, compiled for an H100 without one, in the shapes of Phi-4-Mini: what they take of it."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gristmill.model.generate import kernels
from gristmill.model.phi4.presets import PRESETS

triton = pytest.importorskip("triton", reason="no Triton on this system")

SHARED, REGISTERS = 227 * 1024, 65536
"""Of one processor of an H100: bytes of shared memory that a program may have, and registers."""
TEXT, BLOCK, DEVICE = PRESETS["mini"].text, 128, torch.device("meta")
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int64: "i64"}


@dataclass(frozen=True)
class Compiled:
    """`registers` of a thread; `stack`: bytes of a thread that are in memory, as spilled registers are; `shared`
    memory of a program, bytes."""

    name: str
    threads: int
    registers: int
    stack: int
    shared: int
    ptx: str

    @property
    def programs(self) -> int:
        """That fit a processor at once."""
        registers = math.ceil(self.registers / 8) * 8 * self.threads  # dealt by eights
        return min(SHARED // max(self.shared + 1024, 1), REGISTERS // registers)


def compile_for_h100(kernel: Any, arguments: dict[str, Any], options: dict[str, Any], folder: Path) -> Compiled:
    """As Triton does when it launches: aligned tensors and multiples of 16 are known to be so."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for at, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[(at,)] = "constexpr", value
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = f"*{TYPES[value.dtype]}" if isinstance(value, Tensor) else "i32"
            if isinstance(value, Tensor) or (value % 16 == 0 and not parameter.do_not_specialize):
                attributes[(at,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    cubin = folder / f"{kernel.__name__}.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.findall(rf"{what}:(\d+)", usage)[-1]) for what in ("REG", "STACK"))
    threads = 32 * compiled.metadata.num_warps
    return Compiled(kernel.__name__, threads, registers, stack, compiled.metadata.shared, compiled.asm["ptx"])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Compiled]:
    """What is launched is compiled instead, and listed."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernels_compiled: list[Compiled] = []

    def launch(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], **options: Any) -> None:
        kernels_compiled.append(compile_for_h100(kernel, arguments, options, tmp_path))

    monkeypatch.setattr("gristmill.model.generate.kernels.attention.launch", launch)
    monkeypatch.setattr("gristmill.model.generate.kernels.elementwise.launch", launch)
    return kernels_compiled


def empty(*sizes: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(sizes, dtype=dtype, device=DEVICE)


def pages(rows: int, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, values, table and positions of rows of up to 1,024 tokens."""
    columns, groups, dim = 1024 // BLOCK, TEXT.num_key_value_heads, TEXT.head_dim
    return (
        empty(1 + rows * columns, groups, dim, BLOCK),
        empty(1 + rows * columns, groups, BLOCK, dim),
        empty(rows, columns, dtype=torch.int32),
        empty(rows, count, dtype=torch.int64),
    )


def assert_fits(kernel: Compiled) -> None:
    assert kernel.stack == 0, f"{kernel.name} spills registers"
    assert kernel.shared <= SHARED, f"{kernel.name} takes {kernel.shared} bytes of shared memory"
    assert kernel.programs > 0


def attend(rows: int, count: int) -> None:
    q = empty(rows, TEXT.num_attention_heads, count, TEXT.head_dim)
    kernels.paged_attention(q, *pages(rows, count), TEXT.head_dim**-0.5)


def test_attention_of_a_step_fits_as_often_as_its_comment_says(compiled: list[Compiled]) -> None:
    attend(64, 1)
    step, parts = compiled
    for kernel in compiled:
        assert_fits(kernel)
    assert (step.name, parts.name) == ("attend", "combine")
    assert step.programs >= 4
    # pages come in 16 bytes a thread, past the registers, and two tiles ahead of the products
    assert step.ptx.count("cp.async.cg.shared.global") >= 8
    assert "cp.async.ca" not in step.ptx
    assert re.search(r"cp\.async\.wait_group\s+2;", step.ptx)


@pytest.mark.parametrize("count", [32, 128])
def test_attention_of_a_chunk_fits_twice(count: int, compiled: list[Compiled]) -> None:
    attend(8, count)
    (chunk,) = compiled
    assert_fits(chunk)
    assert chunk.programs >= 2
    assert "wgmma.mma_async" in chunk.ptx


def heads(*, rows: int, of: int) -> Tensor:
    return empty(rows, 1, of * TEXT.head_dim)


def rotate() -> None:
    angles = empty(64, 1, 1, TEXT.rotary_dim)
    of = TEXT.num_attention_heads + 2 * TEXT.num_key_value_heads
    kernels.rotate_and_write(heads(rows=64, of=of), angles, angles, *pages(64, 1))


def write() -> None:
    keys, values, *where = pages(64, 1)
    new = empty(64, TEXT.num_key_value_heads, 1, TEXT.head_dim)
    kernels.write_pages(keys, values, new, new, *where)


HIDDEN = (64, 1, TEXT.hidden_size)
BETWEEN_PRODUCTS: dict[str, Callable[[], object]] = {
    "rotate_write": rotate,
    "write": write,
    "norm": lambda: kernels.rms_norm(empty(*HIDDEN), empty(TEXT.hidden_size), 1e-5),
    "add_norm": lambda: kernels.add_rms_norm(empty(*HIDDEN), empty(*HIDDEN), empty(TEXT.hidden_size), 1e-5),
    "gate": lambda: kernels.silu_mul(empty(64, 1, 2 * TEXT.intermediate_size)),
}


@pytest.mark.parametrize("name", BETWEEN_PRODUCTS)
def test_what_lies_between_products_is_one_launch(name: str, compiled: list[Compiled]) -> None:
    BETWEEN_PRODUCTS[name]()
    (kernel,) = compiled
    assert kernel.name == name
    assert_fits(kernel)
    assert kernel.registers <= 64
    assert "fma.rn" not in kernel.ptx or name in ("norm", "add_norm"), "a product and a sum are rounded once"
