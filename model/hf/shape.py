"""The shape of a model as a version of the lake stores it: its config, and the small files that lay beside its weights.

One JSON document with a format number. What earlier releases wrote is brought to the present names here and nowhere
else, so that `ModelConfig` knows one name for each field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gristmill.model.phi4.config import ModelConfig

FORMAT = 3
"""2 added `sidecars`; 3 calls the config's fields as transformers and peft do."""

_TEXT = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "inner": "intermediate_size",
    "eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "bos": "bos_token_id",
    "pad": "pad_token_id",
    "eos": "eos_token_id",
}
_CONTEXT = {
    "original_positions": "original_max_position_embeddings",
    "max_positions": "max_position_embeddings",
}
_ROPE = {
    "theta": "rope_theta",
    "fraction": "partial_rotary_factor",
    "short_factor": "short_factor",
    "long_factor": "long_factor",
    "attention_factor": "attention_factor",
}
_VISION = {
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "crop": "crop_size",
    "patch": "patch_size",
    "eps": "layer_norm_eps",
    "feature_layer": "feature_layer",
    "token": "image_token_id",
}
_AUDIO = {
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_blocks",
    "heads": "num_attention_heads",
    "mels": "input_size",
    "conv_channels": "nemo_conv_channels",
    "kernel": "kernel_size",
    "reduction": "time_reduction",
    "window": "window",
    "bias_distance": "bias_max_distance",
    "eps": "layer_norm_eps",
    "token": "audio_token_id",
}
_ADAPTER = {"name": "name", "rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
"""Names of fields in formats 1 and 2, all of them, and what they are called since."""


@dataclass(frozen=True)
class Shape:
    """`sidecars`: files beside the weights by name, as `model.hf.sidecars.read` gives them."""

    config: ModelConfig
    sidecars: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The same shape, the same text."""
        document = {"format": FORMAT, "config": self.config.to_dict(), "sidecars": dict(self.sidecars)}
        return json.dumps(document, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Shape:
        """Of this format or an earlier one. Raises ValueError for a later one, or a config that cannot be."""
        document = json.loads(text)
        stored, config = document["format"], document["config"]
        if stored not in range(1, FORMAT + 1):
            raise ValueError(f"the model's shape has format {stored}, this release reads up to {FORMAT}")
        if stored < 3:
            config = _with_present_names(config)
        return cls(ModelConfig.from_dict(config), document.get("sidecars", {}))


def _with_present_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of formats 1 and 2, in whose rotary section the lengths of the context stood."""
    text = dict(config["text"])
    rope = text.pop("rope")
    return {
        **config,
        "text": {**_renamed(text, _TEXT), **_chosen(rope, _CONTEXT), "rope_parameters": _chosen(rope, _ROPE)},
        "vision": config["vision"] and _renamed(config["vision"], _VISION),
        "audio": config["audio"] and _renamed(config["audio"], _AUDIO),
        "adapters": [_renamed(adapter, _ADAPTER) for adapter in config["adapters"]],
    }


def _renamed(section: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The whole section; a name that no format had stays, for `ModelConfig.from_dict` to refuse."""
    return {names.get(name, name): value for name, value in section.items()}


def _chosen(section: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a section that `names` has."""
    return {new: section[old] for old, new in names.items()}
