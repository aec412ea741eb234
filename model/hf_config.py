"""config.json of transformers <-> ModelConfig: `phi4_multimodal`, and `phi3` for the language model alone.

One table a part gives each field's name there and the default of transformers' class, which is not the released value
(32 heads, not 24; an untied head): what is missing in a file means the default, and what we write leaves nothing out.
What the model does not implement is refused by name: a checkpoint is read rightly or not at all.
Source: transformers 5.23, `configuration_phi3`, `configuration_phi4_multimodal`, `modeling_rope_utils`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model.config import AdapterConfig, AudioConfig, ModelConfig, RopeConfig, TextConfig, VisionConfig

Values = Mapping[str, Any]
_Fields = dict[str, tuple[str, Any]]
"""Our name: (theirs, the default of their class), whose type a value must have."""

_TEXT: _Fields = {
    "vocab": ("vocab_size", 200_064),
    "hidden": ("hidden_size", 3072),
    "layers": ("num_hidden_layers", 32),
    "heads": ("num_attention_heads", 32),
    "kv_heads": ("num_key_value_heads", 8),
    "inner": ("intermediate_size", 8192),
    "eps": ("rms_norm_eps", 1e-5),
    "tied": ("tie_word_embeddings", False),
    "bos": ("bos_token_id", 199_999),
    "pad": ("pad_token_id", 199_999),
}
_ROPE: _Fields = {
    "original_positions": ("original_max_position_embeddings", 4096),
    "max_positions": ("max_position_embeddings", 131_072),
}
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
_VISION: _Fields = {
    "hidden": ("hidden_size", 1152),
    "inner": ("intermediate_size", 4304),
    "layers": ("num_hidden_layers", 27),
    "heads": ("num_attention_heads", 16),
    "crop": ("crop_size", 448),
    "patch": ("patch_size", 14),
    "eps": ("layer_norm_eps", 1e-6),
    "feature_layer": ("feature_layer", -2),
    "token": ("image_token_id", 200_010),
}
_AUDIO: _Fields = {
    "hidden": ("hidden_size", 1024),
    "inner": ("intermediate_size", 1536),
    "layers": ("num_blocks", 24),
    "heads": ("num_attention_heads", 16),
    "mels": ("input_size", 80),
    "conv_channels": ("nemo_conv_channels", 1024),
    "kernel": ("kernel_size", 3),
    "reduction": ("time_reduction", 8),
    "bias_distance": ("bias_max_distance", 1000),
    "token": ("audio_token_id", 200_011),
}

_Fixed = dict[str, tuple[Any, ...]]
"""Fields with one meaning here: the values that have it, the default of their class first."""
_TEXT_FIXED: _Fixed = {
    "hidden_act": ("silu",),
    "resid_pdrop": (0.0,),
    "embd_pdrop": (0.0,),
    "attention_dropout": (0.0,),
}
_TEXT_ABSENT: _Fixed = dict.fromkeys(
    ("quantization_config", "attention_bias", "qkv_bias", "mlp_bias", "lm_head_bias"), (None, False)
)
_VISION_FIXED: _Fixed = {"num_channels": (3,), "hidden_act": ("gelu_pytorch_tanh",), "attention_dropout": (0.0,)}
_AUDIO_FIXED: _Fixed = {
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


def from_hf(values: Values, adapters: tuple[AdapterConfig, ...] = ()) -> ModelConfig:
    """`values`: config.json as read; `adapters`: what its checkpoint's folders hold.

    Raises ValueError that names a field and its value where the model does not implement it, or it is of a wrong type.
    """
    kind = values.get("model_type")
    if kind == "phi4mm":
        raise ValueError(
            "config.json: model_type='phi4mm' is the hub's format with code of its own; allowed are 'phi4_multimodal' "
            "and 'phi3': take the revision of the repository that is in transformers' own format"
        )
    if kind not in ("phi3", "phi4_multimodal"):
        raise ValueError(f"config.json: model_type={kind!r} is not implemented; allowed are phi3 and phi4_multimodal")
    values = _with_tokens({**(_PHI3 if kind == "phi3" else {}), **values})
    text = _text(values)
    if kind == "phi3":
        return ModelConfig(text, adapters=adapters)
    vision, audio = (_nested(values, name) for name in ("vision_config", "audio_config"))
    return ModelConfig(text, _vision(vision), _audio(audio), adapters)


def _with_tokens(values: Values) -> Values:
    """null for the first or the padding token: the end token, which every text has."""
    eos = values.get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
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
    values |= {**_written(config.text, _TEXT, _TEXT_FIXED), **_written(config.text.rope, _ROPE, {})}
    values |= {"eos_token_id": list(config.text.eos), "rope_parameters": _rope_values(config.text)}
    return {**values, "sliding_window": None, "initializer_range": 0.02, "use_cache": True, "dtype": dtype}


def generation_config(config: ModelConfig) -> dict[str, Any]:
    """generation_config.json: where to stop, and what to pad with."""
    text = config.text
    return {"bos_token_id": text.bos, "eos_token_id": list(text.eos), "pad_token_id": text.pad}


def _text(values: Values) -> TextConfig:
    _check_fixed(values, {**_TEXT_FIXED, **_TEXT_ABSENT}, "")
    if values.get("num_key_value_heads", 0) is None:
        values = {**values, "num_key_value_heads": values.get("num_attention_heads", _TEXT["heads"][1])}
    read = _read(values, _TEXT, "")
    _check_head_dim(values, read, "")
    rope = _rope(values)
    window = values.get("sliding_window")
    if window is not None and _typed(window, 0, "sliding_window") < rope.max_positions:
        raise _refused(
            "sliding_window", window, f"null, or at least max_position_embeddings={rope.max_positions}, which is none"
        )
    eos = values.get("eos_token_id") or (_EOS if values["model_type"] == "phi4_multimodal" else [])
    eos = tuple(_typed(one, 0, "eos_token_id") for one in (eos if isinstance(eos, list) else [eos]))
    return TextConfig(**read, rope=rope, eos=eos)


def _rope(values: Values) -> RopeConfig:
    """From `rope_parameters`, or the older `rope_scaling` with its fields at the top of the file."""
    given = _nested(values, "rope_scaling") or _nested(values, "rope_parameters")
    read = _read(values, _ROPE, "")
    outer = {"rope_theta": values.get("rope_theta", 10_000.0)}
    outer |= {"partial_rotary_factor": values.get("partial_rotary_factor", 1.0)}
    names: _Fields = {"theta": ("rope_theta", 0.0), "fraction": ("partial_rotary_factor", 0.0)}
    read |= _read({**outer, **given}, names, "rope_parameters.")
    if not 0 < read["fraction"] <= 1:
        raise _refused("rope_parameters.partial_rotary_factor", read["fraction"], "more than 0, up to 1")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return RopeConfig(**read, short_factor=(), long_factor=())
    if kind not in ("longrope", "su", "yarn"):  # of this model, the latter are older names of the first
        raise _refused("rope_parameters.rope_type", kind, "'default' and 'longrope'")
    original = read["original_positions"]
    if (inner := given.get("original_max_position_embeddings") or original) != original:
        # transformers would take the outer one, or its default of 4096, and say nothing
        raise _refused("rope_parameters.original_max_position_embeddings", inner, f"the file's own, {original}")
    for name in ("short_factor", "long_factor"):
        if not isinstance(factors := given.get(name), list) or not factors:
            raise _refused(f"rope_parameters.{name}", factors, "a list of numbers, one a pair of rotating dimensions")
        read[name] = tuple(_typed(one, 0.0, f"rope_parameters.{name}") for one in factors)
    return RopeConfig(**read, attention_factor=_attention_factor(given, RopeConfig(**read)))


def _attention_factor(given: Values, rope: RopeConfig) -> float | None:
    """None where it is what RopeConfig works out by itself."""
    scale, stretch = (
        None if given.get(name) is None else _typed(given[name], 0.0, f"rope_parameters.{name}")
        for name in ("attention_factor", "factor")
    )
    if scale is None and stretch is not None:
        scale = math.sqrt(1 + math.log(stretch) / math.log(rope.original_positions)) if stretch > 1 else 1.0
    return None if scale == rope.scale else scale


def _rope_values(text: TextConfig) -> dict[str, Any]:
    rope = text.rope
    values: dict[str, Any] = {"rope_theta": rope.theta, "partial_rotary_factor": rope.fraction}
    if not rope.short_factor and not rope.long_factor and rope.attention_factor is None:
        return {"rope_type": "default", **values}
    ones = (1.0,) * (text.rotary_dim // 2)
    values |= {"short_factor": list(rope.short_factor or ones), "long_factor": list(rope.long_factor or ones)}
    if rope.attention_factor is not None or not rope.long_factor:
        values["attention_factor"] = rope.scale
    return {"rope_type": "longrope", **values, "original_max_position_embeddings": rope.original_positions}


def _vision(values: Values) -> VisionConfig:
    where = "vision_config."
    _check_fixed(values, _VISION_FIXED, where)
    read = _read(values, _VISION, where)
    if (size := values.get("image_size", 448)) not in (read["crop"], [read["crop"]] * 2):
        raise _refused(f"{where}image_size", size, f"that of crop_size, {read['crop']}")
    return VisionConfig(**read)


def _vision_values(vision: VisionConfig) -> dict[str, Any]:
    values = {"model_type": "phi4_multimodal_vision", "image_size": vision.crop}
    return {**values, **_written(vision, _VISION, _VISION_FIXED)}


def _audio(values: Values) -> AudioConfig:
    where = "audio_config."
    _check_fixed(values, _AUDIO_FIXED, where)
    read = _read(values, _AUDIO, where)
    _check_head_dim(values, read, where)
    for name in _AS_HIDDEN:
        if (width := values.get(name, _AUDIO_WIDTH)) != read["hidden"]:
            raise _refused(where + name, width, f"that of hidden_size, {read['hidden']}")
    return AudioConfig(**read)


def _audio_values(audio: AudioConfig) -> dict[str, Any]:
    released = AudioConfig()
    for name in ("window", "eps"):  # constants in the reference's code
        if (value := getattr(audio, name)) != (only := getattr(released, name)):
            raise ValueError(f"audio.{name}={value}: transformers has no field for it; allowed for export is {only}")
    values = {"model_type": "phi4_multimodal_audio", **dict.fromkeys(_AS_HIDDEN, audio.hidden)}
    return {**values, **_written(audio, _AUDIO, _AUDIO_FIXED)}


def _nested(values: Values, name: str) -> Values:
    found = values.get(name) or {}
    if not isinstance(found, Mapping):
        raise _refused(name, found, "an object of fields")
    return found


def _read(values: Values, names: _Fields, where: str) -> dict[str, Any]:
    """Our fields of their values, each of the type of its default."""
    return {
        ours: _typed(values.get(theirs, default), default, where + theirs) for ours, (theirs, default) in names.items()
    }


def _typed(value: Any, default: Any, name: str) -> Any:
    kind = type(default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and 0 <= value < 1e30:  # no NaN either; nothing here has a sign
        return float(value)
    if kind is float or (kind is int and number and abs(value) > 1 << 40):
        raise _refused(name, value, "a number from 0 on" if kind is float else "a whole number of a size that can be")
    if not isinstance(value, kind) or (kind is int and not number):
        raise _refused(name, value, {int: "a whole number", float: "a number", bool: "true and false"}[kind])
    return value


def _written(part: Any, names: _Fields, fixed: _Fixed) -> dict[str, Any]:
    read = {theirs: getattr(part, ours) for ours, (theirs, _) in names.items()}
    return {**read, **{name: values[0] for name, values in fixed.items()}}


def _check_fixed(values: Values, fixed: _Fixed, where: str) -> None:
    for name, allowed in fixed.items():
        if (value := values.get(name, allowed[0])) not in allowed:
            raise _refused(where + name, value, " or ".join(repr(one) for one in allowed))


def _check_head_dim(values: Values, read: dict[str, Any], where: str) -> None:
    heads = max(read["heads"], 1)  # none: the part's config says so
    if (given := values.get("head_dim")) is not None and given * heads != read["hidden"]:
        raise _refused(f"{where}head_dim", given, f"hidden_size / num_attention_heads = {read['hidden'] / heads:g}")


def _refused(name: str, value: Any, allowed: str) -> ValueError:
    return ValueError(f"config.json: {name}={value!r} is not implemented here; allowed: {allowed}")
