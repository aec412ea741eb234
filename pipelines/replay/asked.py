"""Which settings a replay asks for, and whether stored measures can answer them.

Measure and rule of a filter are apart (filters/base.py), so that other thresholds are other verdicts on the same
measures. What changes a measure itself, what a version did not measure, and what is no filter's setting is refused, all
of it at once and each with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gristmill.filters.base import Filter
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.recipes import settings_that_differ
from gristmill.pipelines.frame.chunk_steps import Screening
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.steps import ExactDuplicates
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import BadConfig, override, validate
from gristmill.stages.text.screen import Screen

_PIPELINE_OF: Mapping[str, str] = MappingProxyType(
    {"documents": "web", "samples": "instruct", "images": "vision", "audio": "speech"}
)
"""Form of a version -> the pipeline with filters that makes such."""
_NOT_OF_A_CONFIG = ("suppression", "forget")
"""Keys that a manifest's recipe has beside those of the config."""


@dataclass(frozen=True)
class Asked:
    """The filters of a version, in the order in which they decide: `screens` as it was made, and for each of them the
    same filters as they are asked for (None: switched off). `settings`: (dotted key, before, after). `only_exact`:
    whether nothing but exact duplicates is dropped behind the filters."""

    screens: tuple[Screen[Any], ...]
    after: tuple[tuple[Filter[Any] | None, ...], ...]
    settings: tuple[tuple[str, Any, Any], ...]
    only_exact: bool


def asked_of(version: Manifest, settings: Sequence[str]) -> Asked:
    """What `settings` (`recipe.a.b=value`) ask of a version, laid over the recipe that it was made with.

    Raises BadConfig, a line for each setting that cannot be replayed.
    """
    if not settings:
        raise BadConfig("--set: give a filter's setting, such as recipe.gopher_quality.min_words=80")
    name = _PIPELINE_OF.get(version.form)
    if name is None:
        raise BadConfig(
            f"{version}: no filter's measures are stored of {version.form}; they are of {', '.join(_PIPELINE_OF)}"
        )
    before = _config(name, version)
    dumped = before.model_dump(mode="json")
    after = validate(PIPELINES[name], override(dumped, settings))
    changes = settings_that_differ(dumped, after.model_dump(mode="json"))
    recipe, asked = _records(before), _records(after)
    if problems := [*_refused(recipe, asked, changes), *_other_versions(version, recipe)]:
        raise BadConfig("\n".join(dict.fromkeys(problems)))
    keys = {value.name: key for key, value in _filters(recipe)}
    steps = recipe.flow.steps
    screens = tuple(step.screen for step in steps if isinstance(step, Screening))
    after_filters = tuple(tuple(getattr(asked, keys[own.name]) for own in screen.filters) for screen in screens)
    only_exact = all(isinstance(step, Screening | ExactDuplicates) for step in steps)
    return Asked(screens, after_filters, changes, only_exact)


def _config(name: str, version: Manifest) -> PipelineConfig:
    """The config whose recipe a version was made with; what its identity leaves out (addresses) is the default."""
    stored = {key: value for key, value in version.recipe.items() if key not in _NOT_OF_A_CONFIG}
    try:
        return validate(PIPELINES[name], {"pipeline": name, "recipe": stored})
    except BadConfig as error:
        raise BadConfig(f"{version} was made with a recipe that this release does not read: {error}") from error


def _records(config: PipelineConfig) -> RecordRecipe:
    assert isinstance(config.recipe, RecordRecipe), f"{config.pipeline} is no pipeline over records"
    return config.recipe


def _filters(recipe: RecordRecipe) -> Iterator[tuple[str, Filter[Any]]]:
    """(key, filter) of a recipe, in the order of its keys."""
    for key in type(recipe).model_fields:
        value = getattr(recipe, key)
        if isinstance(value, Filter):
            yield key, value


def _refused(recipe: RecordRecipe, asked: RecordRecipe, changes: Sequence[tuple[str, Any, Any]]) -> Iterator[str]:
    """A line for each change that stored measures do not answer. `changes`: their keys begin with `recipe`."""
    filters = dict(_filters(recipe))
    for dotted, _, _ in changes:
        section, _, rest = dotted.partition(".")
        key = rest.split(".")[0]
        now = getattr(asked, key, None) if section == "recipe" else None
        if key in filters and section == "recipe":
            if rest in recipe.decides_reading:
                yield _read(rest, recipe.decides_reading[rest])
            elif now is not None:
                yield from (_measured(f"recipe.{key}.{name}") for name in filters[key].unmeasured(now))
        elif isinstance(now, Filter):
            yield f"recipe.{key}: it was off, so that nothing was measured for it; run the pipeline with it"
        else:
            yield (
                f"{dotted}: only settings of the filters are replayed ({', '.join(filters)}); run the pipeline with it"
            )


def _read(key: str, because: str) -> str:
    return (
        f"recipe.{key}: with recipe.{because} it decides which records are read, and of those that were not nothing was"
        " measured; run the pipeline with it"
    )


def _measured(key: str) -> str:
    return f"{key}: it decides what is measured, so that stored measures say nothing of it; run the pipeline with it"


def _other_versions(version: Manifest, recipe: RecordRecipe) -> Iterator[str]:
    """A line for each filter whose measures or rules are of another release."""
    made_with = {stage.name: stage.version for stage in version.stages}
    for key, value in _filters(recipe):
        was = made_with.get(value.name)
        if was != value.VERSION:
            yield (
                f"recipe.{key}: {version} was judged by VERSION {was} of {value.name}, this release has"
                f" {value.VERSION}; run the pipeline again"
            )
