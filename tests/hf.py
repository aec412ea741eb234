"""Small random models of transformers, and adapters of peft on disk: what the model's tests compare with.

Weights are large enough that every part moves the logits; biases, separators and statistics are not left at 0 or 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Phi3Config, Phi3ForCausalLM, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.phi4.multimodal import Multimodal

IMAGE, AUDIO = 290, 291
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.0, 4.0, 16.0],
    "original_max_position_embeddings": 64,
}
TEXT: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 280,
    "pad_token_id": 280,
    "eos_token_id": [280, 281],
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_token_id": IMAGE,
}  # crops of 448 and patches of 14: the reference's processor has no others
AUDIO_PART: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_blocks": 2,
    "num_attention_heads": 4,
    "nemo_conv_channels": 16,
    "ext_pw_out_channel": 32,
    "depthwise_separable_out_channel": 32,
    "bias_max_distance": 20,
    "audio_token_id": AUDIO,
}


WEIGHTS, CONFIG = "model.safetensors", "config.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
IMAGE_TOKENS = 16 * 17 + 1 + 16 * 17  # of one crop and the global view
AUDIO_TOKENS, AUDIO_FRAMES = 13, 98  # of a second


ATTENTION = {"vision_config": "eager"}
"""For `from_pretrained`, and what `tiny_multimodal` has: with sdpa, transformers 5.23 makes the vision encoder causal
where every patch of a batch is real (it has no mask then, and `is_causal = True`): not so the release, nor eager."""


def text_config(**changes: Any) -> Phi3Config:
    """transformers' config of a tiny language model."""
    return Phi3Config(**{**TEXT, "rope_parameters": dict(LONGROPE), **changes})


def multimodal_config(**changes: Any) -> Phi4MultimodalConfig:
    """transformers' config of a tiny multimodal model."""
    parts = {"vision_config": dict(VISION), "audio_config": dict(AUDIO_PART)}
    return Phi4MultimodalConfig(**{**TEXT, "rope_parameters": dict(LONGROPE), **parts, **changes})


def tiny_text(seed: int = 0, **changes: Any) -> Phi3ForCausalLM:
    """`changes`: fields of the config."""
    return randomised(Phi3ForCausalLM(text_config(**changes)), seed)


def tiny_multimodal(seed: int = 0, **changes: Any) -> Phi4MultimodalForCausalLM:
    """`changes`: fields of the config."""
    config = multimodal_config(**changes)
    return randomised(Phi4MultimodalForCausalLM._from_config(config, attn_implementation=ATTENTION), seed)


def randomised(model: Any, seed: int) -> Any:
    """The model with weights of unit gain, for evaluation."""
    pick = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, buffer in model.named_parameters():
            gain = 1.0 if "bias_values" in name or "embed_tokens." in name else buffer[0].numel() ** -0.5
            buffer.normal_(std=gain if buffer.ndim > 1 else 0.2, generator=pick)
            if "norm" in name and name.endswith("weight"):
                buffer.add_(1.0)
        for name, buffer in model.named_buffers():
            if "global_" in name:
                buffer.uniform_(0.5, 1.5, generator=pick)
    return model.eval()


def save_adapter(model: nn.Module, folder: Path, rank: int, alpha: int, seed: int, **changes: Any) -> None:
    """Writes an adapter of `model` as peft does, with a random B. `changes`: fields of peft's LoraConfig. The model is
    wrapped on the way, and unwrapped again: unchanged."""
    settings = {"r": rank, "lora_alpha": alpha, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **changes}
    wrapped = get_peft_model(model, LoraConfig(**settings))
    pick = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if ".lora_" in name:
                strength = 0.05 if ".lora_B" in name else 1.0  # more, and float32's rounding alone moves logits by 1e-3
                parameter.normal_(std=strength * parameter.shape[1] ** -0.5, generator=pick)
    wrapped.save_pretrained(folder)
    wrapped.unload().requires_grad_(True)


def save_all(kind: str, folder: Path) -> Path:
    """What transformers and peft write of a tiny "text" or "multimodal" model and two adapters of it."""
    model = tiny_text() if kind == "text" else tiny_multimodal()
    model.save_pretrained(folder)
    save_adapter(model, folder / "vision-lora", 4, 8, seed=1)
    save_adapter(model, folder / "speech-lora", 6, 9, seed=2, lora_dropout=0.125)
    return folder


def merge_files(folder: Path) -> None:
    """One file instead of several."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
        file.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(tensors, folder / "model.safetensors")


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the values of a JSON file, or the tensors of a safetensors file, in place."""
    if file.suffix == ".json":
        values = json.loads(file.read_text())
        change(values)
        file.write_text(json.dumps(values))
    else:
        tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
        change(tensors)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, file)


def assert_same_tensors(tensors: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit, in dtype too."""
    assert tensors.keys() == other.keys()
    assert [
        key for key in tensors if tensors[key].dtype != other[key].dtype or not torch.equal(tensors[key], other[key])
    ] == []


def inputs(kinds: str) -> dict[str, Tensor]:
    """One row with text, and an image of one crop and a clip of a second where `kinds` says so; with an image, longer
    than the original context."""
    row, tensors = [torch.arange(20)], dict[str, Tensor]()
    pick = torch.Generator().manual_seed(0)
    if "image" in kinds:
        row += [torch.full((IMAGE_TOKENS,), IMAGE), torch.arange(5)]
        tensors["image_pixel_values"] = torch.randn(1, 2, 3, 448, 448, generator=pick)
        tensors |= {"image_sizes": torch.tensor([[448, 448]]), "image_attention_mask": torch.ones(1, 2, 32, 32)}
    if "audio" in kinds:
        row += [torch.full((AUDIO_TOKENS,), AUDIO), torch.arange(5)]
        tensors["audio_input_features"] = torch.randn(1, AUDIO_FRAMES, 80, generator=pick)
        tensors["audio_embed_sizes"] = torch.tensor([AUDIO_TOKENS])
    return {"input_ids": torch.cat(row)[None], **tensors}


def assert_same_model(model: Multimodal, other: Multimodal) -> None:
    """In config and, bit for bit, in weights."""
    assert model.config == other.config
    assert_same_tensors(model.state_dict(), other.state_dict())


def assert_refused(folder: Path, message: str) -> None:
    """`load_hf` of the folder raises a ValueError that says this."""
    with pytest.raises(ValueError, match=message):
        load_hf(folder)
