"""Small random models of transformers, and adapters of peft on disk: what the model's tests compare with.

Weights are large enough that every part moves the logits; biases, separators and statistics are not left at 0 or 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Phi3Config, Phi3ForCausalLM, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from model.checkpoint import load_hf
from model.multimodal import Multimodal
from model.presets import PRESETS

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
HUB_CONSTANTS: dict[str, Any] = {
    "img_processor": {"num_attention_heads": 2},
    "image_token_id": IMAGE,
    "audio_token_id": AUDIO,
}
"""What the hub's config has no place for, and a tiny model needs: constants of the hub's code."""
IMAGE_TOKENS = 16 * 17 + 1 + 16 * 17  # of one crop and the global view
AUDIO_TOKENS, AUDIO_FRAMES = 13, 98  # of a second


ATTENTION = {"vision_config": "eager"}
"""For `from_pretrained`, and what `tiny_multimodal` has: with sdpa, transformers 5.23 makes the vision encoder causal
where every patch of a batch is real (it has no mask then, and `is_causal = True`): not so the release, nor eager."""


def text_config(**changes: Any) -> Phi3Config:
    return Phi3Config(**{**TEXT, "rope_parameters": dict(LONGROPE), **changes})


def multimodal_config(**changes: Any) -> Phi4MultimodalConfig:
    parts = {"vision_config": dict(VISION), "audio_config": dict(AUDIO_PART)}
    return Phi4MultimodalConfig(**{**TEXT, "rope_parameters": dict(LONGROPE), **parts, **changes})


def tiny_text(seed: int = 0, **changes: Any) -> Phi3ForCausalLM:
    """`changes`: fields of the config."""
    return randomised(Phi3ForCausalLM(text_config(**changes)), seed)


def tiny_multimodal(seed: int = 0, **changes: Any) -> Phi4MultimodalForCausalLM:
    config = multimodal_config(**changes)
    return randomised(Phi4MultimodalForCausalLM._from_config(config, attn_implementation=ATTENTION), seed)


def randomised(model: Any, seed: int) -> Any:
    """The model with weights of unit gain, for evaluation."""
    pick = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            gain = 1.0 if "bias_values" in name or "embed_tokens." in name else one[0].numel() ** -0.5
            one.normal_(std=gain if one.ndim > 1 else 0.2, generator=pick)
            if "norm" in name and name.endswith("weight"):
                one.add_(1.0)
        for name, one in model.named_buffers():
            if "global_" in name:
                one.uniform_(0.5, 1.5, generator=pick)
    return model.eval()


def save_adapter(model: nn.Module, folder: Path, rank: int, alpha: int, seed: int, **changes: Any) -> None:
    """Writes an adapter of `model` as peft does, with a random B. `changes`: fields of peft's LoraConfig. The model is
    wrapped on the way, and unwrapped again: unchanged."""
    settings = {"r": rank, "lora_alpha": alpha, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **changes}
    wrapped = get_peft_model(model, LoraConfig(**settings))
    pick = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in wrapped.named_parameters():
            if ".lora_" in name:
                strength = 0.05 if ".lora_B" in name else 1.0  # more, and float32's rounding alone moves logits by 1e-3
                one.normal_(std=strength * one.shape[1] ** -0.5, generator=pick)
    wrapped.save_pretrained(folder)
    wrapped.unload().requires_grad_(True)


def save_all(kind: str, folder: Path) -> Path:
    """What transformers and peft write of a tiny "text" or "multimodal" model and two adapters of it."""
    model = tiny_text() if kind == "text" else tiny_multimodal()
    model.save_pretrained(folder)
    save_adapter(model, folder / "vision-lora", 4, 8, seed=1)
    save_adapter(model, folder / "speech-lora", 6, 9, seed=2, lora_dropout=0.125)
    return folder


HUB_NAMES = {
    r"(encoders\.\d+\.feed_forward_(?:in|out)\.)gate_up_proj": r"\1net.0.linear",
    r"(encoders\.\d+\.feed_forward_(?:in|out)\.)down_proj": r"\1net.2",
    r"(encoders\.\d+\.self_attn\.)([qkv])_proj": r"\1linear_\2",
    r"(encoders\.\d+\.self_attn\.)o_proj": r"\1linear_out",
    r"img_projection_up": "img_projection.0",
    r"img_projection_down": "img_projection.2",
    r"global_img_feature_extensor": "glb_GN",
    r"sub_img_feature_extensor": "sub_GN",
    r"up_proj_for_speech": "audio_projection.speech.0",
    r"down_proj_for_speech": "audio_projection.speech.2",
    r"up_proj_for_vision_speech": "audio_projection.vision.0",
    r"down_proj_for_vision_speech": "audio_projection.vision.2",
    r"(model\.layers\.\d+\.(?:self_attn\.(?:qkv|o)|mlp\.(?:gate_up|down))_proj)": r"\1.base_layer",
}
"""Names of transformers, and the hub's for the same tensors of Phi-4-multimodal: transformers' converter, reversed."""


def hub_name(key: str) -> str:
    for theirs, hub in HUB_NAMES.items():
        renamed, count = re.subn(theirs, hub, key)
        if count:
            return renamed
    return key


def hub_config(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """config.json of the hub's own form, of one in transformers' (`values`), as far as that form can say it."""
    audio, vision = values["audio_config"], values["vision_config"]
    rope = values["rope_parameters"]
    lora = r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))"
    same = ("activation", "chunk_size", "conv_activation", "conv_glu_type", "dropout_rate", "ext_pw_out_channel")
    same += ("input_size", "kernel_size", "num_blocks", "time_reduction", "depthwise_multiplier")
    encoder = {name: audio[name] for name in same} | {
        "activation_checkpointing": {"interval": 1, "module": "transformer", "offload": False},
        "attention_dim": audio["hidden_size"],
        "attention_heads": audio["num_attention_heads"],
        "batch_norm": False,
        "bias_in_glu": True,
        "causal": True,
        "cnn_layer_norm": True,
        "depthwise_seperable_out_channel": audio["depthwise_separable_out_channel"],
        "encoder_embedding_config": {"input_size": audio["input_size"]},
        "ext_pw_kernel_size": 1,
        "input_layer": "nemo_conv",
        "left_chunk": 18,
        "linear_units": audio["intermediate_size"],
        "nemo_conv_settings": {"conv_channels": audio["nemo_conv_channels"]},
        "relative_attention_bias_args": {"t5_bias_max_distance": audio["bias_max_distance"], "type": "t5"},
    }
    speech = {"compression_rate": 8, "downsample_rate": 1, "embedding_cls": "audio", "projection_cls": "mlp"}
    speech |= {"enable_gradient_checkpointing": True, "use_conv_downsample": False, "use_qformer": False}
    image = {"crop_size": vision["crop_size"], "embedding_cls": "tune_image", "projection_cls": "mlp"}
    image |= {"hd_transform_order": "sub_glb", "image_token_compression_cls": "avg_pool_2d"}
    image |= {"enable_gradient_checkpointing": True, "use_hd_transform": True, "with_learnable_separator": True}
    embedding = {"embedding_cls": "image_audio", "audio_embd_layer": speech, "image_embd_layer": image}
    gone = ("audio_config", "vision_config", "rope_parameters", "architectures", "dtype")
    text = {name: value for name, value in values.items() if name not in gone}
    return {
        **text,
        "model_type": "phi4mm",
        "architectures": ["Phi4MMForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_phi4mm.Phi4MMForCausalLM"},
        "audio_processor": {"config": encoder, "name": "cascades"},
        "embd_layer": embedding,
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "partial_rotary_factor": rope["partial_rotary_factor"],
        "rope_scaling": {"type": "longrope", **{name: rope[name] for name in ("short_factor", "long_factor")}},
        "rope_theta": rope["rope_theta"],
        "speech_lora": {"dp": 0.125, "layer": lora, "lora_alpha": 9, "r": 6},
        "vision_lora": {"dp": 0.0, "layer": lora, "lora_alpha": 8, "r": 4},
        "torch_dtype": "bfloat16",
        "sliding_window": 262_144,
        **changes,
    }


def as_hub(folder: Path, target: Path, **changes: Any) -> Path:
    """The checkpoint of `save_all` in the hub's own form: adapters inline, in two files with an index. `changes`: of
    fields of its config.json."""
    target.mkdir()
    (target / "config.json").write_text(
        json.dumps(hub_config(json.loads((folder / "config.json").read_text()), **changes))
    )
    tensors = {hub_name(key): one for key, one in load_file(folder / "model.safetensors").items()}
    for name in ("vision", "speech"):
        for key, one in load_file(folder / f"{name}-lora" / "adapter_model.safetensors").items():
            inline = key.removeprefix("base_model.model.").replace(".weight", f".{name}.weight")
            tensors[inline] = one
    keys = sorted(tensors)
    places = {}
    for number, some in enumerate((keys[::2], keys[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in some}, target / file, metadata={"format": "pt"})
        places |= dict.fromkeys(some, file)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return target


def released_hub_config() -> dict[str, Any]:
    """config.json of microsoft/Phi-4-multimodal-instruct, as published."""
    values = Phi4MultimodalConfig(
        num_attention_heads=24,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 48,
            "long_factor": list(PRESETS["multimodal"].text.rope_parameters.long_factor),
            "original_max_position_embeddings": 4096,
        },
        audio_config={"bias_max_distance": 500},
    )
    file = hub_config(json.loads(values.to_json_string(use_diff=False)), eos_token_id=199_999)
    file["vision_lora"] |= {"r": 256, "lora_alpha": 512, "dp": 0.0}
    file["speech_lora"] |= {"r": 320, "lora_alpha": 640, "dp": 0.01}
    return file


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
        tensors = {key: one.clone() for key, one in load_file(file).items()}
        change(tensors)
        save_file({key: one.clone() for key, one in tensors.items()}, file)


def assert_same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit, in dtype too."""
    assert one.keys() == other.keys()
    assert [key for key in one if one[key].dtype != other[key].dtype or not torch.equal(one[key], other[key])] == []


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
