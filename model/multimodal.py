"""The whole model, Phi-4-Multimodal: embeddings of text, images and audio in one sequence through one decoder.

Its children are the parts (`model.parts`). Rows, or packed samples of a row, may be of any kind: adapters and the audio
projector are chosen by sample (the reference: by call). Names of inputs are the reference's.
Source: arXiv 2503.01743, section 2.2; transformers 5.23, `models/phi4_multimodal`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model import lora
from model.attention import Attention
from model.audio import AudioEncoder, AudioProjector
from model.config import ModelConfig
from model.decoder import Decoder
from model.lora import Adapter
from model.parts import ADAPTERS, check_parts
from model.rope import tables
from model.vision import VisionEncoder, VisionProjector, embed_images


@dataclass(frozen=True)
class Output:
    """`logits` [B, L, vocab]."""

    logits: Tensor


class Multimodal(nn.Module):
    """Random weights from torch's global generator; `Multimodal.seeded` from a seed. Raises ValueError for a config
    whose parameters do not each belong to one part."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if unknown := sorted({one.name for one in config.adapters} - set(ADAPTERS)):
            raise ValueError(f"adapters: {unknown[0]!r} is not known; allowed are {sorted(ADAPTERS)}")
        self.config = config
        self.language = Decoder(config.text, config.adapters)
        if config.vision is not None:
            self.vision_encoder = VisionEncoder(config.vision)
            self.vision_projector = VisionProjector(config.vision, config.text.hidden)
        if config.audio is not None:
            self.audio_encoder = AudioEncoder(config.audio, config.hf_compat_mask)
            self.audio_projector_speech = AudioProjector(config.audio, config.text.hidden)
            self.audio_projector_vision = AudioProjector(config.audio, config.text.hidden)
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
        segments: Tensor | None = None,
        adapter: Adapter = "auto",
        **inputs: Any,
    ) -> Output:
        """Logits of `input_ids` [B, L]. `attention_mask` [B, L]: 0 is padding, on either side.

        `segments` [B, L]: packed samples, tokens of a row with the same number; positions restart with each.
        `adapter`: see `model.lora.Adapter`. `inputs`: as `embed` takes them.
        """
        hidden = self.hidden(input_ids, attention_mask, position_ids, segments, adapter, **inputs)
        return Output(self.language.head(hidden))

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segments: Tensor | None = None,
        adapter: Adapter = "auto",
        **inputs: Any,
    ) -> Tensor:
        """What `language.head` makes logits of, [B, L, hidden]: for a loss that does not want all logits at once."""
        samples = _samples(input_ids, segments)
        real = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
        if position_ids is None:
            position_ids = _positions(samples) if segments is not None else _places(input_ids)
        position_ids = position_ids.expand_as(input_ids)
        long = self._long(position_ids, samples, real)
        x_BLD = self.embed(input_ids, samples, **inputs)
        rope = tables(self.config.text, position_ids, long, x_BLD.dtype)
        attend = Attention(samples if segments is not None else None, real)
        chosen = lora.routes(lora.masks(self.config, adapter, input_ids, samples))
        return self.language(x_BLD, rope, attend, chosen)

    def embed(
        self,
        input_ids: Tensor,
        samples_BL: Tensor | None = None,
        *,
        image_pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        image_attention_mask: Tensor | None = None,
        audio_input_features: Tensor | None = None,
        audio_embed_sizes: Tensor | None = None,
        audio_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [B, L, hidden]; images and clips stand in the order of their tokens in the flattened batch.

        `image_pixel_values` [images, crops, 3, crop, crop], the first crop the global view; `image_sizes` [images, 2]:
        height, width in pixels; `image_attention_mask` [images, crops, G, G]: 1 is a real patch.
        `audio_input_features` [clips, frames, mels]: log-Mel; `audio_embed_sizes` [clips]: tokens of each;
        `audio_attention_mask` [clips, frames]: 1 is a real frame.
        Raises ValueError if tokens and inputs do not match in number.
        """
        samples_BL = _samples(input_ids, None) if samples_BL is None else samples_BL
        x_BLD = self.language.embed_tokens(input_ids)
        if image_pixel_values is not None:
            places = self._places(input_ids, "vision")
            found = torch.cat(self._images(image_pixel_values, image_sizes, image_attention_mask))
            x_BLD = _put(x_BLD, places, found, "image")
        if audio_input_features is not None:
            places = self._places(input_ids, "audio")
            heard = self._clips(audio_input_features, audio_embed_sizes, audio_attention_mask)
            if len(heard) == len(places):  # else `_put` says so
                with_image = lora.among(self._here(input_ids, "vision"), samples_BL).flatten()[places]
                heard = self._projected(heard, with_image)
            x_BLD = _put(x_BLD, places, heard, "audio")
        return x_BLD

    def _images(self, pixels: Tensor, sizes: Tensor | None, mask: Tensor | None) -> list[Tensor]:
        vision = self._part("vision")
        if sizes is None:
            raise ValueError("image_pixel_values without image_sizes")
        if mask is None:
            mask = pixels.new_ones(*pixels.shape[:2], vision.grid, vision.grid)
        pixels = pixels.to(self.vision_projector.up.weight)
        return embed_images(self.vision_encoder, self.vision_projector, pixels, sizes, mask)

    def _clips(self, features_BTM: Tensor, sizes: Tensor | None, mask: Tensor | None) -> Tensor:
        """Encoder frames of all clips, end to end: [tokens, audio hidden]."""
        audio = self._part("audio")
        features_BTM = features_BTM.to(self.audio_projector_speech.up.weight)
        hidden_BTD = self.audio_encoder(features_BTM, None if mask is None else mask.bool())
        if sizes is None:
            frames = [features_BTM.shape[1]] * len(features_BTM) if mask is None else mask.sum(1).tolist()
            sizes = torch.tensor([-(-int(n) // audio.reduction) for n in frames])
        lengths = sizes.tolist()
        if len(lengths) != len(hidden_BTD) or max(lengths, default=0) > hidden_BTD.shape[1]:
            raise ValueError(
                f"audio_embed_sizes {lengths}: {len(hidden_BTD)} clips have at most {hidden_BTD.shape[1]} tokens each"
            )
        return torch.cat([one[:n] for one, n in zip(hidden_BTD, lengths, strict=True)])

    def _projected(self, heard_ND: Tensor, with_image_N: Tensor) -> Tensor:
        """Audio tokens of samples with an image go through a projector of their own."""
        if not with_image_N.any():
            return self.audio_projector_speech(heard_ND)
        if with_image_N.all():
            return self.audio_projector_vision(heard_ND)
        out = self.audio_projector_speech(heard_ND[~with_image_N])
        mixed = out.new_empty(len(heard_ND), out.shape[-1])
        mixed[~with_image_N] = out
        mixed[with_image_N] = self.audio_projector_vision(heard_ND[with_image_N])
        return mixed

    def _part(self, name: str) -> Any:
        if (part := getattr(self.config, name)) is None:
            raise ValueError(f"this model has no {name} part, and was given {name} inputs")
        return part

    def _here(self, input_ids: Tensor, name: str) -> Tensor:
        part = getattr(self.config, name)
        return torch.zeros_like(input_ids, dtype=torch.bool) if part is None else input_ids == part.token

    def _places(self, input_ids: Tensor, name: str) -> Tensor:
        self._part(name)
        return self._here(input_ids, name).flatten().nonzero()[:, 0]

    def _long(self, positions_BL: Tensor, samples_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Whether a token's sample is longer than the original context, bool [B, L]. Padding does not count."""
        original = self.config.text.rope.original_positions
        if self.config.hf_compat_rope:
            return (positions_BL.max() + 1 > original).expand_as(positions_BL)
        if positions_BL.shape[1] <= original:
            return torch.zeros_like(positions_BL, dtype=torch.bool)
        where = torch.ones_like(samples_BL, dtype=torch.bool) if real_BL is None else real_BL
        length = torch.zeros(samples_BL.numel(), dtype=torch.int64, device=samples_BL.device)
        length.index_add_(0, samples_BL.flatten(), where.flatten().long())
        return length[samples_BL] > original


def _samples(input_ids: Tensor, segments: Tensor | None) -> Tensor:
    """The number of each token's sample over the whole batch, [B, L]: its row, or its stretch of `segments`."""
    rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
    if segments is None:
        return rows
    new = torch.ones_like(segments, dtype=torch.bool)
    new[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return new.flatten().cumsum(0).sub(1).view_as(segments)


def _places(input_ids: Tensor) -> Tensor:
    return torch.arange(input_ids.shape[1], device=input_ids.device)[None]


def _positions(samples_BL: Tensor) -> Tensor:
    """Places within each sample, [B, L]."""
    places = torch.arange(samples_BL.numel(), device=samples_BL.device).view_as(samples_BL)
    first = torch.full((samples_BL.numel(),), samples_BL.numel(), device=samples_BL.device)
    first.scatter_reduce_(0, samples_BL.flatten(), places.flatten(), "amin")
    return places - first[samples_BL]


def _put(x_BLD: Tensor, places_N: Tensor, found_ND: Tensor, kind: str) -> Tensor:
    if len(places_N) != len(found_ND):
        raise ValueError(f"{len(places_N)} {kind} tokens in input_ids, and {kind} inputs that make {len(found_ND)}")
    flat = x_BLD.flatten(0, 1).index_copy(0, places_N, found_ND.to(x_BLD.dtype))
    return flat.view_as(x_BLD)
