"""Is the suppression list as new as what this lake has used? Manifests are the witnesses.

Each version names the digest of the list that its run left out, and a clean version the request that it answers. A list
that never was what the newest version of a dataset used, or lacks a request, was lost or exchanged: the next run would
bring the forgotten back, so every run asks here first. Lists of the last release have no order, so that of them only
whole requests can be missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gristmill.lake.store.base import Store
from gristmill.lake.takedown.suppress import COPIES, PREFIX, ListNotWhole, Suppression, Takedowns, read_takedowns
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions


class Witness(NamedTuple):
    """What a version says of the list: the request that it answers, and the digest of the list that it left out."""

    version: str
    asked: str | None
    used: str | None

    @classmethod
    def of(cls, manifest: Manifest) -> Witness:
        """What this manifest says of the list."""
        recipe = manifest.recipe
        return cls(str(manifest), (recipe.get("forget") or {}).get("suppression"), recipe.get("suppression"))


def guarded_list(store: Store) -> Suppression:
    """The list, for a run. Raises ListNotWhole where it is not whole, or older than what this lake has used."""
    takedowns, versions = read_takedowns(store), Versions(store)
    for name in versions.names():
        numbers = versions.numbers(name)  # withdrawn ones too: what they saw of the list is true all the same
        try:
            newest = [Witness.of(versions.manifest(name, number)) for number in numbers[-1:]]
        except ValueError:  # another dataset's damaged manifest is no reason to stop this run; `verify` names it
            continue
        problem = next(_older(store, takedowns, newest), None)
        if problem is not None:
            raise ListNotWhole(problem)
    return takedowns.whole


def list_problems(store: Store, witnesses: Iterable[list[Witness]]) -> Iterator[tuple[str, str]]:
    """(key, message) of all that is wrong with the list, for `verify`. `witnesses`: of each dataset, in order."""
    try:
        takedowns = read_takedowns(store)
    except ListNotWhole as error:
        yield str(error).partition(" ")[0], str(error)
        return
    copies = {info.key for info in store.list(COPIES)}
    for number, data in enumerate(takedowns.slots, 1):
        key, copy = f"{PREFIX}{number:08d}.json", f"{COPIES}{number:08d}.json"
        if copy not in copies and number == len(takedowns.slots):
            continue  # written last: a killed request may have left it to the next
        if copy not in copies:
            yield copy, f"{copy}, the copy of a request to forget, is missing: the next `grist forget --yes` writes it"
        elif store.get(copy) != data:
            yield copy, f"{copy} and {key}, one request to forget, differ: restore both from a copy of the lake"
    for of_dataset in witnesses:
        for problem in _older(store, takedowns, of_dataset):
            yield PREFIX, problem


def _older(store: Store, takedowns: Takedowns, witnesses: list[Witness]) -> Iterator[str]:
    """What versions of one dataset, in order, have seen and the list has not. A list only grows, so that of those used
    the newest is enough; that of a clean version is older than its request."""
    remedy = (
        f"Restore {PREFIX} (or {COPIES}, its copy) from a backup or a replica of the lake, or ask for the same again,"
        " in the same order, with `grist forget --yes`; a run would bring back what was forgotten"
    )
    for witness in witnesses:
        if witness.asked is not None and witness.asked not in takedowns.requests:
            problem = f"lacks the request {witness.asked[:12]}, by which {witness.version} was made"
            yield f"{PREFIX} in {store.uri} {problem}. {remedy}"
    for witness in witnesses[-1:]:
        if witness.used is not None and witness.used not in takedowns.lists and not takedowns.unnumbered:
            problem = (
                f"is not what it was: {witness.version} was made with the list {witness.used[:12]}, which it never was"
            )
            yield f"{PREFIX} in {store.uri} {problem}. {remedy}"
