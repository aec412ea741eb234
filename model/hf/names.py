"""Names of tensors: ours <-> those of a checkpoint in transformers' format, and of peft's adapters beside it.

Below a part the names are the reference's, so that one row a part says all; an adapter's matrices lie beside the
linears that they adapt with us, and in a file of their own with peft.
Source: state dicts of transformers 5.23 `models/phi4_multimodal`, `models/phi3`; peft 0.21, `save_pretrained`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gristmill.model.phi4.config import ModelConfig

_EMBED = "model.embed_tokens_extend."
_IMAGE, _AUDIO = f"{_EMBED}image_embed.", f"{_EMBED}audio_embed."
_PREFIXES = (
    ("vision_encoder.", f"{_IMAGE}img_processor."),
    ("vision_projector.global_separator", f"{_IMAGE}global_img_feature_extensor"),
    ("vision_projector.sub_separator", f"{_IMAGE}sub_img_feature_extensor"),
    ("vision_projector.up.", f"{_IMAGE}img_projection_up."),
    ("vision_projector.down.", f"{_IMAGE}img_projection_down."),
    ("audio_encoder.", f"{_AUDIO}encoder."),
    ("audio_projector_speech.up.", f"{_AUDIO}up_proj_for_speech."),
    ("audio_projector_speech.down.", f"{_AUDIO}down_proj_for_speech."),
    ("audio_projector_vision.up.", f"{_AUDIO}up_proj_for_vision_speech."),
    ("audio_projector_vision.down.", f"{_AUDIO}down_proj_for_vision_speech."),
    ("language.lm_head.", "lm_head."),
    ("language.", "model."),
)
"""The first row that fits counts, in either direction."""

HEAD = "lm_head.weight"
"""In a checkpoint's names: there although it is the embedding, if who wrote it was careless."""

_ADAPTED = re.compile(r"language\.(layers\.\d+\.\w+\.\w+)\.adapters\.(\w+)\.([AB])")
_PEFT = re.compile(r"base_model\.model\.(?:model\.)?(layers\.\d+\.\w+\.\w+)\.lora_([AB])(?:\.\w+)?\.weight")
"""With and without the model's own `model.`, with and without the adapter's name: peft has written them all."""


_COMPUTED = re.compile(r"(?:.*\.)?(?:rotary_emb\.inv_freq|embeddings\.position_ids)")


def to_hf(name: str) -> str:
    """The name in transformers' files of a tensor of ours; of an adapter's, that in the adapter's own file."""
    if adapted := _ADAPTED.fullmatch(name):
        return f"base_model.model.model.{adapted[1]}.lora_{adapted[3]}.weight"
    return next(hf + name.removeprefix(own) for own, hf in _PREFIXES if name.startswith(own))


def from_hf(key: str) -> str:
    """Our name of a tensor of the model's files; for others what no tensor of ours is named."""
    name = next((own + key.removeprefix(hf) for own, hf in _PREFIXES if key.startswith(hf)), None)
    # There and back: "model." begins most keys, so a foreign one may fit a row by chance, and take another's name.
    return name if name is not None and to_hf(name) == key else f"?{key}"


def from_peft(key: str, adapter: str) -> str:
    """Our name of a tensor of an adapter's file; for others what no tensor of ours is named."""
    match = _PEFT.fullmatch(key)
    return f"language.{match[1]}.adapters.{adapter}.{match[2]}" if match else f"?{key}"


def is_adapter(name: str) -> bool:
    """Whether a tensor of ours lies in the file of an adapter."""
    return _ADAPTED.fullmatch(name) is not None


def is_computed(key: str) -> bool:
    """Whether a tensor of a checkpoint is a buffer that older releases stored, and that follows from the config."""
    return _COMPUTED.fullmatch(key) is not None


def linears_of(adapter: str, names: Iterable[str]) -> dict[str, list[str]]:
    """The tensors of an adapter among `names` of ours, by the linear that they adapt, as transformers names it."""
    linears: dict[str, list[str]] = {}
    for name in names:
        adapted = _ADAPTED.fullmatch(name)
        if adapted and adapted[2] == adapter:
            linears.setdefault(f"model.{adapted[1]}", []).append(name)
    return linears


def is_unused(name: str, config: ModelConfig) -> bool:
    """Whether a tensor of ours never reaches the output, so that checkpoints may lack it: the vision encoder's end."""
    if config.vision is None or not name.startswith("vision_encoder."):
        return False
    inner = name.removeprefix("vision_encoder.")
    layer = re.match(r"encoder\.layers\.(\d+)\.", inner)
    return inner.startswith(("post_layernorm.", "head.")) or bool(layer and int(layer[1]) >= config.vision.used_layers)
