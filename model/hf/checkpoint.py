"""Checkpoints on disk: a folder in transformers' format, adapters in peft's beside it; and files by part, for the lake.

Only safetensors: nothing that is read can run. What a folder holds is compared with what the model needs by its headers
alone, so that a wrong one is refused before a weight is read; then each tensor goes to its place as it is read, into a
model that had no memory until then. A folder is written beside its place and renamed: it is whole, or it is not there.
Source: spec of the format by transformers 5.23 `save_pretrained` and peft 0.21.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gristmill.model.hf import adapters as hf_adapters
from gristmill.model.hf import config as hf_config
from gristmill.model.hf import folder as hf_folder
from gristmill.model.hf import names as hf_names
from gristmill.model.hf import phi4mm, tensor_files
from gristmill.model.hf import sidecars as hf_sidecars
from gristmill.model.hf.filling import filled
from gristmill.model.hf.folder import INDEX, WEIGHTS
from gristmill.model.hf.json_files import json_object, needed
from gristmill.model.hf.tensor_files import Stored
from gristmill.model.phi4.config import LoraConfig, ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import ADAPTERS, Part, tensors_of

Device = torch.device | str

_LOG = logging.getLogger("gristmill.model")


def load_hf(folder: Path | str, *, dtype: torch.dtype | None = None, device: Device = "cpu") -> Multimodal:
    """The model of a folder as transformers writes it, or as the hub has Phi-4-multimodal (`model.hf.phi4mm`), with the
    adapters beside it (`model.hf.adapters`).

    `dtype` None: each tensor as stored. Raises ValueError that names the file and what is wrong with it. In evaluation
    mode. What the vision encoder never uses may be missing, and linears that an adapter leaves alone: zero then.
    """
    folder = Path(folder)
    stored, values = hf_folder.tensors(folder), hf_folder.config_values(folder)
    hub = values.get("model_type") == phi4mm.KIND
    own_name = phi4mm.from_hub if hub else hf_names.from_hf
    named = tensor_files.by_name((own_name(tensor.key), tensor) for tensor in stored)
    shapes = {name: tensor.shape for name, tensor in named.items()}
    inline = {name for name in ADAPTERS if hub and phi4mm.is_inline(name, shapes)}
    adapters, copies = [], dict[str, Stored]()
    for name, place in hf_adapters.find(folder).items():
        adapters.append(hf_adapters.read(name, json_object(place / hf_adapters.CONFIG), place))
        beside = tensor_files.contents(needed(place / hf_adapters.WEIGHTS))
        adapted = tensor_files.by_name((hf_names.from_peft(tensor.key, name), tensor) for tensor in beside)
        # The hub's own code reads what is inline; a folder beside it is a copy, and is only compared with that.
        (copies if name in inline else named).update(adapted)
    config = phi4mm.config(values, shapes, adapters) if hub else hf_config.from_hf(values, tuple(adapters))
    head = _tied_head(named) if config.text.tie_word_embeddings else None
    model = filled(config, named, dtype, device, may_lack=True)
    if head is not None and not _equal(head.read(dtype, device), model.language.embed_tokens.weight):
        raise ValueError(
            f"{head.path}: {head.key} is not the embedding, and config.json says tie_word_embeddings: "
            "set that to false, or leave the tensor out"
        )
    _compare(model, adapters, copies, dtype, device)
    return model


def _tied_head(named: dict[str, Stored]) -> Stored | None:
    """Takes a head out that is stored beside the embedding that it should be; alone, it is the embedding."""
    head = named.pop(hf_names.from_hf(hf_names.HEAD), None)
    if head is not None and named.setdefault("language.embed_tokens.weight", head) is head:
        return None
    return head


def _compare(
    model: Multimodal,
    folders: Iterable[LoraConfig],
    copies: Mapping[str, Stored],
    dtype: torch.dtype | None,
    device: Device,
) -> None:
    """The hub has its adapters twice: inline, which its own code reads, and in folders, for others. Says so where the
    folder's is another."""
    own = dict(model.named_parameters())
    differing: Counter[Path] = Counter()
    for name, copy in copies.items():
        if name not in own or not _equal(own[name], copy.read(dtype, device)):
            differing[copy.path] += 1
    for path, count in sorted(differing.items()):
        _LOG.warning("%s: %s of its tensors differ from the model's own files, which are taken", path, count)
    for adapter in folders:
        taken = next((inline for inline in model.config.adapters if inline.name == adapter.name), adapter)
        if taken != adapter:
            _LOG.warning("%s-lora: %s; by config.json it is %s, which is taken", adapter.name, adapter, taken)


def _equal(a: Tensor, b: Tensor) -> bool:
    """In value, whatever types they are stored in."""
    wide = torch.promote_types(a.dtype, b.dtype)
    return torch.equal(a.to(wide), b.to(wide))


def save_hf(
    model: Multimodal,
    folder: Path | str,
    *,
    shard_bytes: int = 5_000_000_000,
    card: str | None = None,
    tokenizer: bytes | None = None,
    sidecars: Mapping[str, str] | None = None,
) -> None:
    """Writes a new folder that transformers' `from_pretrained`, peft's `load_adapter` and `load_hf` read.

    `shard_bytes`: of weights in a file; `card`: README.md; `tokenizer`: a tokenizer.json; `sidecars`: what
    `hf_sidecars.read` found beside the weights, chat template and all. Same model, same bytes.
    Raises ValueError if the folder has something in it, or transformers cannot express the config.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: name a new one, or remove it first")
    # transformers knows one type for a model: the embedding's. Each tensor is written as it is, whatever that says.
    dtype = str(model.language.embed_tokens.weight.dtype).removeprefix("torch.")
    values = hf_config.to_hf(model.config, dtype)
    with _renamed_when_whole(folder) as new:
        _write_json(new / "config.json", values)
        _write_weights(model, new, shard_bytes)
        _write_adapters(model, new)
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")
        if tokenizer is not None:
            (new / "tokenizer.json").write_bytes(tokenizer)
        hf_sidecars.write(new, model.config, tokenizer, sidecars or {})


def part_files(model: nn.Module, part: Part, folder: Path, shard_bytes: int = 1 << 30) -> list[Path]:
    """Writes `part` as `<part>-00000.safetensors` and so on, under our names: what two versions share is the same bytes
    in both. -> The files, in order; none if the model has no such part. Overwrites files of these names."""
    tensors = tensors_of(model, part)
    written = tensor_files.write(tensors, folder, lambda number, _: f"{part}-{number:05d}.safetensors", shard_bytes)
    return [folder / name for name in dict.fromkeys(written.values())]


def load_parts(
    config: ModelConfig, files: Iterable[Path], *, dtype: torch.dtype | None = None, device: Device = "cpu"
) -> Multimodal:
    """The model of files that `part_files` wrote, of all its parts; as `load_hf`, but nothing may lack."""
    stored = ((tensor.key, tensor) for file in files for tensor in tensor_files.contents(file))
    return filled(config, tensor_files.by_name(stored), dtype, device)


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(hf_sidecars.as_json(values), encoding="utf-8")


def _write_weights(model: Multimodal, folder: Path, shard_bytes: int) -> None:
    own = model.state_dict()
    tensors = {hf_names.to_hf(name): tensor for name, tensor in own.items() if not hf_names.is_adapter(name)}
    places = tensor_files.write(tensors, folder, _weights_name, shard_bytes)
    if set(places.values()) != {WEIGHTS}:
        total = {"total_size": tensor_files.size(tensors.values())}
        _write_json(folder / INDEX, {"metadata": total, "weight_map": places})


def _weights_name(number: int, count: int) -> str:
    return WEIGHTS if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _write_adapters(model: Multimodal, folder: Path) -> None:
    tensors = model.state_dict()
    for adapter in model.config.adapters:
        place = hf_adapters.folder_of(folder, adapter.name)
        place.mkdir()
        linears = hf_names.linears_of(adapter.name, tensors)
        adapted = [linear for linear, names in linears.items() if _not_zero(tensors[name] for name in names)]
        targets: str | list[str] = sorted(adapted)
        if len(adapted) in (0, len(linears)):  # else those that it leaves alone came as nothing, and go so
            adapted, targets = list(linears), hf_adapters.TARGETS
        _write_json(place / hf_adapters.CONFIG, hf_adapters.written(adapter, targets))
        named: dict[str, Tensor] = {}
        for linear in adapted:
            named |= {hf_names.to_hf(name): tensors[name] for name in linears[linear]}
        tensor_files.write(named, place, lambda _number, _count: hf_adapters.WEIGHTS, tensor_files.size(named.values()))


def _not_zero(tensors: Iterable[Tensor]) -> bool:
    """Whether any number in any of them is not 0."""
    return any(bool(tensor.any()) for tensor in tensors)


@contextmanager
def _renamed_when_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which becomes it at the end, or is gone again after an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and beside its place: a rename within a folder is atomic, and who lists it takes it for no checkpoint.
    new = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    new.mkdir()
    try:
        yield new
        os.rename(new, folder)
    except BaseException:
        shutil.rmtree(new)
        raise
