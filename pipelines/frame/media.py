"""Images and clips of data that a model is asked about: whether the model sees and hears them as the data has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.phi4.config import ModelConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.mix.tokenize import load_tokenizer
from gristmill.stages.models.model_versions import shape_of


class _Taken(NamedTuple):
    """How a model takes media: where it puts them, and `settings`, by their keys in the recipe of a mixture."""

    token: int
    settings: Mapping[str, Any]


class _Kind(NamedTuple):
    """`form` of records that have such media; `recipe`: the key of a mixture's; `verb`: what a mixture did to them;
    `part`: of a model, and `sense`, what it is for."""

    called: str
    form: str
    recipe: str
    verb: str
    part: str
    sense: str


_KINDS = (
    _Kind("images", "images", "images", "cut", "vision", "see"),
    _Kind("clips", "audio", "audio", "made", "audio", "hear"),
)


def check_media(store: Store, model: Manifest, on: Sequence[Manifest], tokenizer: ObjectRef) -> None:
    """Raises BadConfig for data with media where the model takes none, or others: images of other crops or patches,
    clips of another reduction, or either at another token than that of the tokenizer."""
    for kind in _KINDS:
        having = [source for source in on if source.form == kind.form or _settings(source, kind)]
        if having:
            _check(store, model, having, tokenizer, kind)


def _check(store: Store, model: Manifest, having: Sequence[Manifest], tokenizer: ObjectRef, kind: _Kind) -> None:
    taken = _taken(shape_of(store, model).config, kind)
    if taken is None:
        raise BadConfig(
            f"recipe.data: {having[0]} has {kind.called}, and {model} has no {kind.part} part to {kind.sense} them with"
        )
    names = load_tokenizer(store, tokenizer)
    if not names.is_special(taken.token):
        raise BadConfig(
            f"recipe.model: {model} puts {kind.called} at token {taken.token}, which is {names.name(taken.token)!r} in"
            f" its tokenizer {tokenizer.sha256[:12]}, and no special token"
        )
    for source in having:
        settings = _settings(source, kind)
        for key, own in {**taken.settings, "token": names.name(taken.token)}.items():
            if settings and settings[key] != own:
                raise BadConfig(
                    f"recipe.data: {kind.called} of {source} were {kind.verb} with {key}={settings[key]}, {model} takes"
                    f" {own}: mix its sources anew with recipe.{kind.recipe}.{key}={own}"
                )


def _taken(config: ModelConfig, kind: _Kind) -> _Taken | None:
    """None: the model has no such part."""
    vision, audio = config.vision, config.audio
    if kind.part == "vision":
        if vision is None:
            return None
        return _Taken(vision.image_token_id, {"crop": vision.crop_size, "patch": vision.patch_size})
    return None if audio is None else _Taken(audio.audio_token_id, {"reduction": audio.time_reduction})


def _settings(source: Manifest, kind: _Kind) -> dict[str, object]:
    """How a mixture makes what windows have of media; nothing where there are none."""
    return dict(source.recipe.get(kind.recipe) or {}) if source.form == "windows" else {}
