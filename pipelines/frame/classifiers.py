"""Trained classifiers that a recipe's filters name: looked up before a run, by their bytes in its identity.

A model is a version of the lake (`grist classifier train`), which becomes a source of what it judged, in the role
`classifier`; or a fastText file, which every worker has to be able to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel

from gristmill.filters.classify.filter import ModelFilter
from gristmill.filters.classify.windows import Windows
from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.sources import exact
from gristmill.pipelines.settings.config import BadConfig

ROLE = "classifier"
"""In which a model stands among the sources of what it judged: no record of what it was trained on goes there."""
M = TypeVar("M", bound=BaseModel)


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
    return tuple(manifest.ref.model_copy(update={"role": ROLE}) for manifest in named.values())


def named_by_digest(recipe: BaseModel, identity: dict[str, Any]) -> dict[str, Any]:
    """A recipe's identity without the names of its models, whose digests it has."""
    for name, value in classifiers_of(recipe):
        identity[name] = {key: kept for key, kept in identity[name].items() if key != "model"}
        identity[name]["sha256"] = value.model_digest()
    return identity
