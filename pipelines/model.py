"""The model pipeline: a checkpoint of transformers becomes a version, and a version a model again.

Its shards are safetensors files, each of one part, then the shape and the tokenizer: two versions that share a frozen
part share its bytes. Which data made a model is in its sources. It has no records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from lake.balance import Tally
from lake.form import Form
from lake.manifest import Draft, InputFile, Manifest
from lake.objects import ObjectRef, copy_object, file_sha256, put_file, read_object, scratch
from lake.query import resolve_usable
from lake.receipt import StageId
from lake.store import Store
from lake.versions import Versions
from model import hf_sidecars
from model.config import DTYPES, ModelConfig
from model.processing.text import Tokenizer
from pipelines.config import BadConfig, Run
from pipelines.recipe import BuildContext, PipelineConfig, Recipe, Resolved

if TYPE_CHECKING:  # torch takes seconds to import, and `grist run` of a crawl needs none
    from model.multimodal import Multimodal

WEIGHTS, SHAPE, TOKENIZER = "weights", "model", "tokenizer"
"""Kinds of shards: safetensors of one part, `ModelConfig` as JSON, a tokenizer.json."""

FORMAT = 2
"""Of the shape: since 2 it has the files that lay beside the weights."""
_FORMATS = (1, FORMAT)
_IMPORT = StageId(name="import_hf", version=2, config={})
_READ = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json", *hf_sidecars.PATTERNS)
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


class ModelRecipe(Recipe):
    """`folder`: a checkpoint in transformers' format (`phi3`, `phi4_multimodal`) or the hub's own (`phi4mm`), a local
    path."""

    form: ClassVar[Form] = "model"

    dataset: str = "model"
    folder: str = ""

    @model_validator(mode="after")
    def _whole(self) -> ModelRecipe:
        if self.limit is not None:
            raise ValueError(f"limit: {self.limit}: a model has no records; leave it out")
        return self

    def addresses(self) -> Mapping[str, Sequence[str]]:
        return {"recipe.folder": (self.folder,) if self.folder else ()}

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        checkpoint = Checkpoint(self.folder)
        digests = checkpoint.digests
        return Resolved({"files": digests}, (_IMPORT,), checkpoint.build, files=tuple(digests.values()))


class ModelRunConfig(PipelineConfig):
    pipeline: str = "model"
    recipe: ModelRecipe = ModelRecipe()
    run: Run = Run()


@dataclass(frozen=True)
class Checkpoint:
    """The files of a folder that decide a model."""

    address: str

    @property
    def folder(self) -> Path:
        return Path(self.address)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Raises BadConfig where there is no checkpoint, or an adapter that has no place beside it."""
        from model import hf_adapters

        if not self.address:
            raise BadConfig("recipe.folder is empty: give the folder of a checkpoint")
        files = {path for pattern in _READ for path in self.folder.glob(pattern)}
        if self.folder / "config.json" not in files:
            raise BadConfig(f"recipe.folder: {self.folder} has no config.json: give the folder of a checkpoint")
        try:
            places = hf_adapters.find(self.folder).values()
        except (OSError, ValueError) as error:
            raise BadConfig(f"recipe.folder: {error}") from error
        return tuple(sorted(files.union(path for place in places for name in _ADAPTER for path in place.glob(name))))

    @cached_property
    def digests(self) -> dict[str, str]:
        try:
            return {str(path.relative_to(self.folder)): file_sha256(path) for path in self.files}
        except OSError as error:
            raise BadConfig(f"recipe.folder: {error}") from error

    def build(self, run: BuildContext) -> Draft:
        """Raises BadConfig for a checkpoint that cannot be read."""
        from model.checkpoint import load_hf

        run.runner.about_to("import", str(self.folder), run.stages)
        try:
            sidecars = hf_sidecars.read(self.folder)
            model = load_hf(self.folder)
            tokenizer = self._tokenizer(model.config.text.vocab)
        except (OSError, ValueError) as error:
            raise BadConfig(f"recipe.folder: {error}") from error
        shards = (*put_model(run.runner.store, model, sidecars), *put_tokenizer(run.runner.store, tokenizer))
        inputs = [
            InputFile(digest=self.digests[name], bytes=(self.folder / name).stat().st_size, records=0, names=(name,))
            for name in self.digests
        ]
        zero = Tally()
        return Draft(
            dataset=run.dataset,
            form=run.form,
            run_key=run.key,
            inputs=tuple(inputs),
            recipe=run.resolved.identity,
            stages=run.stages,
            shards=shards,
            came_in=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
            statistics=figures(model),
        )

    def _tokenizer(self, vocab: int) -> bytes | None:
        path = self.folder / "tokenizer.json"
        if path not in self.files:
            return None
        data = path.read_bytes()
        try:
            Tokenizer.from_bytes(data).check_fits(vocab)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return data


def put_model(store: Store, model: Multimodal, sidecars: Mapping[str, str] | None = None) -> tuple[ObjectRef, ...]:
    """Stores the weights, part by part, and the shape, with the files beside them (`model.hf_sidecars`). A shard's
    range is that of its tensors' names."""
    from safetensors import safe_open

    from model.checkpoint import part_files
    from model.parts import counts

    refs = []
    for part in counts(model):
        with scratch() as folder:
            for path in part_files(model, part, folder):
                with safe_open(path, "pt") as file:
                    names = sorted(file.keys())
                refs.append(put_file(store, WEIGHTS, path, len(names), first=names[0], last=names[-1]))
    with scratch() as folder:
        path = folder / "model.json"
        shape = {"format": FORMAT, "config": model.config.to_dict(), "sidecars": dict(sidecars or {})}
        path.write_text(json.dumps(shape, indent=1, sort_keys=True))
        return (*refs, put_file(store, SHAPE, path, 1))


def put_tokenizer(store: Store, data: bytes | None) -> Iterator[ObjectRef]:
    """Stores a tokenizer.json, if there is one."""
    if data is not None:
        with scratch() as folder:  # a copy: a store may move what it is given
            path = folder / "tokenizer.json"
            path.write_bytes(data)
            yield put_file(store, TOKENIZER, path, Tokenizer.from_bytes(data).vocab_size)


def figures(model: Multimodal) -> dict[str, Any]:
    """Parameters, in all and by part, and the type that they are stored in."""
    from model.parts import counts

    parts = {str(part): n for part, n in counts(model).items()}
    dtype = str(model.language.norm.weight.dtype).removeprefix("torch.")
    return {"parameters": sum(parts.values()), "parts": parts, "dtype": dtype}


@dataclass(frozen=True)
class Loaded:
    """A model of a version, in evaluation, its tokenizer if it has one, and what lay beside its weights."""

    manifest: Manifest
    model: Multimodal
    tokenizer_json: bytes | None
    sidecars: Mapping[str, str] = field(default_factory=dict)

    @property
    def tokenizer(self) -> Tokenizer | None:
        return None if self.tokenizer_json is None else Tokenizer.from_bytes(self.tokenizer_json)


def load_model(store: Store, name: str, *, dtype: str | None = None, device: str = "cpu") -> Loaded:
    """A version such as `model@v1`. `dtype` as torch names it; None: as stored. Every file's digest is checked.

    Raises NoSuchVersion, LookupError for a version that is no model, DamagedObject, ValueError.
    """
    import torch

    from model.checkpoint import load_parts

    manifest = resolve_usable(Versions(store), name)
    kinds: dict[str, list[ObjectRef]] = {}
    for ref in manifest.shards:
        kinds.setdefault(ref.kind, []).append(ref)
    if SHAPE not in kinds or WEIGHTS not in kinds:
        raise LookupError(f"{manifest} is no model: its shards are {', '.join(sorted(kinds)) or 'none'}")
    if dtype not in (None, *DTYPES):
        raise ValueError(f"dtype={dtype!r}: allowed are {', '.join(DTYPES)}")
    wanted = None if dtype is None else getattr(torch, dtype)
    shape = json.loads(read_object(store, kinds[SHAPE][0]))
    if shape["format"] not in _FORMATS:
        raise ValueError(f"{manifest}: its shape has format {shape['format']}, this release reads up to {FORMAT}")
    with scratch() as folder:
        files = [_fetched(store, ref, folder) for ref in kinds[WEIGHTS]]
        model = load_parts(ModelConfig.from_dict(shape["config"]), files, dtype=wanted, device=device).eval()
    words = kinds.get(TOKENIZER)
    tokenizer = read_object(store, words[0]) if words else None
    return Loaded(manifest, model, tokenizer, shape.get("sidecars", {}))


def _fetched(store: Store, ref: ObjectRef, folder: Path) -> Path:
    target = folder / f"{ref.sha256}.safetensors"
    copy_object(store, ref, target)
    return target


def export_hf(store: Store, name: str, folder: Path) -> Manifest:
    """Writes a version as transformers and peft load it, with its card. Raises as `load_model`, FileExistsError for a
    folder with anything in it, and ValueError for a model that transformers has no class for."""
    from model.checkpoint import save_hf
    from pipelines.model_card import model_card

    loaded = load_model(store, name)
    card = model_card(loaded.manifest, Versions(store))
    save_hf(loaded.model, folder, card=card, tokenizer=loaded.tokenizer_json, sidecars=loaded.sidecars)
    return loaded.manifest
