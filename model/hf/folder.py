"""A checkpoint's folder before any weight is read: its JSON files, its index, the tensors that its headers list.

What transformers would load is taken, whatever an index says besides: a tied head that is nowhere stored, buffers that
older releases kept. What would be lost is named. Nothing is unpickled, and files lie in the folder itself.
Source: transformers 5.23, `from_pretrained`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gristmill.model.hf import names as hf_names
from gristmill.model.hf import tensor_files
from gristmill.model.hf.fields import shown
from gristmill.model.hf.json_files import json_object, needed
from gristmill.model.hf.sidecars import GENERATION
from gristmill.model.hf.tensor_files import Stored

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = "config.json"


def config_values(folder: Path) -> dict[str, Any]:
    """config.json, with the end tokens of generation_config.json: generation goes by that file, and config.json often
    has one of several."""
    values = json_object(folder / CONFIG)
    if (generation := folder / GENERATION).is_file():
        eos = json_object(generation).get("eos_token_id")
        if eos is not None:
            values["eos_token_id"] = eos
    return values


def tensors(folder: Path) -> list[Stored]:
    """Of the model's files, by their headers. Raises ValueError that names a file and what is wrong with it."""
    if (folder / WEIGHTS).exists():  # transformers too prefers it to an index
        return tensor_files.contents(needed(folder / WEIGHTS), hf_names.is_computed)
    if not (folder / INDEX).exists():
        needed(folder / WEIGHTS)
    index = folder / INDEX
    places = json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index}: weight_map={shown(places)}: needed is the file of each tensor")
    stored: list[Stored] = []
    for name in sorted(set(map(str, places.values()))):
        if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index}: weight_map names {shown(name)}; allowed are .safetensors files of its own folder"
            )
        stored += tensor_files.contents(needed(folder / name), hf_names.is_computed)
    listed = {key: place for key, place in places.items() if not hf_names.is_computed(key)}
    held = {tensor.key: tensor.path.name for tensor in stored}
    # A head that is the embedding is often listed and not stored. If it is none, it is missing, and called so later.
    wrong = (key for key in {*held, *listed} - {hf_names.HEAD} if held.get(key) != listed.get(key))
    if (key := min(wrong, default=None)) is not None:
        should, does = listed.get(key, "no file"), held.get(key, "no file")
        raise ValueError(f"{index}: {key} should be in {should}, and is in {does}; fetch the checkpoint again")
    return stored
