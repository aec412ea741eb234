"""Small models with weights that matter, and prompts of every kind for the `nano` preset: for the tests of `model/`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gristmill.model.generate.engine import Request
from gristmill.model.generate.sampling import Sampling
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.config import LoraConfig, ModelConfig, RopeParameters, TextConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.processing.tokenizer.bpe import train_tokenizer
from gristmill.model.train.objective import Batch
from gristmill.model.windows.media import media_inputs

ROPE = RopeParameters(short_factor=(1.0,) * 3, long_factor=(1.0, 2.0, 5.0))
TEXT = TextConfig(
    vocab_size=300,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=80,
    max_position_embeddings=2048,
    original_max_position_embeddings=64,
    rope_parameters=ROPE,
    bos_token_id=0,
    pad_token_id=0,
    eos_token_id=(0, 3),
)
ADAPTERS = (LoraConfig("vision", 4, 8.0), LoraConfig("speech", 3, 9.0, 0.5))
NANO = PRESETS["nano"]
IMAGE, AUDIO = 11, 12
CLIP, CLIP_TOKENS = 37, 5
PICTURE_TOKENS = 41  # 4 x 4 + 4 separators for the crop and for the global view, and one between them


def text_model(seed: int = 0, adapters: tuple[LoraConfig, ...] = ADAPTERS, **changes: Any) -> Multimodal:
    """Of TEXT with `changes` to its config."""
    return enlivened(ModelConfig(replace(TEXT, **changes), adapters=adapters), seed)


def switching_at(original: int, dims: int = 3) -> dict[str, Any]:
    """Changes to a TextConfig: LongRoPE that switches after `original` positions, and visibly."""
    factors = tuple(float(1 + 2 * i) for i in range(dims))
    rope = RopeParameters(short_factor=(1.0,) * dims, long_factor=factors)
    context = {"max_position_embeddings": 2048, "original_max_position_embeddings": original}
    return {**context, "rope_parameters": rope}


@functools.cache
def nano(original: int = 4096, seed: int = 0) -> Multimodal:
    """The preset, for image and audio prompts. Shared by tests: do not change it."""
    text = replace(NANO.text, **switching_at(original, 12))
    return enlivened(replace(NANO, text=text), seed)


def enlivened(config: ModelConfig, seed: int) -> Multimodal:
    """Weights of unit gain and adapters that are not zero: every part moves the logits. Embeddings have less, as tied
    ones would only echo."""
    model = Multimodal.seeded(config, seed).eval()
    pick = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("language") and parameter.ndim == 2:
                gain = 0.3 if "embed_tokens" in name else parameter.shape[1] ** -0.5
                parameter.normal_(std=gain, generator=pick)
            elif "separator" in name or name.endswith("norm.weight"):
                parameter.add_(torch.randn(parameter.shape, generator=pick) * 0.2)
            elif name.startswith(("vision_projector", "audio_projector")) and parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=pick)
    return model


def ids(*shape: int, seed: int = 0, vocab: int = 300) -> Tensor:
    """Tokens that are no special ones."""
    return torch.randint(20, vocab, shape, generator=torch.Generator().manual_seed(seed))


def words(count: int, seed: int = 0, vocab: int = 300) -> tuple[int, ...]:
    """`count` tokens that are no special ones, as a prompt."""
    return tuple(ids(count, seed=seed, vocab=vocab).tolist())


def image_inputs(seed: int = 0) -> dict[str, Tensor]:
    """A picture of one crop."""
    pixels = torch.randn(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(1, 2, 8, 8)
    return {"image_pixel_values": pixels, "image_sizes": torch.tensor([[64, 64]]), "image_attention_mask": ones}


def audio_inputs(seed: int = 0) -> dict[str, Tensor]:
    """A clip of CLIP frames of 80 log-Mel bins."""
    return {"audio_input_features": torch.randn(1, CLIP, 80, generator=torch.Generator().manual_seed(seed))}


def prompts_of_all_kinds() -> dict[str, Request]:
    """A text, an image, a speech and a vision-speech prompt for `nano`; all the images and clips differ."""
    picture, clip, how = (IMAGE,) * PICTURE_TOKENS, (AUDIO,) * CLIP_TOKENS, Sampling(max_tokens=12, ignore_eos=True)
    both = {**image_inputs(3), **audio_inputs(4)}
    return {
        "text": Request("text", words(9, 1), how),
        "vision": Request("vision", (*words(3, 2), *picture, *words(4, 3)), how, inputs=image_inputs(1)),
        "speech": Request("speech", (*words(2, 4), *clip, *words(3, 5)), how, inputs=audio_inputs(2)),
        "vision-speech": Request("both", (*picture, *words(2, 6), *clip, *words(2, 7)), how, inputs=both),
    }


def batch_of_all_kinds() -> Batch:
    """A segment of each kind for `nano`."""
    requests = list(prompts_of_all_kinds().values())
    rows = [torch.tensor(request.tokens) for request in requests]
    inputs: dict[str, list[Tensor]] = {}
    for request in requests:
        for name, tensor in (request.inputs or {}).items():
            inputs.setdefault(name, []).append(tensor)
    row = torch.cat(rows)
    ends = torch.tensor([0, *accumulate(map(len, rows))])
    joined = {name: torch.cat(tensors) for name, tensors in inputs.items()}
    return Batch(row, torch.ones(len(row), dtype=torch.bool), ends, joined)


def inputs_of(model: Multimodal, request: Request) -> dict[str, Tensor]:
    """What the model takes of a request's images and clips."""
    media = media_inputs([request.media], model.config, "cpu") if request.media else {}
    return {**(request.inputs or {}), **media}


@torch.inference_mode()
def greedy(model: Multimodal, request: Request, count: int) -> tuple[list[int], Tensor]:
    """`count` tokens of the model without a cache, each from the whole sequence anew; and their logits."""
    tokens, written, logits = list(request.tokens), [], []
    for _ in range(count):
        all_ids = torch.tensor([tokens])
        inputs = inputs_of(model, request)
        last = model(all_ids, adapter=request.adapter or None, **inputs).logits[0, -1]
        logits.append(last)
        written.append(int(last.argmax()))
        tokens.append(written[-1])
    return written, torch.stack(logits)


@torch.inference_mode()
def logits_after(model: Multimodal, request: Request, tokens: Sequence[int]) -> Tensor:
    """Logits [tokens, vocab] from which each of these tokens of a sample was drawn, of the model without a cache,
    each from its own prefix."""
    outputs = []
    for count in range(len(tokens)):
        row = torch.tensor([[*request.tokens, *tokens[:count]]])
        outputs.append(model(row, adapter=request.adapter, **inputs_of(model, request)).logits[0, -1])
    return torch.stack(outputs)


@functools.cache
def small_tokenizer() -> bytes:
    """A tokenizer.json that fits `nano`."""
    return train_tokenizer(["a mill grinds grain to flour"] * 9, 400)


def save_nano(folder: Path) -> Path:
    """Writes a nano model with adapters that do something, and a tokenizer, as transformers and peft would leave it."""
    model = Multimodal.seeded(NANO, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(std=0.02)
    save_hf(model, folder, tokenizer=small_tokenizer())
    return folder
