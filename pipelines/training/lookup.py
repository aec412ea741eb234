"""What a stage of a training recipe names, looked up: versions, shapes and digests, and whether they fit each other.

All of a recipe's stages are looked up before the first one starts: what an earlier stage will make is known as far as
its shape, and whose parts it has. So a chain of weeks does not fail in its third stage over a name. Every error names
the field of the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gristmill.filters.overlap import Overlap
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.assembly.fits import DataFacts, check
from gristmill.model.assembly.shapes import differing, of_stage, parts_of
from gristmill.model.hf.shape import Shape
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.parts import ADAPTERS, Part
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.train.stage import Origin, TrainStage, steps_of
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.training.data import data_facts, held_out
from gristmill.pipelines.training.spec import STAGE, StageSpec
from gristmill.stages.mix.windows import shard_files
from gristmill.stages.models.model_versions import part_shards, shape_of, tokenizer_shard
from gristmill.stages.reference.compare import Comparison
from gristmill.stages.start.works import Beginning
from gristmill.stages.train.job import TrainInput
from gristmill.stages.train.result import part_digest


@dataclass(frozen=True)
class ModelParts:
    """A model as far as a stage takes parts from it: a version, or what an earlier stage will make.

    `digests`: of its parts, `bases`: of the language model that each of its adapters was trained upon; both say only
    whether two are the same. `manifest`: None before it is made.
    """

    name: str
    shape: Shape
    digests: Mapping[Part, str]
    bases: Mapping[Part, str]
    tokenizer: ObjectRef | None
    manifest: Manifest | None = None

    @classmethod
    def of(cls, versions: Versions, manifest: Manifest, key: str) -> ModelParts:
        """Of a version. Raises BadConfig, which begins with `key`, for one that is no model."""
        try:
            shards, shape = part_shards(manifest), shape_of(versions.store, manifest)
        except (LookupError, ValueError) as error:
            raise BadConfig(f"{key}: {error}") from error
        digests = {part: part_digest(refs) for part, refs in shards.items()}
        recorded = manifest.statistics.get("bases", {})
        bases = {part: recorded.get(part, digests[Part.LANGUAGE]) for part in digests if part in ADAPTERS.values()}
        return cls(str(manifest), shape, digests, bases, tokenizer_shard(manifest), manifest)


@dataclass(frozen=True)
class Whole:
    """The model that a recipe is about: its shape and tokenizer. `tokenizer_version`: whence the tokenizer, if it is a
    version that is given out."""

    shape: Shape
    tokenizer: ObjectRef
    tokenizer_version: VersionRef | None

    @classmethod
    def of(cls, model: str, tokenizer: str, versions: Versions) -> Whole:
        """`model`, `tokenizer`: as a recipe has them. Raises BadConfig."""
        own: ObjectRef | None = None
        version: VersionRef | None = None
        if model in PRESETS:
            shape = Shape(PRESETS[model])
        elif "@" in model:
            manifest = exact(versions, model, "recipe.model")
            parts = ModelParts.of(versions, manifest, "recipe.model")
            shape, own = parts.shape, parts.tokenizer
            version = _given_out(versions, (ref for ref in manifest.sources if ref.role == "tokenizer"))
        else:
            presets = ", ".join(PRESETS)
            raise BadConfig(f"recipe.model: {model!r}: allowed are {presets}, or an exact version of a model")
        if tokenizer:
            manifest = exact(versions, tokenizer, "recipe.tokenizer")
            own, version = tokenizer_shard(manifest), manifest.ref
            if own is None:
                raise BadConfig(f"recipe.tokenizer: {manifest} has no tokenizer; it holds {manifest.layout.called}")
        if own is None:
            raise BadConfig(
                f"recipe.tokenizer is empty, and recipe.model={model} has none: give an exact version, as in bpe@v1"
            )
        return cls(shape, own, version)


@dataclass(frozen=True)
class StageLookup:
    """A stage with all that it names. `stage`: with exact versions and its length in steps or tokens; `taken`: by part
    the model that it comes from; `copies`: of the parts that start as a copy of another part of it, which. `base`: the
    model that a policy is held to, where the stage names it."""

    stage: TrainStage
    config: ModelConfig
    whole: Whole
    mixture: Manifest
    facts: DataFacts
    held_out: tuple[Manifest, ...]
    overlap: Overlap
    taken: Mapping[Part, ModelParts]
    copies: Mapping[Part, Part]
    base: ModelParts | None = None

    @classmethod
    def of(
        cls, spec: StageSpec, number: int, whole: Whole, versions: Versions, results: Mapping[str, ModelParts]
    ) -> StageLookup:
        """A stage by its number, from 0. `results`: what the stages before it made or will make, by name. Raises
        BadConfig."""
        key = f"recipe.stages.{number}"
        mixture = exact(versions, spec.data, f"{key}.data")
        facts = data_facts(versions, mixture, whole.tokenizer, whole.tokenizer_version, f"{key}.data")
        held = tuple(held_out(versions, name, f"{key}.held_out") for name in spec.held_out)
        origins = {part: Origin.of(part, ref) for part, ref in spec.init_from.items()}
        taken = {
            part: _source(origin, versions, results, f"{key}.init_from.{part}") for part, origin in origins.items()
        }
        copies = {part: origin.part for part, origin in origins.items() if origin.part != part}
        names = {
            part: f"{source.name}/{copies[part]}" if part in copies else source.name for part, source in taken.items()
        }
        origin = Origin.of(Part.LANGUAGE, spec.reference)
        base = _source(origin, versions, results, f"{key}.reference") if spec.reference else None
        stage = spec.resolved(names, facts.tokens, "" if base is None else base.name)
        config = of_stage(whole.shape.config, taken, stage.trainable)
        for part, source in taken.items():
            _check_fits(part, source, config, whole.tokenizer, f"{key}.init_from.{part}")
        _check_bases(taken, stage, key)
        if base is not None:
            _check_base(base, config, whole.tokenizer, f"{key}.reference")
        try:
            check(stage, config, whole.tokenizer.sha256, facts)
        except ValueError as error:
            raise BadConfig(f"{key}.{error}") from error
        return cls(stage, config, whole, mixture, facts, held, spec.overlap, taken, copies, base)

    @property
    def steps(self) -> int:
        """How many the stage has."""
        return steps_of(self.stage, self.facts.windows, self.facts.tokens)

    @property
    def bases(self) -> tuple[Manifest, ...]:
        """The models that it starts from, each once. Raises AssertionError before they are made."""
        manifests: dict[str, Manifest] = {}
        for part in sorted(self.taken):
            manifest = self.taken[part].manifest
            assert manifest is not None, "the stages before it are done"
            manifests[str(manifest)] = manifest
        return tuple(manifests.values())

    @property
    def sources(self) -> tuple[VersionRef, ...]:
        """The versions that the result is made from, each with its role. Raises AssertionError before they are made."""
        refs = [self.mixture.ref.model_copy(update={"role": "trained_on"})]
        for part in sorted(self.taken):
            manifest = self.taken[part].manifest
            assert manifest is not None, "the stages before it are done"
            refs.append(manifest.ref.model_copy(update={"role": f"init_from.{part}"}))
        if self.whole.tokenizer_version is not None:
            refs.append(self.whole.tokenizer_version.model_copy(update={"role": "tokenizer"}))
        if self.base is not None:
            assert self.base.manifest is not None, "the stages before it are done"
            refs.append(self.base.manifest.ref.model_copy(update={"role": "reference"}))
        refs += [manifest.ref.model_copy(update={"role": "held_out"}) for manifest in self.held_out]
        return tuple(refs)

    @property
    def sidecars(self) -> Mapping[str, str]:
        """What lies beside the weights: as beside those of the language model that it starts from."""
        language = self.taken.get(Part.LANGUAGE)
        return self.whole.shape.sidecars if language is None else language.shape.sidecars

    @property
    def beginning(self) -> Beginning:
        """What is made before the stage starts."""
        hears = Part.AUDIO_ENCODER in self.stage.trainable - set(self.taken) and "mel" in self.facts.arrays
        return Beginning(self.copies, hears)

    @property
    def comparison(self) -> Comparison:
        """What is asked of models before the stage is trained, where its loss compares. Raises AssertionError before
        the stages before it are done."""
        parts: dict[Part, tuple[ObjectRef, ...]] | None = None
        if self.base is not None:
            assert self.base.manifest is not None, "the stages before it are done"
            stored = part_shards(self.base.manifest)
            parts = {part: stored[part] for part in parts_of(self.config)}
        return Comparison(self.stage, self.config, self.mixture, parts)

    def given(self, dataset: str) -> TrainInput:
        """Pointers to all that the stage starts from, but what is made before it (`beginning`). Raises AssertionError
        before it is made."""
        parts: dict[Part, tuple[ObjectRef, ...]] = {}
        for part, source in self.taken.items():
            assert source.manifest is not None, "the stages before it are done"
            parts[part] = part_shards(source.manifest)[self.copies.get(part, part)]
        windows = tuple(shard_files(self.mixture))
        return TrainInput(dataset, self.steps, windows, parts, self.whole.tokenizer, dict(self.sidecars))

    def result(self) -> ModelParts:
        """The model that the stage will make, as far as it is known before."""
        name = f"{STAGE}{self.stage.name}"
        digests = {part: source.digests[self.copies.get(part, part)] for part, source in self.taken.items()}
        digests |= {part: f"{name}.{part}" for part in self.stage.trainable | (parts_of(self.config) - set(self.taken))}
        return ModelParts(
            name=name,
            shape=Shape(self.config, self.sidecars),
            digests=digests,
            bases={part: digests[Part.LANGUAGE] for part in digests if part in ADAPTERS.values()},
            tokenizer=self.whole.tokenizer,
        )


def _given_out(versions: Versions, refs: Iterable[VersionRef]) -> VersionRef | None:
    """The first of these that was not withdrawn."""
    return next((ref for ref in refs if ref.version not in versions.withdrawn(ref.dataset)), None)


def _source(origin: Origin, versions: Versions, results: Mapping[str, ModelParts], key: str) -> ModelParts:
    """The model that a part comes from. Raises BadConfig for one without the part."""
    name, part = origin
    if name.startswith(STAGE):
        source = results[name.removeprefix(STAGE)]  # that it is an earlier one, the recipe has checked
    else:
        source = ModelParts.of(versions, exact(versions, name, key), key)
    if part not in source.digests:
        raise BadConfig(f"{key}: {source.name} has no {part}; it has {', '.join(sorted(source.digests))}")
    return source


def _check_fits(part: Part, source: ModelParts, config: ModelConfig, tokenizer: ObjectRef, key: str) -> None:
    """Raises BadConfig for a part of another shape, or one that learned another vocabulary."""
    if differences := list(differing(part, source.shape.config, config)):
        raise BadConfig(f"{key}: {source.name} does not fit recipe.model: {'; '.join(differences[:3])}")
    if source.tokenizer is not None and source.tokenizer.sha256 != tokenizer.sha256:
        raise BadConfig(
            f"{key}: the tokenizer of {source.name} is {source.tokenizer.sha256[:12]}, that of the recipe"
            f" {tokenizer.sha256[:12]}: give recipe.tokenizer the version that {source.name} was trained with"
        )


def _check_base(base: ModelParts, config: ModelConfig, tokenizer: ObjectRef, key: str) -> None:
    """Raises BadConfig for a model that a policy of this shape cannot be held to."""
    for part in sorted(parts_of(config)):
        if part not in base.digests:
            raise BadConfig(f"{key}: {base.name} has no {part}; it has {', '.join(sorted(base.digests))}")
        _check_fits(part, base, config, tokenizer, key)


def _check_bases(taken: Mapping[Part, ModelParts], stage: TrainStage, key: str) -> None:
    """Raises BadConfig for an adapter whose language model is another, or would become another."""
    for part in sorted(set(taken) & set(ADAPTERS.values())):
        source, language = taken[part], taken.get(Part.LANGUAGE)
        field = f"{key}.init_from.{part}"
        if Part.LANGUAGE in stage.trainable:
            raise BadConfig(
                f"{field}: {source.name}: the adapter belongs to the language model that it was trained upon, and this"
                " stage trains that. Leave it out: the branch that trains language has adapters of its own"
            )
        if language is not None and language.digests[Part.LANGUAGE] != source.bases[part]:
            raise BadConfig(
                f"{field}: the adapter of {source.name} was trained upon another language model (digest"
                f" {source.bases[part][:12]}) than that of {language.name} ({language.digests[Part.LANGUAGE][:12]}):"
                " take both from one branch"
            )
