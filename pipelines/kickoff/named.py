"""Which versions a recipe names, by key, and what each may hold: known before any of them is there.

So a graph is refused before its first node starts, where a mixture has no tokenizer or a stage would be trained on a
model. What a version turns out to be is looked at again by the pipeline itself. A recipe that names versions has a
function here; one over input files names none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import singledispatch
from typing import NamedTuple

from gristmill.lake.versions.form import FORMS, Form, Layout
from gristmill.lake.versions.markers import is_exact
from gristmill.model.train.stage import Origin
from gristmill.pipelines.evaluate import EvaluateRecipe
from gristmill.pipelines.frame.recipe import Recipe
from gristmill.pipelines.frame.records import RecordRecipe
from gristmill.pipelines.frame.sources import classifiers_of
from gristmill.pipelines.mixture import MixtureRecipe
from gristmill.pipelines.reason.reasoning import Asking
from gristmill.pipelines.tokenizer import TokenizerRecipe
from gristmill.pipelines.train import TrainRecipe
from gristmill.pipelines.training.classifier import SIDES, ClassifierRecipe
from gristmill.pipelines.training.spec import STAGE, StageSpec
from gristmill.pipelines.vision import VisionRecipe


class Named(NamedTuple):
    """A version under a key. `ref` is empty where there has to be one, and is not. `fits`: whether it can be used."""

    key: str
    ref: str
    fits: Callable[[Layout], bool]
    wanted: str


def _holds(form: Form) -> tuple[Callable[[Layout], bool], str]:
    layout = FORMS[form]
    return lambda other: other is layout, layout.called


_TEXTS = (lambda layout: layout.shown == "texts", "records with texts")
_ANYTHING = (lambda layout: True, "anything")
_TOKENIZER, _MODEL, _WINDOWS, _IMAGES = _holds("tokenizer"), _holds("model"), _holds("windows"), _holds("images")
_CLASSIFIER = _holds("classifier")
_BRINGS_TOKENIZER = (
    lambda layout: layout in (FORMS["tokenizer"], FORMS["model"]),
    "a tokenizer, or a model that brings one",
)


@singledispatch
def named(recipe: Recipe) -> Iterator[Named]:
    """Every version that the recipe names."""
    yield from ()


@named.register
def _(recipe: VisionRecipe) -> Iterator[Named]:
    against = () if recipe.decontaminate is None else recipe.decontaminate.against
    yield from (Named("recipe.decontaminate.against", ref, *_IMAGES) for ref in against)


@named.register
def _(recipe: TokenizerRecipe) -> Iterator[Named]:
    if recipe.file is None:
        yield from (Named("recipe.sources", ref, *_TEXTS) for ref in recipe.sources or ("",))


@named.register
def _(recipe: ClassifierRecipe) -> Iterator[Named]:
    for side in SIDES:
        yield from (Named(f"recipe.{side}", ref, *_TEXTS) for ref in getattr(recipe, side) if is_exact(ref))


@named.register
def _(recipe: RecordRecipe) -> Iterator[Named]:
    judges = ((name, value.model) for name, value in classifiers_of(recipe) if value.is_version)
    yield from (Named(f"recipe.{name}.model", model, *_CLASSIFIER) for name, model in judges)


@named.register
def _(recipe: MixtureRecipe) -> Iterator[Named]:
    yield Named("recipe.tokenizer", recipe.tokenizer, *_TOKENIZER)
    yield from (Named("recipe.sources", ref, *_TEXTS) for ref in recipe.sources or ("",))


@named.register
def _(recipe: EvaluateRecipe) -> Iterator[Named]:
    yield Named("recipe.model", recipe.model, *_MODEL)
    yield from (Named("recipe.data", ref, *_ANYTHING) for ref in recipe.data or ("",))
    yield from (Named("recipe.tasks", ref, *_ANYTHING) for ref in recipe.tasks)
    if recipe.tokenizer:
        yield Named("recipe.tokenizer", recipe.tokenizer, *_BRINGS_TOKENIZER)


@named.register
def _(recipe: Asking) -> Iterator[Named]:
    for key, engine in (("recipe.engine", recipe.engine), ("recipe.checks.judge", recipe.checks.judge)):
        if engine is None or engine.kind == "openai":  # a server has its own
            continue
        yield Named(f"{key}.model", engine.model, *_MODEL)
        if engine.tokenizer:
            yield Named(f"{key}.tokenizer", engine.tokenizer, *_BRINGS_TOKENIZER)
    against = () if recipe.decontaminate is None else recipe.decontaminate.against
    yield from (Named("recipe.decontaminate.against", ref, *_TEXTS) for ref in against)


@named.register
def _(recipe: TrainRecipe) -> Iterator[Named]:
    if "@" in recipe.model:
        yield Named("recipe.model", recipe.model, *_MODEL)
    if recipe.tokenizer or "@" not in recipe.model:
        yield Named("recipe.tokenizer", recipe.tokenizer, *_BRINGS_TOKENIZER)
    for number, spec in enumerate(recipe.trained_now):
        yield from _of_stage(spec, f"recipe.stages.{number}")


def _of_stage(spec: StageSpec, key: str) -> Iterator[Named]:
    yield Named(f"{key}.data", spec.data, *_WINDOWS)
    models = {f"init_from.{part}": Origin.of(part, ref).model for part, ref in spec.init_from.items()}
    if spec.reference:
        models["reference"] = spec.reference
    versions = {field: ref for field, ref in models.items() if not ref.startswith(STAGE)}
    yield from (Named(f"{key}.{field}", ref, *_MODEL) for field, ref in versions.items())
    yield from (Named(f"{key}.held_out", ref, *_TEXTS) for ref in spec.held_out)
