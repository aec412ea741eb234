"""The hub's own form of a checkpoint (`phi4mm`), made of what transformers writes: other names, adapters inline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import hf
from safetensors.torch import load_file, save_file
from transformers import Phi4MultimodalConfig

from gristmill.model.phi4.presets import PRESETS

HUB_CONSTANTS: dict[str, Any] = {
    "img_processor": {"num_attention_heads": 2},
    "image_token_id": hf.IMAGE,
    "audio_token_id": hf.AUDIO,
}
"""What the hub's config has no place for, and a tiny model needs: constants of the hub's code."""

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
    """The hub's name of a tensor, by transformers' (`key`)."""
    for pattern, replacement in HUB_NAMES.items():
        renamed, count = re.subn(pattern, replacement, key)
        if count:
            return renamed
    return key


def _audio_encoder(audio: dict[str, Any]) -> dict[str, Any]:
    """The section `audio_processor.config`, of transformers' `audio_config`."""
    same = ("activation", "chunk_size", "conv_activation", "conv_glu_type", "dropout_rate", "ext_pw_out_channel")
    same += ("input_size", "kernel_size", "num_blocks", "time_reduction", "depthwise_multiplier")
    return {name: audio[name] for name in same} | {
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


def hub_config(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """config.json of the hub's own form, of one in transformers' (`values`), as far as that form can say it."""
    vision, rope = values["vision_config"], values["rope_parameters"]
    lora = r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))"
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
        "audio_processor": {"config": _audio_encoder(values["audio_config"]), "name": "cascades"},
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
    """The checkpoint of `hf.save_all` in the hub's own form: adapters inline, in two files with an index. `changes`: of
    fields of its config.json."""
    target.mkdir()
    (target / "config.json").write_text(
        json.dumps(hub_config(json.loads((folder / "config.json").read_text()), **changes))
    )
    tensors = {hub_name(key): tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    for name in ("vision", "speech"):
        for key, tensor in load_file(folder / f"{name}-lora" / "adapter_model.safetensors").items():
            inline = key.removeprefix("base_model.model.").replace(".weight", f".{name}.weight")
            tensors[inline] = tensor
    keys = sorted(tensors)
    places = {}
    for number, of_file in enumerate((keys[::2], keys[1::2]), 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in of_file}, target / file, metadata={"format": "pt"})
        places |= dict.fromkeys(of_file, file)
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
