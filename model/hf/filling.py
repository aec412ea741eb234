"""A model of stored tensors: compared by their headers first, so that a wrong file is refused before a weight is read.

The model has no memory until each tensor goes to its place as it is read: loading takes the memory of a single copy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from gristmill.model.hf import adapters as hf_adapters
from gristmill.model.hf import names as hf_names
from gristmill.model.hf.tensor_files import Stored
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal

_LISTED = 20  # tensors that an error lists


def filled(
    config: ModelConfig,
    stored: Mapping[str, Stored],
    dtype: torch.dtype | None,
    device: torch.device | str,
    may_lack: bool = False,
) -> Multimodal:
    """A model in evaluation, of stored tensors by our names; `dtype` None: each as stored.

    `may_lack`: zeros for what checkpoints of others leave out. Raises ValueError that lists what is missing, has no
    place, or has another shape.
    """
    layers = config.text.num_hidden_layers
    layers += config.vision.num_hidden_layers if config.vision is not None else 0
    layers += config.audio.num_blocks if config.audio is not None else 0
    if layers > len(stored):  # before a model of as many is built
        raise ValueError(f"the config has {layers} layers, the files {len(stored)} tensors")
    # Sizes of a hostile config cost nothing on the meta device; torch refuses the impossible ones in its own words.
    try:
        with torch.device("meta"):
            model = Multimodal(config)
    except (RuntimeError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"no model has the sizes of this config: {error}") from error
    wanted = model.state_dict()
    lacking = _lacking(config, wanted, stored) if may_lack else {}
    _check(wanted, stored, lacking)
    for name in wanted:
        if name in stored:
            value = stored[name].read(dtype, device)
        else:
            value = torch.zeros(wanted[name].shape, dtype=dtype or lacking[name], device=device)
        _assign(model, name, value)
    return model.eval()


def _lacking(config: ModelConfig, wanted: Iterable[str], stored: Mapping[str, Stored]) -> dict[str, torch.dtype]:
    """What may be zero because nothing is stored of it, and the type of what it belongs to: the end of the vision
    encoder, and linears that an adapter leaves alone. An adapter of zeros adds nothing, and training leaves it so."""
    kinds: dict[str, torch.dtype] = {}
    patches = stored.get("vision_encoder.embeddings.patch_embedding.weight")
    if patches is not None:
        kinds |= {name: patches.dtype for name in wanted if name not in stored and hf_names.is_unused(name, config)}
    for adapter in config.adapters:
        present: list[str] = []
        absent: list[str] = []  # of linears that are not adapted at all: half of a pair of matrices is missing
        for names in hf_names.linears_of(adapter.name, wanted).values():
            here = [name for name in names if name in stored]
            present += here
            absent += names if not here else []
        if present:
            kinds |= dict.fromkeys(absent, stored[present[0]].dtype)
    return kinds


def _check(wanted: Mapping[str, Tensor], stored: Mapping[str, Stored], lacking: Collection[str]) -> None:
    if unexpected := [f"{tensor.key} in {tensor.path}" for name, tensor in stored.items() if name not in wanted]:
        raise ValueError(f"tensors that this model has no place for: {_listed(unexpected)}{_outside(stored, wanted)}")
    if missing := [f"{name} ({hf_names.to_hf(name)})" for name in wanted if name not in stored and name not in lacking]:
        raise ValueError(f"tensors missing, of {len(wanted)}: {_listed(missing)}")
    for name, tensor in stored.items():
        if tensor.shape != (needed := tuple(wanted[name].shape)):
            raise ValueError(
                f"{tensor.path}: {tensor.key} is {list(tensor.shape)}; by the config {list(needed)} is needed"
            )


def _outside(stored: Mapping[str, Stored], wanted: Collection[str]) -> str:
    """What to do about an adapter that adapts more than we have adapters for."""
    foreign = [tensor for name, tensor in stored.items() if name not in wanted and ".lora_" in tensor.key]
    if not foreign:
        return ""
    return (
        "; adapters go with the decoder's qkv_proj, o_proj, gate_up_proj and down_proj alone, and their bare names are "
        f"those of other linears too: train with target_modules={hf_adapters.TARGETS!r}"
    )


def _listed(names: list[str]) -> str:
    """Names for an error, those that differ in numbers alone as one entry."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    entries = [f"{first} and {len(others)} alike" if others else first for first, *others in alike.values()]
    more = f" and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
    return ", ".join(entries[:_LISTED]) + more


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    """Puts `value` itself in the place of a parameter or buffer, which stays trainable or not."""
    # Not `copy_`: what stands there is on the meta device and has no memory to copy into.
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    before = getattr(module, leaf)
    new = nn.Parameter(value, before.requires_grad) if isinstance(before, nn.Parameter) else value
    setattr(module, leaf, new)
