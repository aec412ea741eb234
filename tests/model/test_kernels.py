"""Kernels of generation equal torch, interpreted and on CUDA, and refuse what they cannot do; nobody needs Triton."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_checks import CHECKS

from gristmill.model.generate import kernels
from gristmill.model.phi4.presets import PRESETS

triton_installed = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton on this system")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """Of every check, interpreted: nothing, or a traceback. In a process whose Triton was imported for that."""
    command = [sys.executable, str(Path(__file__).parents[1] / "kernel_checks.py")]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    outcomes: dict[str, str] = json.loads(run.stdout)
    return outcomes


@triton_installed
@pytest.mark.parametrize("name", CHECKS)
def test_interpreted(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]


@on_cuda
@pytest.mark.parametrize("name", CHECKS)
def test_on_cuda(name: str) -> None:
    CHECKS[name]("cuda")


def test_without_triton_they_are_imported_and_not_available_and_the_model_brings_no_compiler() -> None:
    """torch's compiler takes as long to import as the rest of torch does, in each process that holds a model."""
    script = (
        "import sys; sys.modules['triton'] = None; import torch; from gristmill.model.generate import kernels, engine;"
        "print(kernels.available(torch.device('cpu')), kernels.available(torch.device('cuda')));"
        "print('gristmill.model.phi4.attention' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.split() == ["False", "False", "True", "False"], run.stderr


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_shapes_that_they_can_do(name: str) -> None:
    text = PRESETS[name].text
    kernels.check_shapes(text.num_attention_heads, text.num_key_value_heads, text.head_dim, 128, torch.bfloat16)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "block", "dtype", "message"),
    [
        (6, 2, 8, 16, torch.float32, "head_dim=8"),
        (6, 2, 100, 16, torch.float32, "head_dim=100"),
        (6, 2, 256, 16, torch.float32, "head_dim=256"),
        (6, 2, 64, 8, torch.float32, "8 tokens of a page"),
        (6, 2, 64, 0, torch.float32, "0 tokens of a page"),
        (6, 4, 64, 16, torch.float32, "6 query heads"),
        (6, 2, 64, 16, torch.float64, "float64"),
    ],
)
def test_what_they_cannot_do_is_refused(
    heads: int, kv_heads: int, head_dim: int, block: int, dtype: torch.dtype, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.check_shapes(heads, kv_heads, head_dim, block, dtype)
    with pytest.raises(ValueError, match=message):
        attend(heads, kv_heads, head_dim, block, dtype)


def attend(heads: int, kv_heads: int, head_dim: int, block: int, dtype: torch.dtype, **other: torch.Tensor) -> None:
    keys = torch.zeros(3, kv_heads, head_dim, block, dtype=dtype)
    tensors = {
        "q_BHLD": torch.zeros(2, heads, 1, head_dim, dtype=dtype),
        "keys": keys,
        "values": keys.transpose(2, 3).contiguous(),
        "table_BN": torch.zeros(2, 1, dtype=torch.int32),
        "positions_BL": torch.zeros(2, 1, dtype=torch.int64),
    }
    kernels.paged_attention(**tensors | other, scale=1.0)


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("table_BN", torch.zeros(2, 1, dtype=torch.int64), "table"),
        ("table_BN", torch.zeros(3, 1, dtype=torch.int32), "table"),
        ("table_BN", torch.zeros(4, 2, dtype=torch.int32).T, "table"),
        ("positions_BL", torch.zeros(2, 1, dtype=torch.int32), "positions"),
        ("positions_BL", torch.zeros(2, 2, dtype=torch.int64), "positions"),
        ("q_BHLD", torch.zeros(2, 6, 1, 32, dtype=torch.bfloat16), "keys is torch.float32"),
        ("q_BHLD", torch.zeros(2, 6, 1, 16), "16 channels"),
        ("values", torch.zeros(3, 2, 32, 16), "values"),
        ("keys", torch.zeros(3, 2, 16, 32).transpose(2, 3), "contiguous"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name: str, other: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attend(6, 2, 32, 16, torch.float32, **{name: other})


@triton_installed
def test_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="tensors are on cpu"):
        attend(6, 2, 32, 16, torch.float32)


def test_rows_that_do_not_fit_are_refused() -> None:
    x, weight = torch.zeros(2, 8), torch.ones(8)
    for message, refused in (
        ("weight", lambda: kernels.rms_norm(x, torch.ones(4), 1e-5)),
        ("weight is torch.float64", lambda: kernels.rms_norm(x, weight.double(), 1e-5)),
        ("residual", lambda: kernels.add_rms_norm(x, x[:1], weight, 1e-5)),
        ("at most", lambda: kernels.rms_norm(torch.zeros(1, 40_000), torch.ones(40_000), 1e-5)),
        ("7 channels", lambda: kernels.silu_mul(torch.zeros(2, 7))),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
