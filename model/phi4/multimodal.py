"""The whole model, Phi-4-Multimodal: embeddings of text, images and audio in one sequence through one decoder.

Its children are the parts (`model.phi4.parts`). Rows, or packed samples of a row, may be of any kind: adapters and the
audio projector are chosen by sample (the reference: by call). Names of inputs are the reference's.
Source: arXiv 2503.01743, section 2.2; transformers 5.23, `models/phi4_multimodal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gristmill.model.phi4.attention import Attention, Places
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.decoder import Decoder
from gristmill.model.phi4.lora import Routes
from gristmill.model.phi4.modalities import MODALITIES, Inputs, Modality
from gristmill.model.phi4.parts import ADAPTERS, check_parts
from gristmill.model.phi4.rope import tables
from gristmill.model.phi4.routing import Adapter, among, masks, routes, side_by_side, tokens_of


@dataclass(frozen=True)
class Output:
    """`logits` [B, L, vocab]."""

    logits: Tensor


class Multimodal(nn.Module):
    """Random weights from torch's global generator; `Multimodal.seeded` from a seed. Raises ValueError for a config
    whose parameters do not each belong to one part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if unknown := sorted({adapter.name for adapter in config.adapters} - set(ADAPTERS)):
            raise ValueError(f"adapters: {unknown[0]!r} is not known; allowed are {sorted(ADAPTERS)}")
        self.config = config
        self.language = Decoder(config.text, config.adapters)
        # Children are called as parts: the first word of a parameter's name says which part it belongs to.
        for modality in MODALITIES:
            if getattr(config, modality.name) is not None:
                for name, module in modality.parts(config).items():
                    self.add_module(name, module)
        check_parts(self)

    @classmethod
    def seeded(cls, config: ModelConfig, seed: int) -> Multimodal:
        """Weights that depend on the seed alone; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        adapter: Adapter = "auto",
        **inputs: Any,
    ) -> Output:
        """Logits of `input_ids` [B, L]. `attention_mask` [B, L]: 0 is padding, on either side.

        `position_ids` [B, L] or [1, L]; None: places within the row, or within each packed sample.
        `segment_ids` [B, L]: several samples in a row, each a run of tokens with the same number. `adapter`: see
        `model.phi4.routing.Adapter`. `inputs`: as `embed` takes them.
        Raises as `embed`, and ValueError for an adapter that the model does not have.
        """
        hidden = self.hidden(input_ids, attention_mask, position_ids, segment_ids, adapter, **inputs)
        return Output(self.language.head(hidden))

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        adapter: Adapter = "auto",
        *,
        ids_on_host: Tensor | None = None,
        segments_on_host: Tensor | None = None,
        **inputs: Any,
    ) -> Tensor:
        """What `language.head` makes logits of, [B, L, hidden]: for a loss that does not want all logits at once.
        Arguments and errors as those of `forward`; `ids_on_host`, `segments_on_host`: the same on the CPU. Where
        gradients are computed they decide routes and shapes, which then are not asked of the device."""
        samples = _samples(input_ids, segment_ids)
        # Asking the mask waits for the device once, and spares every layer a mask where nothing is padded.
        real = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
        if position_ids is None:
            position_ids = _positions(samples) if segment_ids is not None else _places(input_ids)
        position_ids = position_ids.expand_as(input_ids)
        long_BL = self._long(position_ids, samples, real)
        x_BLD = self.embed(input_ids, samples, **inputs)
        order_T: Tensor | None = None
        chosen: Routes | None = None
        if torch.is_grad_enabled() and adapter != "token":
            ids_BL = input_ids.cpu() if ids_on_host is None else ids_on_host
            if segments_on_host is None and segment_ids is not None:
                segments_on_host = segment_ids.cpu()
            samples = _samples(ids_BL, segments_on_host)
            order_T, chosen = side_by_side(masks(self.config, adapter, ids_BL, samples))
        if order_T is not None:
            return self._in_order(order_T, x_BLD, position_ids, long_BL, samples, real, chosen or {})
        if chosen is None:
            chosen = routes(masks(self.config, adapter, input_ids, samples))
        rope = tables(self.config.text, position_ids, long_BL, x_BLD.dtype)
        attend = Attention() if segment_ids is None and real is None else Attention(samples, real)
        return self.language(x_BLD, rope, attend, chosen)

    def _in_order(
        self,
        order_T: Tensor,
        x_BLD: Tensor,
        positions_BL: Tensor,
        long_BL: Tensor,
        samples_BL: Tensor,
        real_BL: Tensor | None,
        chosen: Routes,
    ) -> Tensor:
        """Hidden states of a batch whose samples go through the decoder in another order, as one row: two moves of the
        batch, in place of two in every linear. `order_T` and `samples_BL` lie on the CPU."""
        places, there_T = Places(order_T, len(order_T), x_BLD.device), order_T.to(x_BLD.device)

        def ordered(x_BL: Tensor) -> Tensor:
            return x_BL.flatten()[order_T if x_BL.is_cpu else there_T][None]

        rope = tables(self.config.text, ordered(positions_BL), ordered(long_BL), x_BLD.dtype)
        attend = Attention(ordered(samples_BL), None if real_BL is None else ordered(real_BL))
        y_1TD = self.language(places.fill(x_BLD.flatten(0, 1))[None], rope, attend, chosen)
        return places.empty(y_1TD[0]).view_as(x_BLD)

    def embed(self, input_ids: Tensor, samples_BL: Tensor | None = None, **inputs: Tensor | None) -> Tensor:
        """Embeddings [B, L, hidden]; images and clips stand in the order of their tokens in the flattened batch.

        `image_pixel_values` [crops, 3, crop, crop]: crops of all images end to end, the first of each the global view;
        `image_sizes` [images, 2]: height, width in pixels, which say how many crops are whose; `image_attention_mask`
        [crops, G, G]: 1 is a real patch. As in the reference too, [images, crops, ...], padded to the most crops.
        `audio_input_features` [clips, frames, mels]: log-Mel; `audio_embed_sizes` [clips]: tokens of each;
        `audio_attention_mask` [clips, frames]: 1 is a real frame. Or, without these two, features [frames, mels], clips
        end to end, and `audio_frames` [clips]: the frames of each.
        Raises ValueError if tokens and inputs do not match in number, TypeError for other inputs.
        """
        if unknown := sorted(set(inputs) - {name for modality in MODALITIES for name in modality.inputs}):
            raise TypeError(f"{unknown[0]} is no input of this model")
        # Placeholders are embedded as text first and then overwritten, so that shapes are those of the ids.
        samples_BL = _samples(input_ids, None) if samples_BL is None else samples_BL
        x_BLD = self.language.embed_tokens(input_ids)
        for modality in MODALITIES:
            first, *others = (inputs.get(name) for name in modality.inputs)
            if first is None and any(other is not None for other in others):
                raise ValueError(f"{', '.join(modality.inputs[1:])} without {modality.inputs[0]}")
            if first is not None:
                x_BLD = self._put(x_BLD, modality, input_ids, samples_BL, inputs)
        return x_BLD

    def _put(self, x_BLD: Tensor, modality: Modality, input_ids: Tensor, samples_BL: Tensor, inputs: Inputs) -> Tensor:
        """The embeddings of a modality in the places of its token."""
        name, tensor = modality.name, modality.inputs[0]
        if getattr(self.config, name) is None:
            raise ValueError(f"this model has no {name} part, and was given {tensor}")
        places_N = tokens_of(self.config, name, input_ids).flatten().nonzero()[:, 0]
        encoded = modality.encode(self, inputs)
        if len(places_N) != len(encoded):
            raise ValueError(f"input_ids have {len(places_N)} tokens of {name}, {tensor} make {len(encoded)}")

        def beside(other: str) -> Tensor:
            return among(tokens_of(self.config, other, input_ids), samples_BL).flatten()[places_N]

        embedded_ND = modality.project(self, encoded, beside).to(x_BLD.dtype)
        # A copy, not in place: what the embedding of text saved for backward stays as it was.
        return x_BLD.flatten(0, 1).index_copy(0, places_N, embedded_ND).view_as(x_BLD)

    def _long(self, positions_BL: Tensor, samples_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Whether a token's sample is longer than the original context, bool [B, L]. Padding does not count."""
        original = self.config.text.original_max_position_embeddings
        if self.config.hf_compat_rope:
            # As the reference: the largest position of the batch decides for all of it.
            return (positions_BL.max() + 1 > original).expand_as(positions_BL)
        if positions_BL.shape[1] <= original:  # no sample of a row is longer than the row
            return torch.zeros_like(positions_BL, dtype=torch.bool)
        # Else count the real tokens of each sample: packing and padding make a row longer than what it holds.
        where = torch.ones_like(samples_BL, dtype=torch.bool) if real_BL is None else real_BL
        length = torch.zeros(samples_BL.numel(), dtype=torch.int64, device=samples_BL.device)
        length.index_add_(0, samples_BL.flatten(), where.flatten().long())
        return length[samples_BL] > original


def _samples(input_ids: Tensor, segment_ids: Tensor | None) -> Tensor:
    """The number of each token's sample over the whole batch, [B, L]: its row, or its stretch of `segment_ids`."""
    rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
    if segment_ids is None:
        return rows
    # A sample begins with each row and wherever the number changes; counting the beginnings numbers the samples.
    begins_BL = torch.ones_like(segment_ids, dtype=torch.bool)
    begins_BL[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    return begins_BL.flatten().cumsum(0).sub(1).view_as(segment_ids)


def _places(input_ids: Tensor) -> Tensor:
    return torch.arange(input_ids.shape[1], device=input_ids.device)[None]


def _positions(samples_BL: Tensor) -> Tensor:
    """Places within each sample, [B, L]."""
    # Each sample's first place in the flattened batch is subtracted: no loop over samples, no wait for the device.
    places = torch.arange(samples_BL.numel(), device=samples_BL.device).view_as(samples_BL)
    first = torch.full((samples_BL.numel(),), samples_BL.numel(), device=samples_BL.device)
    first.scatter_reduce_(0, samples_BL.flatten(), places.flatten(), "amin")
    return places - first[samples_BL]
