"""Sources: the exact versions that a pipeline is made from, instead of input files.

A recipe names them as `web@v3` or by a tag, which is never moved; `web` alone would mean another version tomorrow. What
was withdrawn, or is a preview of a few records, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gristmill.lake.query.query import resolve_usable
from gristmill.lake.versions.manifest import InputFile, Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions, check_name
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.mix.tokenize import text_shards


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
