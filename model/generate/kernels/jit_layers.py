"""What runs on the device between two products of a layer. Import it only where Triton is installed.

Results are rounded where torch rounds them: where a layer makes a tensor of its dtype, and nowhere else.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normed(x_D: tl.tensor, weight_D: tl.tensor, eps: tl.tensor, WIDTH: tl.constexpr) -> tl.tensor:
    """As `model.phi4.decoder.RMSNorm`: float32, then cast, then the weight."""
    wide_D = x_D.to(tl.float32)
    mean = tl.sum(wide_D * wide_D, 0) / WIDTH
    normed_D = (wide_D * tl.rsqrt(mean + eps)).to(x_D.dtype)
    return (normed_D.to(tl.float32) * weight_D.to(tl.float32)).to(x_D.dtype)


@triton.jit
def norm(
    x: tl.tensor, weight: tl.tensor, normed: tl.tensor, eps: tl.tensor, WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr
) -> None:
    """A row."""
    channel = tl.arange(0, WIDTH_PADDED)
    real = channel < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + channel
    x_D = tl.load(x + at, mask=real, other=0.0)
    weight_D = tl.load(weight + channel, mask=real, other=0.0)
    tl.store(normed + at, _normed(x_D, weight_D, eps, WIDTH), mask=real)


@triton.jit
def add_norm(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    sums: tl.tensor,
    normed: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
) -> None:
    """A row: the sum is rounded before it is normed, as it is where it is a tensor."""
    channel = tl.arange(0, WIDTH_PADDED)
    real = channel < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + channel
    x_D = tl.load(x + at, mask=real, other=0.0)
    weight_D = tl.load(weight + channel, mask=real, other=0.0)
    residual_D = tl.load(residual + at, mask=real, other=0.0)
    sum_D = (x_D.to(tl.float32) + residual_D.to(tl.float32)).to(x_D.dtype)
    tl.store(sums + at, sum_D, mask=real)
    tl.store(normed + at, _normed(sum_D, weight_D, eps, WIDTH), mask=real)


@triton.jit
def gate(gate_up: tl.tensor, y: tl.tensor, WIDTH: tl.constexpr, TILE: tl.constexpr) -> None:
    """A tile of channels of a row."""
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * TILE + tl.arange(0, TILE)
    real = channel < WIDTH
    gate_T = tl.load(gate_up + row * 2 * WIDTH + channel, mask=real, other=0.0)
    up_T = tl.load(gate_up + (row * 2 + 1) * WIDTH + channel, mask=real, other=0.0)
    wide_T = gate_T.to(tl.float32)
    silu_T = tl.div_rn(wide_T, 1.0 + tl.exp(-wide_T)).to(gate_T.dtype)
    tl.store(y + row * WIDTH + channel, (silu_T.to(tl.float32) * up_T.to(tl.float32)).to(gate_T.dtype), mask=real)


@triton.jit(do_not_specialize=["table_stride"])
def rotate_write(
    qkv: tl.tensor,  # [B, L, H + 2 G, D]
    cos: tl.tensor,  # [B, L, R]
    sin: tl.tensor,  # [B, L, R]
    keys: tl.tensor,  # [pages, G, D, K]
    values: tl.tensor,  # [pages, G, K, D]
    table: tl.tensor,  # [B, N], int32
    positions: tl.tensor,  # [B, L], int64
    q: tl.tensor,  # [B, L, H, D]
    table_stride: tl.tensor,
    LENGTH: tl.constexpr,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    ROTARY: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,  # heads
) -> None:
    """Some heads of a token: queries and keys are turned, keys and values go to their page."""
    token = tl.program_id(0)
    head = (tl.program_id(1) * TILE + tl.arange(0, TILE))[:, None]
    channel = tl.arange(0, DIM_PADDED)[None, :]
    real = (head < HEADS + 2 * GROUPS) & (channel < DIM)
    at = (token.to(tl.int64) * (HEADS + 2 * GROUPS) + head) * DIM
    x_TD = tl.load(qkv + at + channel, mask=real, other=0.0)
    # Channel i turns with i + R/2: y_i = x_i cos_i - x_(i + R/2) sin_i, y_(i + R/2) = x_(i + R/2) cos + x_i sin.
    turns = channel < ROTARY
    lower = channel < ROTARY // 2
    partner = tl.where(lower, channel + ROTARY // 2, channel - ROTARY // 2)
    other_TD = tl.load(qkv + at + partner, mask=real & turns, other=0.0).to(tl.float32)
    cos_1D = tl.load(cos + token * ROTARY + channel, mask=turns, other=1.0).to(tl.float32)
    sin_1D = tl.load(sin + token * ROTARY + channel, mask=turns, other=0.0).to(tl.float32)
    straight_TD = (x_TD.to(tl.float32) * cos_1D).to(x_TD.dtype).to(tl.float32)
    across_TD = (tl.where(lower, -other_TD, other_TD) * sin_1D).to(x_TD.dtype).to(tl.float32)
    turned_TD = tl.where(turns, (straight_TD + across_TD).to(x_TD.dtype), x_TD)
    tl.store(q + (token.to(tl.int64) * HEADS + head) * DIM + channel, turned_TD, mask=real & (head < HEADS))
    position = tl.load(positions + token)
    if position >= 0:
        page = tl.load(table + token // LENGTH * table_stride + position // PAGE).to(tl.int64)
        inner = position % PAGE
        is_key = (head >= HEADS) & (head < HEADS + GROUPS)
        key_at = (page * GROUPS + head - HEADS) * DIM * PAGE + channel * PAGE + inner
        tl.store(keys + key_at, turned_TD, mask=real & is_key)
        value_at = ((page * GROUPS + head - HEADS - GROUPS) * PAGE + inner) * DIM + channel
        tl.store(values + value_at, x_TD, mask=real & (head >= HEADS + GROUPS))


@triton.jit(do_not_specialize=["table_stride"])
def write(
    k: tl.tensor,  # [B, L, G, D]
    v: tl.tensor,  # [B, L, G, D]
    keys: tl.tensor,  # [pages, G, D, K]
    values: tl.tensor,  # [pages, G, K, D]
    table: tl.tensor,  # [B, N], int32
    positions: tl.tensor,  # [B, L], int64
    table_stride: tl.tensor,
    LENGTH: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    PAGE: tl.constexpr,
) -> None:
    """A key and a value of a token, to their places."""
    token = tl.program_id(0)
    group = tl.program_id(1)
    position = tl.load(positions + token)
    if position >= 0:
        channel = tl.arange(0, DIM_PADDED)
        real = channel < DIM
        at = (token.to(tl.int64) * GROUPS + group) * DIM + channel
        page = tl.load(table + token // LENGTH * table_stride + position // PAGE).to(tl.int64)
        base = (page * GROUPS + group) * DIM * PAGE
        inner = position % PAGE
        tl.store(keys + base + channel * PAGE + inner, tl.load(k + at, mask=real), mask=real)
        tl.store(values + base + inner * DIM + channel, tl.load(v + at, mask=real), mask=real)
