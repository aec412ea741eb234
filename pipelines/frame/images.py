"""Images of data that a model is asked about: whether the model sees them as the data has them."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.mix.tokenize import load_tokenizer
from gristmill.stages.models.model_versions import shape_of


def check_images(store: Store, model: Manifest, on: Sequence[Manifest], tokenizer: ObjectRef) -> None:
    """Raises BadConfig for data with images where the model takes none, or others: of other crops or patches, or at
    another token than that of the tokenizer."""
    with_images = [source for source in on if source.form == "images" or _cut(source)]
    if not with_images:
        return
    vision = shape_of(store, model).config.vision
    if vision is None:
        raise BadConfig(f"recipe.data: {with_images[0]} has images, and {model} has no vision part to see them with")
    names = load_tokenizer(store, tokenizer)
    token = vision.image_token_id
    if not names.is_special(token):
        raise BadConfig(
            f"recipe.model: {model} puts images at token {token}, which is {names.name(token)!r} in its tokenizer"
            f" {tokenizer.sha256[:12]}, and no special token"
        )
    for source in with_images:
        cut = _cut(source)
        for key, own in (("crop", vision.crop_size), ("patch", vision.patch_size), ("token", names.name(token))):
            if cut and cut[key] != own:
                raise BadConfig(
                    f"recipe.data: images of {source} were cut with {key}={cut[key]}, {model} takes {own}: mix its"
                    f" sources anew with recipe.images.{key}={own}"
                )


def _cut(source: Manifest) -> dict[str, object]:
    """How a mixture cuts images; nothing where there are none."""
    return dict(source.recipe.get("images") or {}) if source.form == "windows" else {}
