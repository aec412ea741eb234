"""Checks of the kernels of generation against torch, on CUDA, or where Triton interprets them, on the CPU.

Triton decides when it is imported whether it interprets, so `python tests/kernel_checks.py` is a process of its own: it
runs every check with TRITON_INTERPRET=1 and prints, as JSON, what became of each: "" or a traceback.

What the interpreter of Triton 3.8 cannot show: it cuts off where bfloat16 should be rounded, so bfloat16 is compared
loosely there, and float16, which it rounds, shows where roundings are. It adds up in another order than a card.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from paged_rows import ABSENT, CLOSE, Pages, Shape, assert_attends, rows_of
from torch import Tensor
from torch.nn import functional

from gristmill.model.generate import kernels
from gristmill.model.generate.cache import Cache
from gristmill.model.generate.kernels import attention
from gristmill.model.phi4.config import RopeParameters, TextConfig
from gristmill.model.phi4.decoder import RMSNorm
from gristmill.model.phi4.rope import rotate

CHECKS: dict[str, Callable[[str], None]] = {}
"""By name. Each takes the device, and raises AssertionError."""


def _check(function: Callable[[str], None]) -> Callable[[str], None]:
    CHECKS[function.__name__] = function
    return function


@_check
def one_query_a_row_sees_its_keys(device: str) -> None:
    """Lengths on borders of pages and beside them, rows that rest, heads that share keys, heads of all sizes."""
    for heads, groups, dim, block, dtype in (
        (4, 2, 32, 16, torch.float32),
        (3, 1, 128, 128, torch.bfloat16),
        (2, 2, 96, 48, torch.float16),
        (3, 1, 64, 32, torch.float32),
        (20, 1, 16, 64, torch.float32),
    ):
        shape = Shape(heads, groups, dim, block, dtype, device)
        assert_attends(Pages(shape, rows_of(shape, 1, block, 0, block + 1, 2 * block - 1)))


@_check
def a_chunk_of_queries_sees_each_its_own(device: str) -> None:
    """More queries than a tile has, from the start of a prompt and from the middle; a few, as decoding tiles them."""
    for count, heads, groups, dim, block, dtype in (
        (32, 3, 1, 64, 32, torch.float32),
        (32, 3, 1, 64, 64, torch.bfloat16),
        (4, 6, 2, 32, 16, torch.float32),
    ):
        shape = Shape(heads, groups, dim, block, dtype, device)
        assert_attends(Pages(shape, rows_of(shape, count, 2 * block, 0, 2 * block + count), count))


@_check
def queries_of_a_chunk_rest_one_by_one(device: str) -> None:
    """A prompt's last chunk is filled up with queries that rest."""
    shape = Shape(device=device)
    pages = Pages(shape, rows_of(shape, 40, 24), 8).fill()
    whole = pages.attend().clone()
    pages.positions[1, 5:] = -1
    shorter = pages.attend()
    assert torch.equal(shorter[0], whole[0])
    assert torch.equal(shorter[1, :, :5], whole[1, :, :5])
    assert not shorter[1, :, 5:].any()


@contextmanager
def _splits(device: str) -> Iterator[int]:
    """Tokens of a split: as they are on CUDA, few where they are interpreted, which is slow."""
    if device == "cuda":
        yield attention.DECODING_SPLIT
        return
    with patch.multiple(attention, DECODING_SPLIT=64, CHUNK_SPLIT=64):
        yield attention.DECODING_SPLIT


@_check
def splits_are_summed_up(device: str) -> None:
    """Rows of less than a split, of exactly as many tokens, and of more; of more than are summed up at a time."""
    shape = Shape(2, 1, 16, 128, device=device)
    with _splits(device) as split:
        assert_attends(Pages(shape, rows_of(shape, split - 1, split, split + 1, 2 * split + 70, 0)))
        assert_attends(Pages(shape, rows_of(shape, 17 * split + 3)))


@_check
def splits_of_a_chunk_are_summed_up(device: str) -> None:
    """A chunk across the border of two splits: some of its queries see one, the others both."""
    shape = Shape(4, 1, 16, 128, torch.float16, device)
    with _splits(device):
        assert_attends(Pages(shape, rows_of(shape, attention.CHUNK_SPLIT + 3, 16), 16))


@_check
def a_row_has_the_same_bits_among_others(device: str) -> None:
    """Alone or with others that are longer, shorter or rest, in any slot and pages, under a table of any depth."""
    shape = Shape(3, 1, 32, 32, torch.bfloat16, device)
    with _splits(device) as split:
        for count, lengths in ((1, (37, 0, 60, 1)), (32, (64, 0, 33)), (1, (2 * split + 40, 3, 0))):
            rows = rows_of(shape, *lengths)
            together = Pages(shape, rows, count).fill().attend()
            turned = Pages(shape, rows[::-1], count, deal=1, spare=9).fill().attend()
            assert torch.equal(turned.flip(0), together)
            for row, sequence in enumerate(rows):
                if sequence is not None:
                    alone = Pages(shape, [sequence], count, deal=2 + row, spare=3).fill().attend()
                    assert torch.equal(alone[0], together[row]), f"row {row} of {lengths}, {count} queries"


@_check
def splits_have_the_same_bits_from_any_number_of_programs(device: str) -> None:
    """A program a split, as few rows have it, and all splits of a row in one, as many rows have it."""
    shape = Shape(1, 1, 16, 128, torch.float16, device)
    with _splits(device) as split:
        pages = Pages(shape, rows_of(shape, 2 * split + 70)).fill()
        spread = pages.attend()
        with patch.object(attention, "PROGRAMS", 1):
            assert torch.equal(pages.attend(), spread)


@_check
def attention_is_that_of_the_cache(device: str) -> None:
    """`model.generate.cache.Access`: what it returns, and what it leaves in the pages."""
    config = TextConfig(
        hidden_size=6 * 32,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        rope_parameters=RopeParameters(short_factor=(), long_factor=()),
    )
    shape = Shape(block=16, device=device)
    cache = Cache(config, 3, 64, shape.block, shape.dtype, torch.device(device))
    pages = Pages(shape, rows_of(shape, 40, 0, 24), 8).fill(but=8)
    # what nobody has is 0 in the cache, which multiplies it
    held = len(pages.keys)
    cache.keys[0, :held], cache.values[0, :held] = pages.keys.nan_to_num(0), pages.values.nan_to_num(0)
    numbers = [[page for page in row if page != ABSENT] for row in pages.table.tolist()]
    q, k, v = shape.split(pages.new.nan_to_num(0))
    kernels.write_pages(pages.keys, pages.values, k, v, pages.table, pages.positions)
    expected = cache.at(numbers, pages.positions.clamp(min=0))(0, q, k, v)
    torch.testing.assert_close(pages.attend()[::2], expected[::2], atol=CLOSE[shape.dtype], rtol=0)
    used = pages.table[pages.table != ABSENT].long()
    assert torch.equal(pages.keys[used].nan_to_num(0), cache.keys[0, used])
    assert torch.equal(pages.values[used].nan_to_num(0), cache.values[0, used])


@_check
def rows_that_rest_write_nothing(device: str) -> None:
    """Not even into the page of rows that rest; all other tokens are where torch puts them, and nowhere else."""
    for dtype, block in ((torch.float32, 16), (torch.bfloat16, 48)):
        shape = Shape(block=block, dtype=dtype, device=device)
        rows = rows_of(shape, block + 5, 0, 2 * block, 8)
        pages, expected = Pages(shape, rows, 8).fill(but=8), Pages(shape, rows, 8).fill()
        # what rows that rest hold is a number, and all that their table names is there: a write would be seen
        pages.table[pages.table == ABSENT] = 1
        _, k, v = shape.split(pages.new.nan_to_num(0.5))
        kernels.write_pages(pages.keys, pages.values, k, v, pages.table, pages.positions)
        for tensor, torchs in ((pages.keys, expected.keys), (pages.values, expected.values)):
            assert torch.equal(tensor.isnan(), torchs.isnan())
            assert torch.equal(tensor.nan_to_num(0), torchs.nan_to_num(0))


@_check
def heads_turn_and_are_written(device: str) -> None:
    """Bit for bit as `model.phi4.rope.rotate` and `write_pages`, with heads that turn in part, whole and not at all."""
    exact = [torch.float32, torch.float16, *([torch.bfloat16] if device == "cuda" else [])]
    for dtype in exact:
        for heads, groups, dim, rotary, count in ((6, 2, 32, 24, 1), (3, 3, 96, 72, 8), (2, 1, 16, 16, 1)):
            shape = Shape(heads, groups, dim, 16, dtype, device)
            pages = Pages(shape, rows_of(shape, 33, 0, 16), count)
            pages.table[pages.table == ABSENT] = 1
            whole = pages.new.nan_to_num(0.5)
            cos, sin = (shape.random(3, 1, count, rotary, seed=seed) for seed in (7, 8))
            q, k, v = shape.split(whole)
            expected = Pages(shape, pages.rows, count)
            kernels.write_pages(expected.keys, expected.values, rotate(k, cos, sin), v, pages.table, pages.positions)
            caches = pages.keys, pages.values
            turned = kernels.rotate_and_write(
                whole.transpose(1, 2).flatten(2), cos, sin, *caches, pages.table, pages.positions
            )
            assert torch.equal(turned, rotate(q, cos, sin))
            assert torch.equal(pages.keys.nan_to_num(9), expected.keys.nan_to_num(9))
            assert torch.equal(pages.values.nan_to_num(9), expected.values.nan_to_num(9))


def _assert_rounded_alike(y: Tensor, expected: Tensor) -> None:
    """All but a few are bit for bit the same, and those differ in the last place: sums have other orders."""
    assert y.dtype == expected.dtype
    unit = torch.finfo(y.dtype).eps
    torch.testing.assert_close(y.float(), expected.float(), rtol=4 * unit if unit < 1e-6 else unit, atol=1e-7)
    if y.dtype == torch.float16:
        assert (y != expected).float().mean() < 0.01  # a rounding more or less, or elsewhere, shows in a tenth of them


@_check
def norms_are_rounded_as_torch_rounds(device: str) -> None:
    """Rows of a power of two and others, of which some are very small; sums rounded before they are normed."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for width in (96, 128, 3072):
            shape = Shape(dtype=dtype, device=device)
            x, residual = (shape.random(2, 3, width, seed=seed) for seed in (1, 2))
            x[0] *= 1e-2
            norm = RMSNorm(width, 1e-5).to(device, dtype)
            norm.weight.data = shape.random(width, seed=3)
            weight = norm.weight.detach()
            sums, normed = kernels.add_rms_norm(x, residual, weight, 1e-5)
            if device == "cuda" or dtype != torch.bfloat16:
                assert torch.equal(sums, x + residual)
                with torch.no_grad():
                    _assert_rounded_alike(kernels.rms_norm(x, weight, 1e-5), norm(x))
                    _assert_rounded_alike(normed, norm(sums))
            else:
                torch.testing.assert_close(sums, x + residual, rtol=2**-7, atol=0)
                torch.testing.assert_close(normed, norm(sums).detach(), rtol=2**-6, atol=0)


@_check
def gates_are_rounded_as_torch_rounds(device: str) -> None:
    """Widths of a tile, less and more; gates so negative that their exponential is infinite."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for width in (40, 1024, 1500):
            gate_up = Shape(dtype=dtype, device=device).random(2, 2, 2 * width, seed=4)
            gate_up[0, 0, :3] = torch.tensor([-200.0, 200.0, 0.0])
            gate, up = gate_up.chunk(2, -1)
            y = kernels.silu_mul(gate_up)
            if device == "cuda" or dtype != torch.bfloat16:
                _assert_rounded_alike(y, functional.silu(gate) * up)
            else:
                torch.testing.assert_close(y, functional.silu(gate) * up, rtol=2**-6, atol=1e-6)


@_check
def a_row_between_products_has_the_same_bits_alone(device: str) -> None:
    """Norms, sums and gates."""
    for dtype in (torch.float32, torch.bfloat16):
        x, residual = (Shape(dtype=dtype, device=device).random(5, 1, 352, seed=seed) for seed in (1, 2))
        weight = torch.ones(352, dtype=dtype, device=device)
        for function in (
            lambda x, _, weight=weight: kernels.rms_norm(x, weight, 1e-5),
            lambda x, residual, weight=weight: torch.stack(kernels.add_rms_norm(x, residual, weight, 1e-5), 1),
            lambda x, _: kernels.silu_mul(x),
        ):
            together = function(x, residual)
            for row in range(5):
                # a copy: part of a tensor may begin where kernels refuse it
                alone = function(x[row : row + 1].clone(), residual[row : row + 1].clone())
                assert torch.equal(alone[0], together[row])


def _outcome(check: Callable[[str], None]) -> str:
    try:
        check("cpu")
    except Exception:  # reported by name, and the others run
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET") == "1", "set TRITON_INTERPRET=1, before anything imports Triton"
    torch.set_num_threads(1)
    print(json.dumps({name: _outcome(check) for name, check in CHECKS.items()}))
