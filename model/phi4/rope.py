"""Rotary positions over a fraction of each head, with LongRoPE's two sets of frequencies.

Which set holds is a matter of each sequence alone: longer than the original context, or not. (The reference decides for
the whole batch, so that one long row changes its neighbours; `hf_compat_rope` does that, for parity tests.)
Source: LongRoPE, arXiv 2402.13753; transformers 5.23, `modeling_rope_utils._compute_longrope_parameters`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gristmill.model.phi4.config import TextConfig


def tables(config: TextConfig, positions_BL: Tensor, long_BL: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin [B, 1, L, rotary_dim] for `rotate`. `long_BL` (or [B, 1]): the token's sequence exceeds the original
    context."""
    device = positions_BL.device
    rope = config.rope_parameters
    # Both sets of frequencies for every token, and each takes its own: the choice is by sequence, not by batch.
    short_R, long_R = (_rates(config, factor, device) for factor in (rope.short_factor, rope.long_factor))
    rate_BLR = torch.where(long_BL[..., None], long_R, short_R)
    angle_BLR = positions_BL[..., None].float() * rate_BLR
    angle_B1LR = torch.cat([angle_BLR, angle_BLR], -1)[:, None]
    # LongRoPE's temperature is on cos and sin, so on queries and keys both, in short sequences too.
    scale = config.rope_scale
    return (angle_B1LR.cos() * scale).to(dtype), (angle_B1LR.sin() * scale).to(dtype)


def rotate(x_BHLD: Tensor, cos_B1LR: Tensor, sin_B1LR: Tensor) -> Tensor:
    """Turns the first R dimensions of each head, pair (i, i + R/2) together; the others pass."""
    # Halves and not neighbours, as Llama and NeoX have it: the released weights are laid out for that.
    turning, passing = x_BHLD.split([cos_B1LR.shape[-1], x_BHLD.shape[-1] - cos_B1LR.shape[-1]], -1)
    first, second = turning.chunk(2, -1)
    turned = turning * cos_B1LR + torch.cat([-second, first], -1) * sin_B1LR
    return torch.cat([turned, passing], -1) if passing.shape[-1] else turned


def _rates(config: TextConfig, factor: tuple[float, ...], device: torch.device) -> Tensor:
    """Radians per position, [rotary_dim / 2], in float32 as the reference computes them."""
    dims = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32, device=device) / config.rotary_dim
    stretch = torch.tensor(factor or (1.0,) * len(dims), dtype=torch.float32, device=device)
    return 1.0 / (stretch * config.rope_parameters.rope_theta**dims)
