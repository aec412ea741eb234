"""What a run would come to, without running anything: the version that is there already, or None.

A flow asks before it submits a job, and after a job's end: the store of datasets is the truth about what is done, Ray
forgets its jobs with its head. Only what an earlier scan of the very same files left behind is used, so a None may
also mean "cannot tell without a scan": the run itself then finds out, and does nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lake.growth import ancestry
from lake.input_notes import known
from lake.manifest import Manifest
from lake.sources import input_info
from lake.store import Store
from lake.suppress_guard import guarded_list
from lake.versions import Versions
from pipelines.config import BadConfig
from pipelines.instruct import InstructConfig
from pipelines.mixture import Mixture, MixtureConfig
from pipelines.model import Checkpoint, ModelRunConfig
from pipelines.tokenizer import Origin, TokenizerConfig
from pipelines.web_recipe import WebConfig
from stages.inputs import find_inputs


def committed(config: Any, store: Store) -> Manifest | None:
    """The version that this very request comes to, if its run was done before and its objects are all there.

    Raises BadConfig for an unknown pipeline, and where an input is not to be found.
    """
    if config.pipeline not in _ASK:
        raise BadConfig(f"pipeline: {config.pipeline!r}; allowed: {', '.join(_ASK)}")
    return _ASK[config.pipeline](config, store)


def _web(config: WebConfig, store: Store) -> Manifest | None:
    recipe, versions = config.recipe, Versions(store)
    if recipe.limit is not None:  # which files it takes depends on how many records they hold
        return None
    digests = _digests(recipe.inputs, store)
    if digests is None:
        return None
    if recipe.extends is not None:
        latest = versions.latest(recipe.target)
        if latest is None or set(digests) - ancestry(versions, recipe.target, latest):
            return None
        found = versions.manifest(recipe.target, latest)
        return None if versions.missing((*found.shards, *found.ledgers)) else found
    return _done(store, recipe.target, recipe.run_key(digests, guarded_list(store).digest))


def _digests(patterns: tuple[str, ...], store: Store) -> list[str] | None:
    """The inputs by content, as their scans found them; None if one was not scanned as it is now."""
    if not patterns:
        raise BadConfig("recipe.inputs is empty: give absolute paths, s3:// objects or patterns of them")
    try:
        uris = find_inputs(patterns)
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda uri: known(store, input_info(uri)), uris))
    except (OSError, ValueError) as error:
        raise BadConfig(f"recipe.inputs: {error}") from error
    digests = [one[0] for one in found if one is not None]
    return digests if len(digests) == len(found) else None


def _instruct(config: InstructConfig, store: Store) -> Manifest | None:
    recipe = config.recipe
    digests = None if recipe.limit is not None else _digests(recipe.inputs, store)
    if digests is None:
        return None
    return _done(store, recipe.target, recipe.run_key(digests, guarded_list(store).digest))


def _tokenizer(config: TokenizerConfig, store: Store) -> Manifest | None:
    return _done(store, config.recipe.target, Origin.of(config.recipe, Versions(store)).key)


def _mixture(config: MixtureConfig, store: Store) -> Manifest | None:
    return _done(store, config.recipe.target, Mixture.of(config.recipe, Versions(store)).key)


def _model(config: ModelRunConfig, store: Store) -> Manifest | None:
    return _done(store, config.recipe.target, Checkpoint(config.recipe).key)


def _done(store: Store, dataset: str, key: str) -> Manifest | None:
    """The version of this run key, if its objects are all there; else the run would make them again."""
    versions = Versions(store)
    found = versions.find_run(dataset, key)
    return None if found is None or versions.missing((*found.shards, *found.ledgers)) else found


_ASK: dict[str, Callable[[Any, Store], Manifest | None]] = {
    "web": _web,
    "instruct": _instruct,
    "tokenizer": _tokenizer,
    "mixture": _mixture,
    "model": _model,
}
