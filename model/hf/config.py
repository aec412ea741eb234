"""config.json of transformers <-> ModelConfig: `phi4_multimodal`, and `phi3` for the language model alone.

Fields have one name on both sides. One table a part gives the default of transformers' class, which is not the released
value (32 heads, not 24; an untied head): what is missing in a file means the default, and what we write leaves nothing
out.
What the model does not implement is refused by name: a checkpoint is read rightly or not at all.
Source: transformers 5.23, `configuration_phi3`, `configuration_phi4_multimodal`, `modeling_rope_utils`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gristmill.model.hf.fields import (
    Fields,
    Fixed,
    Values,
    check_fixed,
    check_head_dim,
    nested,
    read_fields,
    refused,
    typed,
    written_fields,
)
from gristmill.model.phi4.config import AudioConfig, LoraConfig, ModelConfig, RopeParameters, TextConfig, VisionConfig

_TEXT: Fields = {
    "vocab_size": 200_064,
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131_072,
    "original_max_position_embeddings": 4096,
    "bos_token_id": 199_999,
    "pad_token_id": 199_999,
}
_ROPE: Fields = {"rope_theta": 0.0, "partial_rotary_factor": 0.0}
_EOS = [199_999, 200_020]
_PHI3 = {
    "vocab_size": 32_064,
    "num_key_value_heads": None,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "pad_token_id": 32_000,
    "eos_token_id": 32_000,
}
"""Defaults of phi3 where they are others."""
_VISION: Fields = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "crop_size": 448,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "feature_layer": -2,
    "image_token_id": 200_010,
}
_AUDIO: Fields = {
    "hidden_size": 1024,
    "intermediate_size": 1536,
    "num_blocks": 24,
    "num_attention_heads": 16,
    "input_size": 80,
    "nemo_conv_channels": 1024,
    "kernel_size": 3,
    "time_reduction": 8,
    "bias_max_distance": 1000,
    "audio_token_id": 200_011,
}

_TEXT_FIXED: Fixed = {
    "hidden_act": ("silu",),
    "resid_pdrop": (0.0,),
    "embd_pdrop": (0.0,),
    "attention_dropout": (0.0,),
}
_TEXT_ABSENT: Fixed = dict.fromkeys(
    ("quantization_config", "attention_bias", "qkv_bias", "mlp_bias", "lm_head_bias"), (None, False)
)
_VISION_FIXED: Fixed = {"num_channels": (3,), "hidden_act": ("gelu_pytorch_tanh",), "attention_dropout": (0.0,)}
_AUDIO_FIXED: Fixed = {
    "activation": ("swish", "silu"),
    "conv_activation": ("swish", "silu"),
    "conv_glu_type": ("swish", "silu"),
    "nemo_activation": ("relu",),
    "chunk_size": (-1,),
    "dropout_rate": (0.0,),
    "depthwise_multiplier": (1,),
    "downsample_rate": (1,),
    "bias_symmetric": (False,),
}
_AS_HIDDEN = ("ext_pw_out_channel", "depthwise_separable_out_channel")  # widths we have no number for
_AUDIO_WIDTH = 1024  # their default


def from_hf(values: Values, adapters: tuple[LoraConfig, ...] = ()) -> ModelConfig:
    """`values`: config.json as read; `adapters`: what its checkpoint's folders hold.

    Raises ValueError that names a field and its value where the model does not implement it, or it is of a wrong type.
    """
    kind = values.get("model_type")
    if kind not in ("phi3", "phi4_multimodal"):
        raise ValueError(
            f"config.json: model_type={kind!r} is not implemented; allowed are phi3 and phi4_multimodal, and the hub's "
            "own phi4mm, in a folder with its weights"
        )
    if kind == "phi3":
        return ModelConfig(text_config({**_PHI3, **values}), adapters=adapters)
    eos = values.get("eos_token_id")
    text = text_config({**values, "eos_token_id": _EOS if eos in (None, []) else eos})
    vision, audio = (nested(values, name) for name in ("vision_config", "audio_config"))
    return ModelConfig(text, _vision(vision), _audio(audio), adapters)


def _with_tokens(values: Values) -> Values:
    """null for the first or the padding token: the end token, which every text has."""
    eos = values.get("eos_token_id")
    first = next(iter(eos), None) if isinstance(eos, list) else eos
    lacking = [name for name in ("bos_token_id", "pad_token_id") if name in values and values[name] is None]
    return values if first is None else {**values, **dict.fromkeys(lacking, first)}


def to_hf(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """config.json of `config`; `dtype`: of the weights beside it ("bfloat16").

    Raises ValueError for what transformers cannot express. Its image processor, not its model, knows only crops of 448
    and patches of 14.
    """
    if (config.vision is None) != (config.audio is None):
        have, lack = ("vision", "audio") if config.audio is None else ("audio", "vision")
        raise ValueError(
            f"the model has {have} and no {lack}: transformers' phi4_multimodal needs both, its phi3 neither; "
            f"give the config the missing part (its weights may stay as they were made), or drop {have}"
        )
    values: dict[str, Any] = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}
    if config.vision is not None and config.audio is not None:
        values = {"architectures": ["Phi4MultimodalForCausalLM"], "model_type": "phi4_multimodal"}
        values |= {"vision_config": _vision_values(config.vision), "audio_config": _audio_values(config.audio)}
    values |= written_fields(config.text, _TEXT, _TEXT_FIXED)
    values |= {"eos_token_id": list(config.text.eos_token_id), "rope_parameters": _rope_values(config.text)}
    return {**values, "sliding_window": None, "initializer_range": 0.02, "use_cache": True, "dtype": dtype}


def text_config(values: Values) -> TextConfig:
    """The language model of a config.json, whose fields are those of `Phi3Config` at the top of the file.

    Raises ValueError as `from_hf`."""
    values = _with_tokens(values)
    check_fixed(values, {**_TEXT_FIXED, **_TEXT_ABSENT}, "")
    if values.get("num_key_value_heads", 0) is None:
        values = {**values, "num_key_value_heads": values.get("num_attention_heads", _TEXT["num_attention_heads"])}
    read = read_fields(values, _TEXT, "")
    check_head_dim(values, read, "")
    context = read["max_position_embeddings"]
    window = values.get("sliding_window")
    if window is not None and typed(window, 0, "sliding_window") < context:
        raise refused("sliding_window", window, f"null, or at least max_position_embeddings={context}, which is none")
    section = nested(values, "rope_scaling") or nested(values, "rope_parameters")
    rope = _rope(values, section, read["original_max_position_embeddings"])
    text = TextConfig(**read, rope_parameters=rope, eos_token_id=_eos(values))
    if not rope.long_factor:
        return text
    return replace(text, rope_parameters=replace(rope, attention_factor=_attention_factor(section, text)))


def _eos(values: Values) -> tuple[int, ...]:
    """0 is a token like any other; null: none."""
    given = values.get("eos_token_id")
    listed = given if isinstance(given, list) else [] if given is None else [given]
    return tuple(typed(token, 0, "eos_token_id") for token in listed)


def _rope(values: Values, section: Values, original: int) -> RopeParameters:
    """From the section of rotary positions, or the older form, which had its fields at the top of the file. Without
    the attention factor. `original`: the original context, in tokens."""
    outer = {"rope_theta": values.get("rope_theta", 10_000.0)}
    outer |= {"partial_rotary_factor": values.get("partial_rotary_factor", 1.0)}
    read = read_fields({**outer, **section}, _ROPE, "rope_parameters.")
    if not 0 < read["partial_rotary_factor"] <= 1:
        raise refused("rope_parameters.partial_rotary_factor", read["partial_rotary_factor"], "more than 0, up to 1")
    kind = section.get("rope_type", section.get("type", "default"))
    if kind == "default":
        return RopeParameters(**read, short_factor=(), long_factor=())
    if kind not in ("longrope", "su", "yarn"):  # of this model, the latter are older names of the first
        raise refused("rope_parameters.rope_type", kind, "'default' and 'longrope'")
    inner = section.get("original_max_position_embeddings")
    if inner is not None and inner != original:
        # transformers would take the outer one, or its default of 4096, and say nothing
        raise refused("rope_parameters.original_max_position_embeddings", inner, f"the file's own, {original}")
    for name in ("short_factor", "long_factor"):
        if not isinstance(factors := section.get(name), list) or not factors:
            raise refused(f"rope_parameters.{name}", factors, "a list of numbers, one a pair of rotating dimensions")
        read[name] = tuple(typed(factor, 0.0, f"rope_parameters.{name}") for factor in factors)
    return RopeParameters(**read)


def _attention_factor(section: Values, text: TextConfig) -> float | None:
    """None where it is what `text`, which has none of its own, works out by itself."""
    scale, stretch = (_optional_number(section, name) for name in ("attention_factor", "factor"))
    if scale is None and stretch is not None:
        log_original = math.log(text.original_max_position_embeddings)
        scale = math.sqrt(1 + math.log(stretch) / log_original) if stretch > 1 else 1.0
    return None if scale == text.rope_scale else scale


def _optional_number(section: Values, name: str) -> float | None:
    value = section.get(name)
    return None if value is None else typed(value, 0.0, f"rope_parameters.{name}")


def _rope_values(text: TextConfig) -> dict[str, Any]:
    rope = text.rope_parameters
    values: dict[str, Any] = {"rope_theta": rope.rope_theta, "partial_rotary_factor": rope.partial_rotary_factor}
    if not rope.short_factor and not rope.long_factor and rope.attention_factor is None:
        return {"rope_type": "default", **values}
    ones = (1.0,) * (text.rotary_dim // 2)
    values |= {"short_factor": list(rope.short_factor or ones), "long_factor": list(rope.long_factor or ones)}
    if rope.attention_factor is not None or not rope.long_factor:
        values["attention_factor"] = text.rope_scale
    original = text.original_max_position_embeddings
    return {"rope_type": "longrope", **values, "original_max_position_embeddings": original}


def _vision(values: Values) -> VisionConfig:
    where = "vision_config."
    check_fixed(values, _VISION_FIXED, where)
    read = read_fields(values, _VISION, where)
    if (size := values.get("image_size", 448)) not in (read["crop_size"], [read["crop_size"]] * 2):
        raise refused(f"{where}image_size", size, f"that of crop_size, {read['crop_size']}")
    return VisionConfig(**read)


def _vision_values(vision: VisionConfig) -> dict[str, Any]:
    values = {"model_type": "phi4_multimodal_vision", "image_size": vision.crop_size}
    return {**values, **written_fields(vision, _VISION, _VISION_FIXED)}


def _audio(values: Values) -> AudioConfig:
    where = "audio_config."
    check_fixed(values, _AUDIO_FIXED, where)
    read = read_fields(values, _AUDIO, where)
    check_head_dim(values, read, where)
    for name in _AS_HIDDEN:
        if (width := values.get(name, _AUDIO_WIDTH)) != read["hidden_size"]:
            raise refused(where + name, width, f"that of hidden_size, {read['hidden_size']}")
    return AudioConfig(**read)


def _audio_values(audio: AudioConfig) -> dict[str, Any]:
    released = AudioConfig()
    for name in ("window", "layer_norm_eps"):  # constants in the reference's code
        if (value := getattr(audio, name)) != (only := getattr(released, name)):
            raise ValueError(f"audio.{name}={value}: transformers has no field for it; allowed for export is {only}")
    values = {"model_type": "phi4_multimodal_audio", **dict.fromkeys(_AS_HIDDEN, audio.hidden_size)}
    return {**values, **written_fields(audio, _AUDIO, _AUDIO_FIXED)}
