"""Checkpoints on disk: a folder in transformers' format, adapters in peft's beside it; and files by part, for the lake.

Only safetensors: nothing that is read can run. What a folder holds is compared with what the model needs by its headers
alone, so that a wrong one is refused before a weight is read; then each tensor goes to its place as it is read, into a
model that had no memory until then. A folder is written beside its place and renamed: it is whole, or it is not there.
Source: spec of the format by transformers 5.23 `save_pretrained` and peft 0.21.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import hf_adapters, hf_config, hf_names, tensor_files
from model.config import ModelConfig
from model.multimodal import Multimodal
from model.parts import Part, tensors_of
from model.tensor_files import Stored

Device = torch.device | str

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_LISTED = 20  # tensors that an error lists


def load_hf(folder: Path | str, *, dtype: torch.dtype | None = None, device: Device = "cpu") -> Multimodal:
    """The model of a folder as transformers writes it, with the adapters of `vision-lora/` and `speech-lora/` if there.

    `dtype` None: each tensor as stored. Raises ValueError that names the file and what is wrong with it. In evaluation
    mode. What the vision encoder never uses may be missing, and is zero then.
    """
    folder = Path(folder)
    files = _weight_files(folder)
    adapters = {name: hf_adapters.folder_of(folder, name) for name in hf_adapters.names_in(folder)}
    read = (hf_adapters.read(name, _json(at / hf_adapters.CONFIG), at) for name, at in adapters.items())
    values = _json(folder / "config.json")
    if (generation := folder / "generation_config.json").is_file() and (eos := _json(generation).get("eos_token_id")):
        values["eos_token_id"] = eos  # generation goes by this file, and config.json often has one of several
    config = hf_config.from_hf(values, tuple(read))
    stored = [(hf_names.from_hf(one.key), one) for file in files for one in tensor_files.contents(file)]
    for name, at in adapters.items():
        file = _needed(at / hf_adapters.WEIGHTS)
        stored += [(hf_names.from_peft(one.key, name), one) for one in tensor_files.contents(file)]
    found = tensor_files.by_name(stored)
    head = found.pop(hf_names.from_hf(hf_names.HEAD), None) if config.text.tied else None
    model = _filled(config, found, dtype, device, may_lack=True)
    if head is not None and not torch.equal(head.read(dtype, device), model.language.embed_tokens.weight):
        raise ValueError(
            f"{head.path}: {head.key} is not the embedding, and config.json says tie_word_embeddings: "
            "set that to false, or leave the tensor out"
        )
    return model


def save_hf(
    model: Multimodal,
    folder: Path | str,
    *,
    shard_bytes: int = 5_000_000_000,
    card: str | None = None,
    tokenizer: bytes | None = None,
) -> None:
    """Writes a new folder that transformers' `from_pretrained`, peft's `load_adapter` and `load_hf` read.

    `shard_bytes`: of weights in a file; `card`: README.md; `tokenizer`: a tokenizer.json. Same model, same bytes.
    Raises ValueError if the folder has something in it, or transformers cannot express the config.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: name a new one, or remove it first")
    dtype = str(model.language.embed_tokens.weight.dtype).removeprefix("torch.")
    values = hf_config.to_hf(model.config, dtype)
    with _renamed_when_whole(folder) as new:
        _write_json(new / "config.json", values)
        _write_json(new / "generation_config.json", hf_config.generation_config(model.config))
        _write_weights(model, new, shard_bytes)
        _write_adapters(model, new)
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")
        if tokenizer is not None:
            (new / "tokenizer.json").write_bytes(tokenizer)
            _write_json(new / "tokenizer_config.json", _tokenizer_config(model.config, tokenizer))


def part_files(model: Multimodal, part: Part, folder: Path, shard_bytes: int = 1 << 30) -> list[Path]:
    """Writes `part` as `<part>-00000.safetensors` and so on, under our names: what two versions share is the same bytes
    in both. -> The files, in order; none if the model has no such part. Overwrites files of these names."""
    tensors = tensors_of(model, part)
    written = tensor_files.write(tensors, folder, lambda number, _: f"{part}-{number:05d}.safetensors", shard_bytes)
    return [folder / name for name in dict.fromkeys(written.values())]


def load_parts(
    config: ModelConfig, files: Iterable[Path], *, dtype: torch.dtype | None = None, device: Device = "cpu"
) -> Multimodal:
    """The model of files that `part_files` wrote, of all its parts; as `load_hf`, but nothing may lack."""
    stored = ((one.key, one) for file in files for one in tensor_files.contents(file))
    return _filled(config, tensor_files.by_name(stored), dtype, device)


def _filled(
    config: ModelConfig,
    found: Mapping[str, Stored],
    dtype: torch.dtype | None,
    device: Device,
    may_lack: bool = False,
) -> Multimodal:
    """A model of stored tensors by our names. `may_lack`: zeros where `hf_names.is_unused`."""
    layers = config.text.layers + sum(one.layers for one in (config.vision, config.audio) if one is not None)
    if layers > len(found):  # before a model of as many is built
        raise ValueError(f"the config has {layers} layers, the files {len(found)} tensors")
    try:
        with torch.device("meta"):
            model = Multimodal(config)
    except (RuntimeError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"no model has the sizes of this config: {error}") from error
    wanted = model.state_dict()
    unused = {name for name in wanted if may_lack and hf_names.is_unused(name, config)}
    _check(wanted, found, unused)
    for name in wanted:
        if name in found:
            value = found[name].read(dtype, device)
        else:  # the encoder's first weight is in its place by now
            stored = model.get_parameter("vision_encoder.embeddings.patch_embedding.weight").dtype
            value = torch.zeros(wanted[name].shape, dtype=stored, device=device)
        _assign(model, name, value)
    return model.eval()


def _check(wanted: Mapping[str, Tensor], found: Mapping[str, Stored], unused: set[str]) -> None:
    if unexpected := [f"{one.key} in {one.path}" for name, one in found.items() if name not in wanted]:
        raise ValueError(f"tensors that this model has no place for: {_listed(unexpected)}")
    if missing := [f"{name} ({hf_names.to_hf(name)})" for name in wanted if name not in found and name not in unused]:
        raise ValueError(f"tensors missing, of {len(wanted)}: {_listed(missing)}")
    for name, one in found.items():
        if one.shape != (needed := tuple(wanted[name].shape)):
            raise ValueError(f"{one.path}: {one.key} is {list(one.shape)}; by the config {list(needed)} is needed")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    """Puts `value` itself in the place of a parameter or buffer, which stays trainable or not."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    before = getattr(module, leaf)
    new = nn.Parameter(value, before.requires_grad) if isinstance(before, nn.Parameter) else value
    setattr(module, leaf, new)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).exists():  # transformers too prefers it to an index
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        return [_needed(folder / WEIGHTS)]
    index = folder / INDEX
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{index}: weight_map={places!r}: needed is the file of each tensor")
    files = {}
    for name in sorted(set(map(str, places.values()))):
        if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
            raise ValueError(f"{index}: weight_map names {name!r}; allowed are .safetensors files of its own folder")
        files[name] = _needed(folder / name)
    stored = {one.key: name for name, file in files.items() for one in tensor_files.contents(file)}
    if wrong := sorted(key for key in {*stored, *places} if stored.get(key) != places.get(key)):
        key = wrong[0]
        raise ValueError(f"{index}: {key} should be in {places.get(key)}, and is in {stored.get(key)}; fetch it again")
    return list(files.values())


def _needed(file: Path) -> Path:
    """Raises ValueError if it is not there; says so if what is there is pickled."""
    if file.is_file():
        return file
    pickled = sorted(one.name for one in file.parent.glob("*.bin"))
    hint = f" ({', '.join(pickled)} is not read: unpickling runs code; convert it to safetensors)" if pickled else ""
    raise ValueError(f"{file} is missing{hint}")


def _json(file: Path) -> dict[str, Any]:
    content = _needed(file).read_bytes()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: holds {type(values).__name__}; an object of fields is needed")
    return values


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_weights(model: Multimodal, folder: Path, shard_bytes: int) -> None:
    tensors = {hf_names.to_hf(name): one for name, one in model.state_dict().items() if not hf_names.is_adapter(name)}
    places = tensor_files.write(tensors, folder, _weights_name, shard_bytes)
    if set(places.values()) != {WEIGHTS}:
        total = {"total_size": tensor_files.size(tensors.values())}
        _write_json(folder / INDEX, {"metadata": total, "weight_map": places})


def _weights_name(number: int, count: int) -> str:
    return WEIGHTS if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _write_adapters(model: Multimodal, folder: Path) -> None:
    for adapter in model.config.adapters:
        at = hf_adapters.folder_of(folder, adapter.name)
        at.mkdir()
        _write_json(at / hf_adapters.CONFIG, hf_adapters.written(adapter))
        tensors = {
            hf_names.to_hf(name): one
            for name, one in model.state_dict().items()
            if f".adapters.{adapter.name}." in name
        }
        tensor_files.write(
            tensors, at, lambda _number, _count: hf_adapters.WEIGHTS, tensor_files.size(tensors.values())
        )


def _tokenizer_config(config: ModelConfig, tokenizer: bytes) -> dict[str, Any]:
    """What transformers' AutoTokenizer and Phi4MultimodalProcessor need beside a tokenizer.json."""
    names = {one["id"]: one["content"] for one in json.loads(tokenizer).get("added_tokens") or []}
    text = config.text
    values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text.rope.max_positions}
    ids = {"bos_token": text.bos, "eos_token": text.eos[0] if text.eos else None, "pad_token": text.pad}
    values |= {role: names[token] for role, token in ids.items() if token in names}
    parts = {"image_token": config.vision, "audio_token": config.audio}
    extra = {role: names[part.token] for role, part in parts.items() if part is not None and part.token in names}
    return {**values, "extra_special_tokens": extra} if extra else values


@contextmanager
def _renamed_when_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which becomes it at the end, or is gone again after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    new.mkdir()
    try:
        yield new
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new)
        raise
