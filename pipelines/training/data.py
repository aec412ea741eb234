"""The data that a stage of training names: what manifests say of its mixture, and what is held out from it."""

from __future__ import annotations

from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest, VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.assembly.fits import DataFacts
from gristmill.model.processing.audio_rates import BANDS
from gristmill.pipelines.frame.sources import check_texts, exact
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.mix.pack_facts import arrays_of
from gristmill.stages.mix.pairs import of_graded, of_pairs
from gristmill.stages.mix.tokenize import load_tokenizer
from gristmill.stages.mix.windows import shard_files
from gristmill.stages.models.model_versions import tokenizer_shard


def held_out(versions: Versions, ref: str, key: str) -> Manifest:
    """A version of evaluation data. Raises BadConfig, which begins with `key`, for one without records with texts."""
    manifest = exact(versions, ref, key)
    check_texts(manifest, key)
    if not manifest.kept.count:
        raise BadConfig(f"{key}: {manifest} holds no record: nothing would be looked for")
    return manifest


def data_facts(
    versions: Versions, mixture: Manifest, wanted: ObjectRef, tokenizer_version: VersionRef | None, key: str
) -> DataFacts:
    """What the manifest of a mixture says of its windows. Raises BadConfig, which begins with `key`, for a version that
    is none, or one of another tokenizer than `wanted`, the model's, which `tokenizer_version` gives out."""
    try:
        shard_files(mixture)
    except ValueError as error:
        raise BadConfig(f"{key}: {error}") from error
    source = next((ref for ref in mixture.sources if ref.role == "tokenizer"), None)
    tokenizer = None if source is None else tokenizer_shard(versions.manifest(source.dataset, source.version))
    if tokenizer is None:
        raise BadConfig(f"{key}: {mixture} does not say which tokenizer made its windows; mix it anew")
    if tokenizer.sha256 != wanted.sha256:
        named = tokenizer_version or "the tokenizer of recipe.model"
        raise BadConfig(
            f"{key}: the windows of {mixture} were made with {source}, the model reads those of {named}: mix them anew"
            " with that, or give recipe.tokenizer the other"
        )
    cut, log_mel = (mixture.recipe.get(name) or {} for name in ("images", "audio"))
    names = load_tokenizer(versions.store, tokenizer)
    return DataFacts(
        window=mixture.recipe["window"],
        windows=mixture.statistics["windows"],
        tokens=mixture.statistics["tokens"],
        tokenizer=tokenizer.sha256,
        vocab_size=tokenizer.records,
        crop_size=cut.get("crop"),
        patch_size=cut.get("patch"),
        image_token=names.special(cut["token"]) if cut else None,
        mels=BANDS if log_mel else None,
        reduction=log_mel.get("reduction"),
        audio_token=names.special(log_mel["token"]) if log_mel else None,
        arrays=arrays_of(mixture),
        pairs=of_pairs(mixture),
        graded=of_graded(mixture),
    )
