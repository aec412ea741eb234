"""Models as versions of the lake: stored part by part, loaded bit for bit, every file's digest checked.

Shards are safetensors files of one part each, so that two versions share the bytes of a part that was frozen between
them; then the shape (`model.hf.shape`) and the tokenizer. Whatever makes or uses a model (import, training, generation,
serving) stores and loads it here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.lake.query.query import resolve_usable
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, copy_object, put_file, read_object, scratch
from gristmill.lake.versions.form import FORMS
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.hf.shape import Shape
from gristmill.model.phi4.config import DTYPES, ModelConfig
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.processing.text import Tokenizer

if TYPE_CHECKING:  # torch takes seconds to import, and a pipeline without a model needs none
    import torch

    from gristmill.model.phi4.multimodal import Multimodal

WEIGHTS, SHAPE, TOKENIZER = "weights", "model", "tokenizer"
"""Kinds of shards: safetensors of one part, `model.hf.shape.Shape` as JSON, a tokenizer.json."""


@dataclass(frozen=True)
class LoadedModel:
    """A model of a version, in evaluation mode; its tokenizer.json, None if it has none; what lay beside its weights,
    by file name (`model.hf.sidecars`)."""

    manifest: Manifest
    model: Multimodal
    tokenizer_json: bytes | None
    sidecars: Mapping[str, str]

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the version, built when it is first asked for."""
        return None if self.tokenizer_json is None else Tokenizer.from_bytes(self.tokenizer_json)


def put_model(store: Store, model: Multimodal, sidecars: Mapping[str, str] | None = None) -> tuple[ObjectRef, ...]:
    """Stores the weights part by part, and the shape with the files beside them. -> Shards for a manifest, in the order
    of parts, the shape last; a weights shard's range of keys is that of its tensors' names."""
    from gristmill.model.phi4.parts import counts

    weights = [ref for part in counts(model) for ref in put_part(store, model, part)]
    return (*weights, put_shape(store, model.config, sidecars or {}))


def put_tokenizer(store: Store, data: bytes | None) -> Iterator[ObjectRef]:
    """Stores a tokenizer.json, if there is one; the shard counts its ids as records."""
    if data is not None:
        with scratch() as folder:  # a copy: a store may move what it is given
            path = folder / "tokenizer.json"
            path.write_bytes(data)
            yield put_file(store, TOKENIZER, path, Tokenizer.from_bytes(data).vocab_size)


def model_statistics(model: Multimodal) -> dict[str, Any]:
    """For a manifest: numbers of parameters, in all and by part, and the type that the language model is stored in."""
    from gristmill.model.phi4.parts import counts

    parts = {str(part): count for part, count in counts(model).items()}
    dtype = str(model.language.norm.weight.dtype).removeprefix("torch.")
    return {"parameters": sum(parts.values()), "parts": parts, "dtype": dtype}


def part_shards(manifest: Manifest) -> dict[Part, tuple[ObjectRef, ...]]:
    """The weights of a model version by part, each part's in order. Raises LookupError for a version that is no model,
    ValueError for weights of no part."""
    if manifest.form != "model":
        raise LookupError(f"{manifest} is no model: it holds {FORMS[manifest.form].called}")
    parts: dict[Part, tuple[ObjectRef, ...]] = {}
    for ref in manifest.shards:
        if ref.kind == WEIGHTS:
            part = part_of(ref.first)  # the name of its first tensor: a shard has tensors of one part
            parts[part] = (*parts.get(part, ()), ref)
    return parts


def shape_of(store: Store, manifest: Manifest) -> Shape:
    """The shape of a model version. Raises LookupError for a version that is none, ValueError for a later format."""
    refs = [ref for ref in manifest.shards if ref.kind == SHAPE]
    if not refs:
        raise LookupError(f"{manifest} is no model: it holds {FORMS[manifest.form].called}")
    try:
        return Shape.from_json(read_object(store, refs[0]))
    except ValueError as error:
        raise ValueError(f"{manifest}: {error}") from error


def tokenizer_shard(manifest: Manifest) -> ObjectRef | None:
    """The tokenizer.json of a model or tokenizer version; None: it has none."""
    return next((ref for ref in manifest.shards if ref.kind == TOKENIZER), None)


def put_part(store: Store, model: Multimodal, part: Part) -> tuple[ObjectRef, ...]:
    """Stores the weights of a part, as `put_model` does."""
    from safetensors import safe_open

    from gristmill.model.hf.checkpoint import part_files

    refs: list[ObjectRef] = []
    with scratch() as folder:  # a store may move files
        for path in part_files(model, part, folder):
            with safe_open(path, "pt") as file:
                names = sorted(file.keys())
            refs.append(put_file(store, WEIGHTS, path, len(names), first=names[0], last=names[-1]))
    return tuple(refs)


def put_shape(store: Store, config: ModelConfig, sidecars: Mapping[str, str]) -> ObjectRef:
    """Stores the shape of a model, with the files that lay beside its weights."""
    with scratch() as folder:
        path = folder / "model.json"
        path.write_text(Shape(config, sidecars).to_json())
        return put_file(store, SHAPE, path, 1)


def load_model(store: Store, name: str, *, dtype: str | None = None, device: str = "cpu") -> LoadedModel:
    """A version such as `model@v1`. `dtype` as torch names it ("bfloat16"); None: each tensor as stored.

    Raises NoSuchVersion, LookupError for a version that is no model, DamagedObject for a file whose digest is another,
    ValueError for a dtype that is none, or a format of a later release.
    """
    from gristmill.model.hf.checkpoint import load_parts

    manifest = resolve_usable(Versions(store), name)
    shape = shape_of(store, manifest)
    weights = [ref for ref in manifest.shards if ref.kind == WEIGHTS]
    torch_dtype = None if dtype is None else _torch_dtype(dtype)
    with scratch() as folder:
        files = [fetched(store, ref, folder) for ref in weights]
        model = load_parts(shape.config, files, dtype=torch_dtype, device=device).eval()
    tokenizer = tokenizer_shard(manifest)
    tokenizer_json = None if tokenizer is None else read_object(store, tokenizer)
    return LoadedModel(manifest, model, tokenizer_json, shape.sidecars)


def _torch_dtype(name: str) -> torch.dtype:
    """Raises ValueError for a name that is none of DTYPES."""
    import torch

    if name not in DTYPES:
        raise ValueError(f"dtype={name!r}: allowed are {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def fetched(store: Store, ref: ObjectRef, folder: Path) -> Path:
    """A safetensors object as a file of the folder, its digest checked. Raises DamagedObject, NotFound."""
    target = folder / f"{ref.sha256}.safetensors"
    copy_object(store, ref, target)
    return target
