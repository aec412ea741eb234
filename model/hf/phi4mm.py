"""The hub's own files of Phi-4-multimodal (`model_type: phi4mm`): its config and its names of tensors.

That form came with code of its own and is what people have on disk. The decoder's linears lie there as peft wraps
them, `base_layer` with both adapters inline; encoders and projectors have other names than in transformers' form; the
sizes of the image encoder and the ids of the two tokens are constants of that code. None of it is run.
Source: the hub's modeling_phi4mm.py, configuration_phi4mm.py; transformers, convert_phi4_multimodal_weights_to_hf.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from gristmill.model.hf import adapters as hf_adapters
from gristmill.model.hf import names as hf_names
from gristmill.model.hf.config import text_config
from gristmill.model.hf.fields import (
    Fixed,
    Renamed,
    Values,
    check_fixed,
    nested,
    read_fields,
    read_renamed,
    refused,
    typed,
)
from gristmill.model.phi4.config import AudioConfig, LoraConfig, ModelConfig, VisionConfig
from gristmill.model.phi4.parts import ADAPTERS

KIND = "phi4mm"

_EMBED = r"model\.embed_tokens_extend\."
_ENCODER = rf"({_EMBED}audio_embed\.encoder\.encoders\.\d+\."
_RENAMED = (
    (rf"{_ENCODER}feed_forward_(?:in|out)\.)net\.0\.linear\.", r"\1gate_up_proj."),
    (rf"{_ENCODER}feed_forward_(?:in|out)\.)net\.2\.", r"\1down_proj."),
    (rf"{_ENCODER}self_attn\.)linear_([qkv])\.", r"\1\2_proj."),
    (rf"{_ENCODER}self_attn\.)linear_out\.", r"\1o_proj."),
    (rf"({_EMBED}image_embed\.)img_projection\.0\.", r"\1img_projection_up."),
    (rf"({_EMBED}image_embed\.)img_projection\.2\.", r"\1img_projection_down."),
    (rf"({_EMBED}image_embed\.)glb_GN$", r"\1global_img_feature_extensor"),
    (rf"({_EMBED}image_embed\.)sub_GN$", r"\1sub_img_feature_extensor"),
    (rf"({_EMBED}audio_embed\.)audio_projection\.speech\.0\.", r"\1up_proj_for_speech."),
    (rf"({_EMBED}audio_embed\.)audio_projection\.speech\.2\.", r"\1down_proj_for_speech."),
    (rf"({_EMBED}audio_embed\.)audio_projection\.vision\.0\.", r"\1up_proj_for_vision_speech."),
    (rf"({_EMBED}audio_embed\.)audio_projection\.vision\.2\.", r"\1down_proj_for_vision_speech."),
    (r"(model\.layers\.\d+\.\w+\.\w+\.)base_layer\.weight$", r"\1weight"),
)
"""Patterns of names in the hub's files, and what transformers calls these tensors."""

_NAMES = tuple((re.compile(pattern), transformers) for pattern, transformers in _RENAMED)
_INLINE = re.compile(r"model\.(layers\.\d+\.\w+\.\w+)\.lora_([AB])\.(\w+)\.weight")

_TEXT: Mapping[str, Any] = {
    "num_hidden_layers": None,
    "num_attention_heads": None,
    "num_key_value_heads": None,
    "max_position_embeddings": 4096,
    "eos_token_id": 199_999,
}
"""Defaults of the hub's class where they are others than transformers'; None: the file must say it."""
_TEXT_FIXED: Fixed = {"full_attn_mod": (1,), "interpolate_factor": (1,)}

_AUDIO: Renamed = {
    "hidden_size": ("attention_dim", 256),
    "intermediate_size": ("linear_units", 2048),
    "num_blocks": ("num_blocks", 6),
    "num_attention_heads": ("attention_heads", 4),
    "input_size": ("input_size", 80),
    "kernel_size": ("kernel_size", 3),
    "time_reduction": ("time_reduction", 4),
}
_AUDIO_SAID: Fixed = {
    "activation": ("swish",),
    "conv_activation": ("swish",),
    "conv_glu_type": ("swish",),
    "chunk_size": (-1,),
    "dropout_rate": (0.0,),
}
"""Whose defaults in the hub's code are others: the file must say these."""
_AUDIO_FIXED: Fixed = {
    "input_layer": ("nemo_conv",),
    "batch_norm": (False,),
    "bias_in_glu": (True,),
    "linear_glu_in_convm": (False,),
    "causal": (True,),
    "cnn_layer_norm": (True,),
    "depthwise_multiplier": (1,),
    "ext_pw_kernel_size": (1,),
    "attention_group_size": (1,),
    "chunk_se": (0,),
    "relative_k": (False, None),
    "relative_v": (False, None),
    "replication_pad_for_subsample_embedding": (False,),
}
_AS_HIDDEN = ("ext_pw_out_channel", "depthwise_seperable_out_channel")  # so spelled
_CONV_FIXED: Fixed = {"subsampling": ("dw_striding",), "is_causal": (False,)}
_BIAS_FIXED: Fixed = {"t5_bias_symmetric": (False,)}

_IMAGE_SAID: Fixed = {
    "projection_cls": ("mlp",),
    "use_hd_transform": (True,),
    "with_learnable_separator": (True,),
    "hd_transform_order": ("sub_glb",),
    "image_token_compression_cls": ("avg_pool_2d",),
}
_SPEECH_SAID: Fixed = {"projection_cls": ("mlp",)}
_SPEECH_FIXED: Fixed = {
    "downsample_rate": (1,),
    "use_qformer": (False, None),
    "use_conv_downsample": (False, None),
}
_VISION: Renamed = {
    "hidden_size": ("hidden_size", 1152),
    "intermediate_size": ("intermediate_size", 4304),
    "num_hidden_layers": ("num_hidden_layers", 27),
    "num_attention_heads": ("num_attention_heads", 16),
    "patch_size": ("patch_size", 14),
    "layer_norm_eps": ("layer_norm_eps", 1e-6),
    "feature_layer": ("layer_idx", -2),
}
"""Constants of the hub's code; `img_processor` in the file may say others, or `vision_config`, as some tools write."""
_RELEASED_WIDTH = 1152


def from_hub(key: str) -> str:
    """Our name of a tensor of the hub's files; for others what no tensor of ours is named."""
    if inline := _INLINE.fullmatch(key):
        return f"language.{inline[1]}.adapters.{inline[3]}.{inline[2]}"
    # By way of transformers' name: what the two forms have alike is then said once, in `names`.
    for pattern, transformers in _NAMES:
        renamed, count = pattern.subn(transformers, key)
        if count:
            return hf_names.from_hf(renamed)
    return hf_names.from_hf(key)


def config(values: Values, shapes: Mapping[str, tuple[int, ...]], folders: Collection[LoraConfig] = ()) -> ModelConfig:
    """`values`: the hub's config.json; `shapes`: of the tensors beside it, by our names. `folders`: adapters of folders
    beside the model, for those that are not inline. Raises ValueError as `hf_config.from_hf`."""
    for name in ("embd_layer", "audio_processor"):
        if not nested(values, name):
            raise refused(name, values.get(name), "the section that every phi4mm model has")
    check_fixed(values, _TEXT_FIXED, "")
    text = text_config({**_TEXT, **values})
    layers = nested(values, "embd_layer")
    vision = _vision(values, nested(layers, "image_embd_layer", "embd_layer."), shapes)
    audio = _audio(values, nested(layers, "audio_embd_layer", "embd_layer."))
    inline = {name: _adapter(values, name) for name in ADAPTERS if is_inline(name, shapes)}
    beside = {adapter.name: adapter for adapter in folders}
    both = {**beside, **inline}  # what is inline is what the hub's own code computes with
    return ModelConfig(text, vision, audio, tuple(both[name] for name in ADAPTERS if name in both))


def is_inline(adapter: str, names: Collection[str]) -> bool:
    """Whether an adapter's matrices are among tensors, by our names."""
    return any(f".adapters.{adapter}." in name for name in names)


def _vision(values: Values, layer: Values, shapes: Mapping[str, tuple[int, ...]]) -> VisionConfig:
    _check_said(layer, _IMAGE_SAID, "embd_layer.image_embd_layer.")
    given = {**nested(values, "vision_config"), **nested(values, "img_processor")}
    check_fixed(given, {"type_feature": ("patch",)}, "img_processor.")
    read = read_renamed({**_sizes(shapes), **given}, _VISION, "img_processor.")
    read |= read_fields(layer, {"crop_size": 336}, "embd_layer.image_embd_layer.")
    read |= read_fields({**nested(values, "vision_config"), **values}, {"image_token_id": 200_010}, "")
    return VisionConfig(**read)


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Of another image encoder than the released one, in a file that has no place for them. Heads cannot be seen."""
    patches = shapes.get("vision_encoder.embeddings.patch_embedding.weight", ())
    inner = shapes.get("vision_encoder.encoder.layers.0.mlp.fc1.weight", ())
    whole = "vision_encoder.head.probe" in shapes  # else nobody can tell how many layers are missing
    if len(patches) != 4 or len(inner) != 2 or not whole or patches[0] == _RELEASED_WIDTH:
        return {}
    layers = (re.match(r"vision_encoder\.encoder\.layers\.(\d+)\.", name) for name in shapes)
    numbers = {match[1] for match in layers if match}
    return {
        "hidden_size": patches[0],
        "patch_size": patches[2],
        "intermediate_size": inner[0],
        "num_hidden_layers": len(numbers),
    }


def _audio(values: Values, layer: Values) -> AudioConfig:
    processor, where = nested(values, "audio_processor"), "audio_processor.config."
    _check_said(processor, {"name": ("cascades",)}, "audio_processor.")
    given = nested(processor, "config", "audio_processor.")
    _check_said(given, _AUDIO_SAID, where)
    check_fixed(given, _AUDIO_FIXED, where)
    read = read_renamed(given, _AUDIO, where)
    for name in _AS_HIDDEN:
        if (width := given.get(name)) != read["hidden_size"]:
            raise refused(where + name, width, f"that of attention_dim, {read['hidden_size']}")
    conv = nested(given, "nemo_conv_settings", where)
    check_fixed(conv, _CONV_FIXED, f"{where}nemo_conv_settings.")
    channels: Renamed = {"nemo_conv_channels": ("conv_channels", 256)}
    read |= read_renamed(conv, channels, f"{where}nemo_conv_settings.")
    bias = nested(given, "relative_attention_bias_args", where)
    _check_said(bias, {"type": ("t5",)}, f"{where}relative_attention_bias_args.")
    check_fixed(bias, _BIAS_FIXED, f"{where}relative_attention_bias_args.")
    distance: Renamed = {"bias_max_distance": ("t5_bias_max_distance", 1000)}
    read |= read_renamed(bias, distance, f"{where}relative_attention_bias_args.")
    mels = nested(given, "encoder_embedding_config", where).get("input_size", read["input_size"])
    if typed(mels, 0, f"{where}encoder_embedding_config.input_size") != read["input_size"]:
        raise refused(f"{where}encoder_embedding_config.input_size", mels, f"that of input_size, {read['input_size']}")
    _check_said(layer, _SPEECH_SAID, "embd_layer.audio_embd_layer.")
    check_fixed(layer, _SPEECH_FIXED, "embd_layer.audio_embd_layer.")
    read |= read_fields({**nested(values, "audio_config"), **values}, {"audio_token_id": 200_011}, "")
    return AudioConfig(**read)


def _adapter(values: Values, name: str) -> LoraConfig:
    field = f"{name}_lora"
    if not (given := nested(values, field)):
        raise refused(field, values.get(field), "r, lora_alpha and dp of the adapter whose matrices are in the weights")
    return hf_adapters.plain(name, {**given, "lora_dropout": given.get("dp", 0.0)}, f"config.json: {field}")


def _check_said(values: Values, fixed: Fixed, where: str) -> None:
    """As `check_fixed`, and a missing field is refused."""
    check_fixed({**dict.fromkeys(fixed), **values}, fixed, where)
