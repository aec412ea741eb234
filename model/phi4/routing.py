"""Which tokens take which adapter: by sample, as released, or by token, in the paper's wording.

By sample, the first modality of `model.phi4.modalities` that a sample has decides: an image makes it vision, with audio
or without; else audio makes it speech; text alone takes no adapter.
Source: arXiv 2503.01743, section 2.2; InputMode of the released code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.lora import Routes, Span
from gristmill.model.phi4.modalities import MODALITIES

Adapter = str | Sequence[str | None] | None
"""None: no adapter; a name: that one for all; "auto": by sample; "token": by token; else one name or None a row."""


def masks(config: ModelConfig, adapter: Adapter, ids_BL: Tensor, samples_BL: Tensor) -> dict[str, Tensor]:
    """For each adapter the tokens that take it, bool [B, L]. `samples_BL`: the number of each token's sample, 0 to n-1
    over the whole batch. Raises ValueError for an adapter that the model does not have."""
    known = {lora.name for lora in config.adapters}
    if adapter is None:
        return {}
    if adapter in ("auto", "token"):
        return _by_modality(config, known, adapter == "token", ids_BL, samples_BL)
    rows = [adapter] * len(ids_BL) if isinstance(adapter, str) else list(adapter)
    if len(rows) != len(ids_BL):
        raise ValueError(f"adapter names {len(rows)} rows, the batch has {len(ids_BL)}")
    if unknown := sorted({str(name) for name in rows if name is not None} - known):
        raise ValueError(f"adapter {unknown[0]!r}: this model has {sorted(known) or 'none'}, besides None, auto, token")
    masks_BL: dict[str, Tensor] = {}
    for name in sorted(known & set(rows)):
        takes_B = torch.tensor([row == name for row in rows], device=ids_BL.device)
        masks_BL[name] = takes_B[:, None].expand_as(ids_BL)
    return masks_BL


def _by_modality(
    config: ModelConfig, known: Collection[str], by_token: bool, ids_BL: Tensor, samples_BL: Tensor
) -> dict[str, Tensor]:
    """Each modality in its order of precedence takes what the ones before it have left. It takes it also where the
    model has no adapter for it: audio beside an image is no speech."""
    taken_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    masks_BL: dict[str, Tensor] = {}
    for modality in MODALITIES:
        # The order of MODALITIES decides who comes first; `~taken_BL` keeps each token with one adapter at most.
        here_BL = tokens_of(config, modality.name, ids_BL)
        mask_BL = (here_BL if by_token else among(here_BL, samples_BL)) & ~taken_BL
        taken_BL |= mask_BL
        if modality.adapter in known:
            masks_BL[modality.adapter] = mask_BL
    return masks_BL


def routes(masks: Mapping[str, Tensor]) -> Routes:
    """Masks as places, so that tokens without an adapter cost nothing. Waits for the device, since how many there are
    decides a shape."""
    places_by_adapter: dict[str, Tensor | None] = {}
    for name, mask_BL in masks.items():
        # An adapter of no token is left out, not run on an empty tensor: in training its gradient then is None, as the
        # optimizer expects of what was not used. None for all tokens spares a copy of the batch.
        places_N = mask_BL.flatten().nonzero()[:, 0]
        if len(places_N):
            places_by_adapter[name] = None if len(places_N) == mask_BL.numel() else places_N
    return places_by_adapter


def side_by_side(masks: Mapping[str, Tensor]) -> tuple[Tensor | None, dict[str, Span | None]]:
    """An order in which the tokens of each adapter lie end to end: places in the flattened batch, int64 [B * L], None
    where they already do; and the routes of that order.

    Tokens that take the same adapter stay in their order, so samples stay whole where all of a sample take the same.
    Tokens without an adapter come last: the first span always begins at 0, which a compiled block may rely on. Masks
    lie on the CPU, or the device is waited for.
    """
    masks_T = {name: mask.flatten() for name, mask in masks.items() if bool(mask.any())}
    routes: dict[str, Span | None] = {}
    start = 0
    kind_T = torch.full((next(iter(masks.values())).numel() if masks else 0,), len(masks_T))
    for number, (name, mask_T) in enumerate(masks_T.items()):
        kind_T[mask_T] = number
        stop = start + int(mask_T.sum())
        # None for all tokens: the same route whatever their number
        routes[name] = None if stop - start == len(mask_T) else Span(start, stop)
        start = stop
    lies_so = bool((kind_T.diff() >= 0).all())
    return None if lies_so else kind_T.argsort(stable=True), routes


def among(here_BL: Tensor, samples_BL: Tensor) -> Tensor:
    """Whether a token's sample has any token of `here_BL`, bool [B, L]."""
    # Counted by sample, then read back by each of its tokens: no loop over samples, no wait for the device.
    count = torch.zeros(here_BL.numel(), dtype=torch.int32, device=here_BL.device)
    count.index_add_(0, samples_BL.flatten(), here_BL.flatten().int())
    return count[samples_BL] > 0


def tokens_of(config: ModelConfig, modality: str, ids_BL: Tensor) -> Tensor:
    """Where a modality's token stands, bool [B, L]; nowhere, if the model has no such part."""
    part = getattr(config, modality)
    return torch.zeros_like(ids_BL, dtype=torch.bool) if part is None else ids_BL == part.token_id
