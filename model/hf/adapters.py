"""The folders of adapters beside a checkpoint, such as `vision-lora/`, as peft reads and writes them.

Only plain LoRA: whatever else peft can put in adapter_config.json changes what the matrices mean, and is refused by
name. Which linears are adapted is checked by the tensors, not by the pattern, which may be written in many ways.
Source: peft 0.21, `LoraConfig`; the hub's adapter_config.json of Phi-4-multimodal-instruct.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.model.hf.fields import shown
from gristmill.model.phi4.config import LoraConfig
from gristmill.model.phi4.parts import ADAPTERS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"
"""Anchored at the decoder: the bare names of its linears are those of the audio encoder's too."""

_PLACES = ", ".join(f"{name}-lora" for name in ADAPTERS)

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
    """Where `save_hf` writes an adapter."""
    return checkpoint / f"{name}-lora"


def find(checkpoint: Path) -> dict[str, Path]:
    """The folder of each adapter beside a model: `vision-lora/` as released, or as peft's `save_pretrained` names it:
    `vision/`, or that within the former. Raises ValueError for an adapter that has no place here."""
    if _is_adapter(checkpoint):
        raise ValueError(
            f"{checkpoint / CONFIG}: an adapter in the model's own folder has no name here: move its two files to "
            f"{_PLACES}, or merge it into the model first (peft: merge_and_unload)"
        )
    places: dict[str, Path] = {}
    for folder in _folders(checkpoint):
        inner = [child for child in _folders(folder) if _is_adapter(child)]
        if not (inner or _is_adapter(folder) or folder.name.endswith("-lora")):
            continue
        name = folder.name.removesuffix("-lora")
        if name not in ADAPTERS:
            raise ValueError(f"{folder}: not a known adapter; allowed are {_PLACES}: rename it, or move it away")
        own = [folder] if _is_adapter(folder) or not inner else []
        for place in (*own, *inner):
            if place in inner and place.name.removesuffix("-lora") not in (name, "default"):
                raise ValueError(f"{place}: not the adapter {name}: rename it to {folder / name}, or move it away")
            if (other := places.setdefault(name, place)) != place:
                raise ValueError(f"the adapter {name} is there twice, in {other} and in {place}: move one away")
    return {name: places[name] for name in ADAPTERS if name in places}


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _is_adapter(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (CONFIG, WEIGHTS, _PICKLED))


def read(name: str, values: Mapping[str, Any], where: Path) -> LoraConfig:
    """`values`: adapter_config.json at `where`. Raises ValueError that names a field and its value."""
    for field, only in _ONLY.items():
        if values.get(field, only) != only:
            raise ValueError(f"{where}: {field}={shown(values[field])} is not implemented; allowed is {only!r}")
    for field in _EMPTY:
        if values.get(field):
            raise ValueError(f"{where}: {field}={shown(values[field])} is not implemented; allowed is null or false")
    if (start := values.get("init_lora_weights", True)) not in _STARTS:  # others change the base weights as they load
        raise ValueError(f"{where}: init_lora_weights={shown(start)} is not implemented; allowed are {_STARTS}")
    return plain(name, values, str(where))


def plain(name: str, values: Mapping[str, Any], where: str) -> LoraConfig:
    """From the three numbers of a LoRA."""
    rank, alpha, dropout = (_number(values, field, where) for field in ("r", "lora_alpha", "lora_dropout"))
    if rank < 1 or rank != int(rank) or dropout >= 1:
        raise ValueError(f"{where}: r={rank}, lora_dropout={dropout}: allowed are whole r from 1, dropout below 1")
    return LoraConfig(name, int(rank), alpha, dropout)


def _number(values: Mapping[str, Any], field: str, where: str) -> float:
    value = values.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
        raise ValueError(f"{where}: {field}={shown(value)}: a number from 0 on is needed")
    return float(value)


def written(adapter: LoraConfig, targets: str | list[str] = TARGETS) -> dict[str, Any]:
    """adapter_config.json; `targets`: a pattern, or names of linears."""
    alpha = int(adapter.lora_alpha) if adapter.lora_alpha == int(adapter.lora_alpha) else adapter.lora_alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": adapter.r,
        "lora_alpha": alpha,
        "lora_dropout": adapter.lora_dropout,
        "bias": "none",
        "target_modules": targets,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
