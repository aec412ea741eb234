"""Mixture of LoRAs: one linear holds several named adapters, and each token of a batch takes its own, or none.

Text, vision, speech and vision-speech samples share a batch, in training too: an adapter computes only the tokens
that are routed to it. By sample, as released (an image makes a sample vision, else audio makes it speech), or by
token, in the paper's wording. A new modality is a row in `MODALITIES`.
Source: arXiv 2503.01743, section 2.2; peft's LoRA for scale and initial values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import AdapterConfig, ModelConfig

MODALITIES = (("vision", "vision"), ("audio", "speech"))
"""(config with the token, adapter), the first that a sample has decides."""

Adapter = str | Sequence[str | None] | None
"""None: no adapter; a name: that one for all; "auto": by sample; "token": by token; else one name or None a row."""

Routes = Mapping[str, Tensor | None]
"""For each active adapter the tokens that take it: None for all, int64 [n] as flat places in [B * L], or a bool mask
[B, L] (all tokens are computed and the result chosen: shapes that depend on nothing, for generation)."""


class LowRank(nn.Module):
    """An adapter of one linear: `A` [rank, inputs], `B` [outputs, rank]; B starts at zero, which changes nothing."""

    def __init__(self, config: AdapterConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.scale, self.dropout = config.scale, config.dropout
        self.A = nn.Parameter(torch.empty(config.rank, inputs))
        self.B = nn.Parameter(torch.zeros(outputs, config.rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(F.dropout(x, self.dropout, self.training), self.A), self.B) * self.scale


class RoutedLinear(nn.Module):
    """y = Wx, plus what the adapter of a token adds. No bias, as nowhere in the decoder."""

    def __init__(self, inputs: int, outputs: int, adapters: Sequence[AdapterConfig]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        nn.init.normal_(self.weight, std=0.02)
        self.adapters = nn.ModuleDict({one.name: LowRank(one, inputs, outputs) for one in adapters})

    def forward(self, x_BLI: Tensor, routes: Routes) -> Tensor:
        y_BLO = F.linear(x_BLI, self.weight)
        for name, tokens in routes.items():
            adapter = self.adapters[name]
            if tokens is None:
                y_BLO = y_BLO + adapter(x_BLI)
            elif tokens.dtype == torch.bool:
                y_BLO = torch.where(tokens[..., None], y_BLO + adapter(x_BLI), y_BLO)
            else:
                added = adapter(x_BLI.flatten(0, 1).index_select(0, tokens))
                y_BLO.flatten(0, 1).index_add_(0, tokens, added.to(y_BLO.dtype))
        return y_BLO


def masks(config: ModelConfig, adapter: Adapter, ids_BL: Tensor, samples_BL: Tensor) -> dict[str, Tensor]:
    """For each adapter the tokens that take it, bool [B, L]. `samples_BL`: the number of each token's sample, 0 to n-1
    over the whole batch. Raises ValueError for an adapter that the model does not have."""
    have, found = {one.name for one in config.adapters}, {}
    if adapter is None:
        return {}
    if adapter in ("auto", "token"):
        taken = torch.zeros_like(ids_BL, dtype=torch.bool)
        for name, wanted in MODALITIES:
            if (part := getattr(config, name)) is None:
                continue
            here = ids_BL == part.token
            mask = (here if adapter == "token" else among(here, samples_BL)) & ~taken
            taken |= mask
            if wanted in have:
                found[wanted] = mask
        return found
    rows = [adapter] * len(ids_BL) if isinstance(adapter, str) else list(adapter)
    if len(rows) != len(ids_BL):
        raise ValueError(f"adapter names {len(rows)} rows, the batch has {len(ids_BL)}")
    if unknown := sorted({str(one) for one in rows if one is not None} - have):
        raise ValueError(f"adapter {unknown[0]!r}: this model has {sorted(have) or 'none'}, besides None, auto, token")
    chosen = {name: [one == name for one in rows] for name in sorted(have & set(rows))}
    return {
        name: torch.tensor(flags, device=ids_BL.device)[:, None].expand_as(ids_BL) for name, flags in chosen.items()
    }


def routes(masks: Mapping[str, Tensor]) -> Routes:
    """Masks as places, so that tokens without an adapter cost nothing. Waits for the device."""
    found: dict[str, Tensor | None] = {}
    for name, mask in masks.items():
        places = mask.flatten().nonzero()[:, 0]
        if len(places):
            found[name] = None if len(places) == mask.numel() else places
    return found


def among(here_BL: Tensor, samples_BL: Tensor) -> Tensor:
    """Whether a token's sample has any token of `here_BL`, bool [B, L]."""
    count = torch.zeros(here_BL.numel(), dtype=torch.int32, device=here_BL.device)
    count.index_add_(0, samples_BL.flatten(), here_BL.flatten().int())
    return count[samples_BL] > 0
