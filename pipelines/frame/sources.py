"""Sources: the exact versions that a pipeline is made from, instead of input files.

A recipe names them as `web@v3` or by a tag, which is never moved; `web` alone would mean another version tomorrow. What
was withdrawn, or is a preview of a few records, is refused.

A trained classifier that a filter names is a source too, in the role `classifier`: it is looked up before a run, and
counts by its bytes. One in a file is none; every worker has to be able to read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from gristmill.filters.classify.filter import ModelFilter
from gristmill.filters.classify.windows import Windows
from gristmill.lake.query.query import resolve_usable
from gristmill.lake.versions.manifest import InputFile, Manifest, VersionRef
from gristmill.lake.versions.versions import NoSuchVersion, Versions, check_name
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.mix.tokenize import text_shards

CLASSIFIER = "classifier"
"""In which a model stands among the sources of what it judged: no record of what it was trained on goes there."""
M = TypeVar("M", bound=BaseModel)


def exact(versions: Versions, ref: str, key: str) -> Manifest:
    """The version that `ref` names. Raises BadConfig, which begins with `key`."""
    name, at, which = ref.partition("@")
    try:
        check_name(name)
    except ValueError as error:
        raise BadConfig(f"{key}: {ref!r}: {error}") from None
    if not at or which in ("", "latest"):
        latest = versions.latest(name)
        now = f"; today that would be {name}@v{latest}" if latest else ""
        raise BadConfig(f"{key}: {ref!r} is no exact version: give NAME@vN or NAME@TAG{now}")
    if name.endswith(".limit"):
        raise BadConfig(f"{key}: {ref} is a preview of a few records, and nothing is built on it; run without a limit")
    try:
        return resolve_usable(versions, ref)
    except (NoSuchVersion, ValueError) as error:
        raise BadConfig(f"{key}: {error}") from error


def check_texts(source: Manifest, key: str) -> bool:
    """Whether a version has samples, with images or without, not documents. Raises BadConfig, which begins with `key`,
    if it has neither."""
    try:
        text_shards(source)
    except ValueError as error:
        raise BadConfig(f"{key}: {source}: {error}") from error
    return source.form != "documents"


def check_alike(sources: Sequence[Manifest]) -> None:
    """Raises BadConfig for pairs, or samples with advantages, beside anything else: a stage of training has one loss
    for all segments of its windows."""
    compared = [source for source in sources if source.form in ("preferences", "graded")]
    if not compared:
        return
    first = compared[0]
    if other := next((source for source in sources if source.form != first.form), None):
        raise BadConfig(
            f"recipe.sources: {first} holds {first.layout.called} and {other} {other.layout.called}: a stage of"
            " training compares the one and learns the other, so make a mixture of each"
        )


def tokenizer_version(versions: Versions, ref: str) -> Manifest:
    """The version of a tokenizer that `recipe.tokenizer` names. Raises BadConfig."""
    if not ref:
        raise BadConfig("recipe.tokenizer is empty: give an exact version, e.g. bpe@v1 (`grist tokenizer` makes one)")
    manifest = exact(versions, ref, "recipe.tokenizer")
    if manifest.form != "tokenizer":
        raise BadConfig(f"recipe.tokenizer: {manifest} is no tokenizer; `grist tokenizer train` or `add` makes one")
    return manifest


def check_apart(sources: Mapping[str, Manifest]) -> None:
    """Raises BadConfig for sources that share shards: a record has one fate."""
    holders: dict[str, str] = {}
    for name, manifest in sources.items():
        for ref in manifest.shards:
            other = holders.setdefault(ref.sha256, name)
            if other != name:
                raise BadConfig(
                    f"recipe.sources: {other} and {name} share shards, so that a record would be counted twice: give"
                    " one of them, and raise its weight and max_epochs for more of it"
                )


def as_inputs(source: Manifest) -> tuple[InputFile, ...]:
    """A version's shards as the inputs of what is made from it: by content, named for people."""
    return tuple(
        InputFile(digest=ref.sha256, bytes=ref.bytes, records=ref.records, names=(f"{source} shard {number}",))
        for number, ref in enumerate(source.shards)
    )


def classifiers_of(recipe: BaseModel) -> Iterator[tuple[str, ModelFilter]]:
    """(key, filter) of each that a recipe has, in the order of its keys."""
    for name in type(recipe).model_fields:
        if isinstance(value := getattr(recipe, name), ModelFilter):
            yield name, value


def with_classifiers(recipe: M, versions: Versions) -> M:
    """The recipe with the digest of every model, and the windows that a version was trained with.

    Raises BadConfig for a model that cannot be used.
    """
    return recipe.model_copy(
        update={name: _looked_up(f"recipe.{name}", value, versions) for name, value in classifiers_of(recipe)}
    )


def _looked_up(key: str, classifier: ModelFilter, versions: Versions) -> ModelFilter:
    if not classifier.is_version:
        try:
            classifier.check()
            return replace(classifier, sha256=classifier.model_digest())
        except (OSError, ValueError, RuntimeError) as error:
            raise BadConfig(f"{key}.model: {error}") from error
    manifest = classifier_version(versions, classifier.model, f"{key}.model")
    sha256 = manifest.shards[0].sha256
    if classifier.sha256 not in (None, sha256):
        raise BadConfig(f"{key}.sha256: {manifest} has {sha256}, not {classifier.sha256}")
    windows = classifier.windows or Windows(**manifest.recipe["windows"])
    return replace(classifier, sha256=sha256, windows=windows)


def classifier_version(versions: Versions, ref: str, key: str) -> Manifest:
    """The version of a classifier. Raises BadConfig, which begins with `key`."""
    manifest = exact(versions, ref, key)
    if manifest.form != "classifier":
        called = manifest.layout.called
        raise BadConfig(f"{key}: {manifest} holds {called}, no classifier; `grist classifier train` makes one")
    return manifest


def classifier_refs(recipe: BaseModel, versions: Versions) -> tuple[VersionRef, ...]:
    """The versions that judge, as sources; each once. Raises BadConfig."""
    named = {
        value.model: classifier_version(versions, value.model, f"recipe.{name}.model")
        for name, value in classifiers_of(recipe)
        if value.is_version
    }
    return tuple(manifest.ref.model_copy(update={"role": CLASSIFIER}) for manifest in named.values())


def named_by_digest(recipe: BaseModel, identity: dict[str, Any]) -> dict[str, Any]:
    """A recipe's identity without the names of its models, whose digests it has."""
    for name, value in classifiers_of(recipe):
        identity[name] = {key: kept for key, kept in identity[name].items() if key != "model"}
        identity[name]["sha256"] = value.model_digest()
    return identity
