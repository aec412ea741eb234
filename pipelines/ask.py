"""What a run would come to, without running anything: the version that is there already, or None.

A flow asks before it submits a job, and after a job's end: the store of datasets is the truth about what is done, Ray
forgets its jobs with its head. Only what an earlier scan of the very same files left behind is used, so a None may
also mean "cannot tell without a scan": the run itself then finds out, and does nothing twice.
"""

from __future__ import annotations

from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress_guard import guarded_list
from gristmill.lake.versions.growth import ancestry
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.inputs import known_digests
from gristmill.pipelines.frame.recipe import InputRecipe, PipelineConfig, Recipe


def committed(config: PipelineConfig, store: Store) -> Manifest | None:
    """The version that this very request comes to, if its run was done before and its objects are all there.

    Raises BadConfig where an input is not to be found, or a version cannot be used.
    """
    done = all_committed(config, store)
    return done[-1] if done else None


def all_committed(config: PipelineConfig, store: Store) -> list[Manifest] | None:
    """As `committed`, the versions of all links of a chain in order; None where one is still to be made."""
    done: list[Manifest] = []
    while (link := config.recipe.link(done)) is not None:
        manifest = _of_link(link, store)
        if manifest is None:
            return None
        done.append(manifest)
    return done


def _of_link(recipe: Recipe, store: Store) -> Manifest | None:
    """As `committed`, of one link."""
    versions = Versions(store)
    recipe = recipe.with_digests(versions)
    digests: list[str] = []
    suppression = ""
    if isinstance(recipe, InputRecipe):
        if recipe.limit is not None:  # which files it takes depends on how many records they hold
            return None
        known = known_digests(recipe.inputs, store)
        if known is None:
            return None
        if recipe.extends is not None:
            return _whole(versions, _with_all(versions, recipe, known))
        digests, suppression = known, guarded_list(store).digest
    key = recipe.resolve(versions, suppression).key(recipe.target, digests)
    return _whole(versions, versions.find_run(recipe.target, key))


def _with_all(versions: Versions, recipe: InputRecipe, digests: list[str]) -> Manifest | None:
    """The latest version, if it has all these inputs. Raises BadConfig where it holds records of another form."""
    dataset = recipe.target
    latest = versions.latest(dataset)
    if latest is None or set(digests) - ancestry(versions, dataset, latest):
        return None
    manifest = versions.manifest(dataset, latest)
    recipe.check_form(manifest)
    return manifest


def _whole(versions: Versions, manifest: Manifest | None) -> Manifest | None:
    """The version if its objects are all there; else the run would make them again."""
    if manifest is None or versions.missing((*manifest.shards, *manifest.ledgers)):
        return None
    return manifest
