"""`why`: what became of a record, in every dataset and version, from the ledgers alone.

A URL (or source key) is hashed to the first half of an id, so the question is a prefix scan of sorted ledgers:
range in the pointer, then row group, then rows. Other spellings of the URL (`lake/suppress_entries.py`) are asked for
with it. A ledger object that many versions share is read once. Equal answers of several versions are one line of the
answer. For a duplicate the survivor is looked up as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from lake import ledger
from lake.forget_search import ids_of_page
from lake.identity import normalise_url
from lake.manifest import Manifest
from lake.objects import ObjectRef, rows_between
from lake.query import require_dataset
from lake.store import NotFound, Store
from lake.suppress_entries import url_heads
from lake.versions import Versions

_ID = re.compile(r"[0-9a-f]{8,32}")
_KEY = ("id", "input", "ordinal")
CLUSTER_SHOWN = 10
ALIKE = 2
"""Prefixes of a URL that can be spelled in one way: as a URL, and as a source key."""


@dataclass(frozen=True)
class Place:
    """Where a record lies: bytes [start, start + length) of the decompressed input. `names`: addresses it had."""

    id: str
    input: str
    ordinal: int
    start: int
    length: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Survivor:
    """The record that was kept in place of a duplicate; `place` is None if its ledger row is not there."""

    id: str
    fate: str | None
    reason: str | None
    place: Place | None


@dataclass(frozen=True)
class Cluster:
    """Near duplicates as the newest version of a story has them: `size` with the survivor; `others` are some of the
    ids that were dropped in its favour."""

    survivor: str
    size: int
    others: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """One fate of one record, and the versions of the dataset that agree on it."""

    dataset: str
    versions: tuple[int, ...]
    place: Place
    fate: str
    stage: str
    reason: str | None
    value: str | None
    survivor: Survivor | None
    cluster: Cluster | None = None


@dataclass(frozen=True)
class Answer:
    """`prefixes` were searched in `searched` (dataset -> versions). `withdrawn` and `unreadable` qualify them."""

    query: str
    normalised: str | None
    prefixes: tuple[str, ...]
    searched: dict[str, tuple[int, ...]]
    stories: tuple[Story, ...]
    withdrawn: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def why(versions: Versions, query: str, dataset: str | None = None) -> Answer:
    """The whole history of a URL, a source key, an id, or an id's first 8 to 31 hex characters.

    Raises NoSuchVersion for an unknown dataset, ValueError for an empty question.
    """
    normalised, prefixes = _prefixes(query)
    if dataset is not None:
        require_dataset(versions, dataset)
    names = versions.names() if dataset is None else [dataset]
    manifests = {name: list(versions.manifests(name)) for name in names}
    every = [m for ms in manifests.values() for m in ms]
    found, missing = _read(versions.store, every, prefixes)
    if len(prefixes) > ALIKE and not any(found.values()) and (ids := ids_of_page(versions, query)):
        found, missing = _read(versions.store, every, sorted(ids))  # one that mixes spellings has another first half
    stories: list[Story] = []
    for ms in manifests.values():
        stories += _stories(ms, found)
    return Answer(
        query=query,
        normalised=normalised,
        prefixes=prefixes,
        searched={name: tuple(m.version for m in ms) for name, ms in manifests.items()},
        stories=tuple(_with_clusters(versions.store, manifests, _with_survivors(versions.store, manifests, stories))),
        withdrawn=tuple(f"{name}@v{n}" for name in names for n in sorted(versions.withdrawn(name))),
        unreadable=tuple(
            str(m) for ms in manifests.values() for m in ms if any(ref.sha256 in missing for ref in m.ledgers)
        ),
    )


def _prefixes(query: str) -> tuple[str | None, tuple[str, ...]]:
    """(normalised URL, prefixes of ids that the question may mean)."""
    query = query.strip()
    if not query:
        raise ValueError("why: give a URL, a record id, or at least 8 hex characters of one")
    if _ID.fullmatch(query):
        return None, (query,)
    return normalise_url(query), url_heads(query)


def _ledgers(manifest: Manifest, prefixes: Sequence[str]) -> list[ObjectRef]:
    """The ledger objects of a version that may hold an id with one of the prefixes."""
    return [ref for ref in manifest.ledgers if ref.kind == "ledger" and any(ref.overlaps(p, p + "g") for p in prefixes)]


def _read(
    store: Store, manifests: Iterable[Manifest], prefixes: Sequence[str]
) -> tuple[dict[str, list[dict[str, Any]]], set[str]]:
    """(rows by object, objects that are not there). Each object is read once however many versions share it."""
    refs = {ref.sha256: ref for m in manifests for ref in _ledgers(m, prefixes)}

    def rows(ref: ObjectRef) -> list[dict[str, Any]] | None:
        try:
            return ledger.find_any(store, ref, prefixes).to_pylist()
        except NotFound:  # gc took a withdrawn version's ledger; the answer names the version
            return None

    with ThreadPoolExecutor(8) as pool:
        parts = dict(zip(refs, pool.map(rows, refs.values()), strict=True))
    return {k: v for k, v in parts.items() if v is not None}, {k for k, v in parts.items() if v is None}


def _stories(manifests: Sequence[Manifest], found: dict[str, list[dict[str, Any]]]) -> list[Story]:
    stories: dict[tuple[Any, ...], Story] = {}
    names = names_of(manifests)
    for manifest in manifests:
        for row in (row for ref in manifest.ledgers for row in found.get(ref.sha256, ())):
            key = tuple(row[name] for name in (*_KEY, "fate", "reason", "value", "survivor"))
            place = place_of(row, names)
            if key in stories:
                old = stories[key]
                stories[key] = replace(old, versions=(*old.versions, manifest.version))
                continue
            survivor = None if row["survivor"] is None else Survivor(row["survivor"], None, None, None)
            verdict = (row["fate"], row["stage"], row["reason"], row["value"])
            stories[key] = Story(manifest.dataset, (manifest.version,), place, *verdict, survivor)
    return sorted(stories.values(), key=lambda s: (s.place.id, s.place.input, s.place.ordinal, s.versions))


def names_of(manifests: Iterable[Manifest]) -> dict[str, tuple[str, ...]]:
    """input digest -> addresses; a version that grew names only its own inputs, its ancestors name theirs."""
    return {one.digest: one.names for manifest in manifests for one in manifest.inputs if one.names}


def place_of(row: dict[str, Any], names: dict[str, tuple[str, ...]]) -> Place:
    """The place of a ledger row; `names`: input digest -> addresses."""
    where = {name: row[name] for name in (*_KEY, "start", "length")}
    return Place(**where, names=names.get(row["input"], ()))


def _with_survivors(store: Store, manifests: dict[str, list[Manifest]], stories: Sequence[Story]) -> list[Story]:
    """The stories with each survivor as the newest version of its story knows it."""
    done = []
    for story in stories:
        if story.survivor is None:
            done.append(story)
            continue
        manifest = next(m for m in manifests[story.dataset] if m.version == story.versions[-1])
        rows, _ = _read(store, [manifest], [story.survivor.id])
        known = [row for part in rows.values() for row in part]
        best = min(known, key=lambda row: row["fate"] != "kept", default=None)
        if best is not None:
            place = place_of(best, names_of(manifests[story.dataset]))
            survivor = Survivor(story.survivor.id, best["fate"], best["reason"], place)
            story = replace(story, survivor=survivor)
        done.append(story)
    return done


def _with_clusters(store: Store, manifests: dict[str, list[Manifest]], stories: Sequence[Story]) -> list[Story]:
    """The stories of near duplicates and of their survivors with their cluster."""
    done = []
    for story in stories:
        manifest = next(m for m in manifests[story.dataset] if m.version == story.versions[-1])
        survivor = story.place.id if story.fate == "kept" else story.survivor.id if story.survivor else None
        if survivor is not None and (cluster := _cluster(store, manifest, survivor)):
            story = replace(story, cluster=cluster)
        done.append(story)
    return done


def _cluster(store: Store, manifest: Manifest, survivor: str) -> Cluster | None:
    others: list[str] = []
    for ref in manifest.attachments:
        if ref.kind == "clusters" and ref.overlaps(survivor, survivor + "g"):
            try:
                others += rows_between(store, ref, "survivor", survivor, survivor + "g")["id"].to_pylist()
            except NotFound:  # gc took a withdrawn version's
                return None
    return Cluster(survivor, len(others) + 1, tuple(sorted(others)[:CLUSTER_SHOWN])) if others else None
