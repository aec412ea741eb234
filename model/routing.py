"""Which tokens take which adapter: by sample, as released, or by token, in the paper's wording.

By sample, the first modality of `model.modalities` that a sample has decides: an image makes it vision, with audio or
without; else audio makes it speech; text alone takes no adapter.
Source: arXiv 2503.01743, section 2.2; InputMode of the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.config import ModelConfig
from model.lora import Routes
from model.modalities import MODALITIES

Adapter = str | Sequence[str | None] | None
"""None: no adapter; a name: that one for all; "auto": by sample; "token": by token; else one name or None a row."""


def masks(config: ModelConfig, adapter: Adapter, ids_BL: Tensor, samples_BL: Tensor) -> dict[str, Tensor]:
    """For each adapter the tokens that take it, bool [B, L]. `samples_BL`: the number of each token's sample, 0 to n-1
    over the whole batch. Raises ValueError for an adapter that the model does not have."""
    have, found = {one.name for one in config.adapters}, {}
    if adapter is None:
        return {}
    if adapter in ("auto", "token"):
        taken = torch.zeros_like(ids_BL, dtype=torch.bool)
        for one in MODALITIES:
            here = tokens_of(config, one.name, ids_BL)
            mask = (here if adapter == "token" else among(here, samples_BL)) & ~taken
            taken |= mask
            if one.adapter in have:
                found[one.adapter] = mask
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


def tokens_of(config: ModelConfig, modality: str, ids_BL: Tensor) -> Tensor:
    """Where a modality's token stands, bool [B, L]; nowhere, if the model has no such part."""
    part = getattr(config, modality)
    return torch.zeros_like(ids_BL, dtype=torch.bool) if part is None else ids_BL == part.token
