"""The folders of adapters beside a checkpoint, `vision-lora/` and `speech-lora/`, as peft reads and writes them.

Only plain LoRA: whatever else peft can put in adapter_config.json changes what the matrices mean, and is refused by
name. Which linears are adapted is checked by the tensors, not by the pattern, which may be written in many ways.
Source: peft 0.21, `LoraConfig`; the hub's adapter_config.json of Phi-4-multimodal-instruct.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.config import AdapterConfig
from model.parts import ADAPTERS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"
"""Anchored at the decoder: the bare names of its linears are those of the audio encoder's too."""

_ONLY = {"peft_type": "LORA", "bias": "none"}
_EMPTY = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "use_bdlora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
    "target_parameters",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Fields that ask for another computation than B(A(x)), or for other tensors, unless they are empty."""


_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")


def folder_of(checkpoint: Path, name: str) -> Path:
    return checkpoint / f"{name}-lora"


def names_in(checkpoint: Path) -> list[str]:
    """Adapters of a checkpoint. Raises ValueError for a folder of an adapter that is not known."""
    found = {one.name.removesuffix("-lora") for one in checkpoint.glob("*-lora") if one.is_dir()}
    if unknown := sorted(found - set(ADAPTERS)):
        allowed = ", ".join(folder_of(checkpoint, name).name for name in ADAPTERS)
        raise ValueError(f"{folder_of(checkpoint, unknown[0])}: not a known adapter; allowed are {allowed}")
    return [name for name in ADAPTERS if name in found]


def read(name: str, values: Mapping[str, Any], where: Path) -> AdapterConfig:
    """`values`: adapter_config.json at `where`. Raises ValueError that names a field and its value."""
    for field, only in _ONLY.items():
        if values.get(field, only) != only:
            raise ValueError(f"{where}: {field}={values[field]!r} is not implemented; allowed is {only!r}")
    for field in _EMPTY:
        if values.get(field):
            raise ValueError(f"{where}: {field}={values[field]!r} is not implemented; allowed is null or false")
    if (start := values.get("init_lora_weights", True)) not in _STARTS:  # others change the base weights as they load
        raise ValueError(f"{where}: init_lora_weights={start!r} is not implemented; allowed are {_STARTS}")
    rank, alpha, dropout = (_number(values, field, where) for field in ("r", "lora_alpha", "lora_dropout"))
    if rank < 1 or rank != int(rank) or dropout >= 1:
        raise ValueError(f"{where}: r={rank}, lora_dropout={dropout}: allowed are whole r from 1, dropout below 1")
    return AdapterConfig(name, int(rank), alpha, dropout)


def _number(values: Mapping[str, Any], field: str, where: Path) -> float:
    value = values.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
        raise ValueError(f"{where}: {field}={value!r}: a number from 0 on is needed")
    return float(value)


def written(adapter: AdapterConfig) -> dict[str, Any]:
    """adapter_config.json."""
    alpha = int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": adapter.rank,
        "lora_alpha": alpha,
        "lora_dropout": adapter.dropout,
        "bias": "none",
        "target_modules": TARGETS,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
