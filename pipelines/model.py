"""The model pipeline: a checkpoint of transformers becomes a version, and a version a model again.

What its shards are, and how they are loaded, `stages.models.model_versions` says. Which data made a model is in its
sources. It has no records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import file_sha256
from gristmill.lake.versions.form import Form
from gristmill.lake.versions.manifest import Draft, InputFile, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.hf import sidecars as hf_sidecars
from gristmill.model.processing.text import Tokenizer
from gristmill.pipelines.frame.recipe import BuildContext, PipelineConfig, Recipe, Resolved
from gristmill.pipelines.settings.config import BadConfig, Run
from gristmill.stages.models.model_versions import load_model, model_statistics, put_model, put_tokenizer

_IMPORT = StageId(name="import_hf", version=3, config={})  # 3: format 3 of the shape
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
        """The folder."""
        return {"recipe.folder": (self.folder,) if self.folder else ()}

    def resolve(self, versions: Versions, suppression: str) -> Resolved:
        """Raises BadConfig where there is no checkpoint."""
        checkpoint = Checkpoint(self.folder)
        digests = checkpoint.digests
        return Resolved({"files": digests}, (_IMPORT,), checkpoint.build, files=tuple(digests.values()))


class ModelRunConfig(PipelineConfig):
    """`conf/model.yaml`."""

    pipeline: str = "model"
    recipe: ModelRecipe = ModelRecipe()
    run: Run = Run()


@dataclass(frozen=True)
class Checkpoint:
    """The files of a folder that decide a model."""

    address: str

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies."""
        return Path(self.address)

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Raises BadConfig where there is no checkpoint, or an adapter that has no place beside it."""
        from gristmill.model.hf import adapters as hf_adapters

        if not self.address:
            raise BadConfig("recipe.folder is empty: give the folder of a checkpoint")
        files = {path for pattern in _READ for path in self.folder.glob(pattern)}
        if self.folder / "config.json" not in files:
            raise BadConfig(f"recipe.folder: {self.folder} has no config.json: give the folder of a checkpoint")
        try:
            places = hf_adapters.find(self.folder).values()
        except (OSError, ValueError) as error:
            raise BadConfig(f"recipe.folder: {error}") from error
        for place in places:
            for name in _ADAPTER:
                files.update(place.glob(name))
        return tuple(sorted(files))

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of each file, by its path within the folder. Raises BadConfig for one that cannot be read."""
        try:
            return {str(path.relative_to(self.folder)): file_sha256(path) for path in self.files}
        except OSError as error:
            raise BadConfig(f"recipe.folder: {error}") from error

    def build(self, run: BuildContext) -> Draft:
        """Raises BadConfig for a checkpoint that cannot be read."""
        from gristmill.model.hf.checkpoint import load_hf

        run.runner.about_to("import", str(self.folder), run.stages)
        try:
            sidecars = hf_sidecars.read(self.folder)
            model = load_hf(self.folder)
            tokenizer = self._tokenizer(model.config.text.vocab_size)
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
            received=zero,
            kept=zero,
            dropped=zero,
            quarantined=zero,
            statistics=model_statistics(model),
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


def export_hf(store: Store, name: str, folder: Path, merged: str | None = None) -> Manifest:
    """Writes a version as transformers and peft load it, with its card. `merged`: the adapter that becomes part of the
    language model's weights; the others are left out. Raises as `load_model`, and ValueError for an adapter that the
    model does not have, a folder with anything in it, and a model that transformers cannot express."""
    from gristmill.model.assembly.adapters import merged_alone
    from gristmill.model.assembly.stand_ins import add_stand_ins
    from gristmill.model.hf.checkpoint import save_hf
    from gristmill.pipelines.training.model_card import Written, model_card

    loaded = load_model(store, name)
    if merged is not None:
        try:
            merged_alone(loaded.model, merged)
        except ValueError as error:
            raise ValueError(f"{loaded.manifest}: nothing to merge: {error}") from error
    stand_ins = add_stand_ins(loaded.model)
    card = model_card(loaded.manifest, Versions(store), Written(merged, stand_ins))
    save_hf(loaded.model, folder, card=card, tokenizer=loaded.tokenizer_json, sidecars=loaded.sidecars)
    return loaded.manifest
