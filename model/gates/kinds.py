"""The gates of kinds: what a model makes of samples of a kind is, bit for bit, what it made of them before a stage.

Asked on the user's path: adapters that are not zero, the automatic router, and a batch in which samples of the kind
stand beside others and padding, in rows of their own and packed with others; then the engine, where a prompt of the
kind generates beside prompts of other kinds. The other side is the base, on the same tokens, without what comes after
the kind in the order of precedence (`model.phi4.modalities`): of text the language model alone, of images without
sound, of sound with images. Shapes decide how a product rounds, so they are equal. What images and clips show does not
matter, so both are noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gristmill.model.generate.engine import Engine, Options, Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.conformer import frames_after
from gristmill.model.phi4.modalities import MODALITIES
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.routing import Adapter

_CLIP = 37
"""Frames of a clip: no multiple of the encoder's reduction."""
_TEXT = 9
"""Tokens of a stretch of text."""
_NEW_TOKENS = 16
"""So many that prompts of a thousand tokens, computed meanwhile, generate beside the text."""
_STD = 0.02
"""Of the B of an adapter that is zero: as large as fresh weights are."""


@dataclass(frozen=True)
class Probe:
    """The batch and the prompts that both models are asked. `segments` names each sample by its kind and place, with
    its row and where it begins and ends there. `requests`: a prompt of each kind, keyed by it."""

    input_ids: Tensor
    segment_ids: Tensor
    attention_mask: Tensor
    inputs: Mapping[str, Tensor]
    segments: Mapping[str, tuple[int, int, int]]
    requests: tuple[Request, ...]

    def names(self, kind: str) -> list[str]:
        """Of the samples of a kind: "text", "vision", "speech", "vision-speech"."""
        return [name for name in self.segments if name.partition(" ")[0] == kind]

    def holds(self, adapter: str) -> bool:
        """Whether any sample is one that this adapter is for: the kinds of samples are called as their adapters."""
        return any(name.startswith(adapter) for name in self.segments)


def probe(config: ModelConfig, seed: int = 0) -> Probe:
    """Samples of every kind that a model of this config takes, one a row; an image and a clip packed in one row, text
    before, between and after them; and a text in a row that is padded on its left. The same config and seed, the same
    probe."""
    return _Maker(config, torch.Generator().manual_seed(seed)).probe()


class _Maker:
    """Draws a probe."""

    def __init__(self, config: ModelConfig, pick: torch.Generator) -> None:
        self.config, self.pick = config, pick
        text = config.text
        special = {text.bos_token_id, text.pad_token_id, *text.eos_token_id}
        special |= {section.token_id for section in (config.vision, config.audio) if section is not None}
        self.ids = torch.tensor([token for token in range(text.vocab_size) if token not in special])
        kinds = ["vision" * (config.vision is not None), "speech" * (config.audio is not None)]
        self.kinds = [kind for kind in kinds if kind]
        if len(self.kinds) == 2:
            self.kinds.append("vision-speech")

    def probe(self) -> Probe:
        # without vision-speech: another image would make all rows twice as long
        packed = [part for kind in self.kinds[:2] for part in ("text", kind)] + ["text"]
        rows = [[("text", self.tokens("text"))] for _ in range(2)] + [
            [(kind, self.tokens(kind))] for kind in self.kinds
        ]
        rows.append([(kind, self.tokens(kind)) for kind in packed])
        length = max(sum(len(tokens) for _, tokens in row) for row in rows)
        padded = 1  # the row whose text is shorter than the batch; all others are filled up with text of theirs
        for number, row in enumerate(rows):
            kind, tokens = row[-1]
            missing = length - sum(len(part) for _, part in row)
            if number != padded:
                row[-1] = kind, torch.cat([tokens, self.text(missing)])
        ids = torch.full((len(rows), length), self.config.text.pad_token_id)
        numbers, mask = torch.zeros_like(ids), torch.ones_like(ids)
        segments: dict[str, tuple[int, int, int]] = {}
        for number, row in enumerate(rows):
            at = length - sum(len(part) for _, part in row)
            mask[number, :at] = 0
            for segment, (kind, tokens) in enumerate(row):
                end = at + len(tokens)
                place = f"row {number}" if len(row) == 1 else f"row {number}, packed, sample {segment}"
                segments[f"{kind} in {place}{' (padded)' * (number == padded)}"] = number, at, end
                ids[number, at:end], numbers[number, at:end] = tokens, segment
                at = end
        kinds = [kind for row in rows for kind, _ in row]
        return Probe(ids, numbers, mask, self.inputs(kinds), segments, tuple(map(self.request, [*self.kinds, "text"])))

    def text(self, count: int) -> Tensor:
        return self.ids[torch.randint(len(self.ids), (count,), generator=self.pick)]

    def tokens(self, kind: str) -> Tensor:
        """Text, and in it what a sample of this kind has besides."""
        parts = [self.text(_TEXT)]
        if "vision" in kind:
            assert self.config.vision is not None
            side = self.config.vision.grid // 2
            # one crop and the global view, rows of both ended by a separator, and one between them
            parts += [torch.full((2 * side * (side + 1) + 1,), self.config.vision.token_id), self.text(3)]
        if "speech" in kind:
            assert self.config.audio is not None
            count = frames_after(_CLIP, self.config.audio.time_reduction)
            parts += [torch.full((count,), self.config.audio.token_id), self.text(3)]
        return torch.cat(parts)

    def inputs(self, kinds: list[str]) -> dict[str, Tensor]:
        """Noise for the images and clips of samples of these kinds."""
        images, clips = (sum(what in kind for kind in kinds) for what in ("vision", "speech"))
        inputs: dict[str, Tensor] = {}
        if images:
            assert self.config.vision is not None
            side = self.config.vision.crop_size
            inputs["image_pixel_values"] = torch.randn(2 * images, 3, side, side, generator=self.pick)
            inputs["image_sizes"] = torch.tensor([[side, side]] * images)
        if clips:
            assert self.config.audio is not None
            inputs["audio_input_features"] = torch.randn(
                clips, _CLIP, self.config.audio.input_size, generator=self.pick
            )
        return inputs

    def request(self, kind: str) -> Request:
        sampling = Sampling(max_tokens=_NEW_TOKENS, temperature=0, ignore_eos=True, logprobs=0)
        tokens = tuple(self.tokens(kind).tolist())
        return Request(kind, tokens, sampling, inputs=self.inputs([kind]) or None)


@torch.inference_mode()
def batch_bits(model: Multimodal, given: Probe, adapter: Adapter = "auto") -> dict[str, str]:
    """A digest of the logits of each sample of the probe's batch, by its name. For a model without a modality what
    stands for it are tokens like others."""
    device = model.language.norm.weight.device
    takes = {name for modality in MODALITIES if getattr(model.config, modality.name) for name in modality.inputs}
    inputs = {name: tensor for name, tensor in given.inputs.items() if name in takes}
    hidden_BLD = model.hidden(
        given.input_ids.to(device),
        given.attention_mask.to(device),
        segment_ids=given.segment_ids.to(device),
        adapter=adapter,
        **{name: tensor.to(device) for name, tensor in inputs.items()},
    )
    # The head is computed sample by sample: logits of a whole batch are gigabytes, with 200,064 entries.
    return {
        name: _digest(model.language.head(hidden_BLD[row, begin:end]))
        for name, (row, begin, end) in given.segments.items()
    }


def engine_bits(model: Multimodal, given: Probe, kind: str) -> str:
    """A digest of the tokens and log-probabilities that the engine generates for the prompt of a kind, greedily, while
    those of other kinds are in its other slots, but those that the model does not take."""
    lacks = {"vision": model.config.vision is None, "speech": model.config.audio is None}
    requests = [
        request for request in given.requests if not any(lack and what in request.key for what, lack in lacks.items())
    ]
    longest = max(len(request.tokens) for request in given.requests) + _NEW_TOKENS
    options = Options(max_num_seqs=4, max_model_len=-(-longest // 32) * 32, max_num_partial_prefills=4, block_size=32)
    answer = next(each for each in Engine(model, options).run(requests) if each.request.key == kind)
    return hashlib.sha256(f"{answer.tokens} {[value.hex() for value in answer.logprobs]}".encode()).hexdigest()


@dataclass(frozen=True)
class KindBits:
    """What a model makes of a kind of samples, a digest by the name of each place where one stands; and of the adapters
    that it has, those that change what it makes of their own kinds of samples."""

    digests: Mapping[str, str]
    acting: frozenset[str]


def kind_bits(model: Multimodal, given: Probe, kind: str) -> KindBits:
    """Of the batch and the engine, as the model is stored and in bfloat16, in which it is left. In evaluation mode."""
    model.eval()
    digests: dict[str, str] = {}
    acting: set[str] = set()
    for precision in ("as stored", "bfloat16"):
        if precision == "bfloat16":
            model.to(torch.bfloat16)
        bits = batch_bits(model, given)
        digests |= {f"{name}, {precision}": bits[name] for name in given.names(kind)}
        digests[f"{kind} generated by the engine, {precision}"] = engine_bits(model, given, kind)
        if precision == "as stored" and model.config.adapters:
            without = batch_bits(model, given, adapter=None)
            acting |= {
                adapter.name
                for adapter in model.config.adapters
                for name in given.segments
                if name.startswith(adapter.name) and bits[name] != without[name]
            }
    return KindBits(digests, frozenset(acting))


def base_config(config: ModelConfig, kind: str) -> ModelConfig:
    """That of a model without the modalities that come after a kind, which decide nothing of it: of text, the language
    model by itself."""
    kept = 0
    for number, modality in enumerate(MODALITIES, 1):
        if modality.adapter == kind:
            kept = number
    left_out: dict[str, Any] = {modality.name: None for modality in MODALITIES[kept:]}
    adapters = {modality.adapter for modality in MODALITIES[:kept]}
    return replace(config, **left_out, adapters=tuple(each for each in config.adapters if each.name in adapters))


def fill_zero_adapters(model: Multimodal, seed: int = 0) -> tuple[str, ...]:
    """Gives adapters that add nothing values that do: a fresh adapter would pass the gate whoever took it. -> Their
    names."""
    pick = torch.Generator().manual_seed(seed)
    zero = []
    for adapter in model.config.adapters:
        added = [weight for name, weight in model.named_parameters() if name.endswith(f".adapters.{adapter.name}.B")]
        if not any(bool(weight.any()) for weight in added):
            zero.append(adapter.name)
            with torch.no_grad():
                for weight in added:
                    weight.copy_(torch.randn(weight.shape, generator=pick) * _STD)
    return tuple(zero)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
