"""`why`: what became of a record, in every dataset and version, from the ledgers alone.

A URL (or source key) is hashed to the first half of an id, so the question is a prefix scan of sorted ledgers:
range in the pointer, then row group, then rows. Other spellings of the URL (lake/takedown/suppress_entries.py) are
asked for with it. Of versions that extend each other the newest is searched (lake/versions/chains.py). Equal answers of
several versions are one line of the answer. For a duplicate the survivor is looked up as well. What cannot be read is
named, and the rest is answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gristmill.lake.accounts import media
from gristmill.lake.accounts.identity import normalise_url
from gristmill.lake.query.families import Child, children_of
from gristmill.lake.query.learned import Holders, Learned
from gristmill.lake.query.query import require_dataset, say_lost
from gristmill.lake.store.base import NotFound
from gristmill.lake.store.objects import DamagedObject, rows_between
from gristmill.lake.takedown.search import ids_of_page
from gristmill.lake.takedown.suppress_entries import url_heads
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.chains import Row, Searched, chains, rows_of, search
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.input_files import FileUse, uses_of
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions

_ID = re.compile(r"[0-9a-f]{8,32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = ("id", "input", "ordinal")
CLUSTER_SHOWN = 10
ALIKE = 2  # prefixes of a URL that can be spelled in one way: as a URL, and as a source key
SCANNED_RECORDS = 1_000_000
"""Up to so many records a URL that no id answers is looked for in the URL columns: a second. In larger lakes
`grist forget --urls` (which looks, and without --yes does no more) is named instead."""


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
    """`prefixes` were searched in `searched` (dataset -> versions). `withdrawn` and `unreadable` qualify them.
    `files`: inputs of that name or digest.
    `children`: samples of these records, or those that were asked for.
    `models`: those of the lake that learned from these records; not looked for in one dataset alone.
    `unscanned`: whether URL columns, which would tell of a URL that mixes spellings, were not looked at."""

    query: str
    normalised: str | None
    prefixes: tuple[str, ...]
    searched: dict[str, tuple[int, ...]]
    stories: tuple[Story, ...]
    withdrawn: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unscanned: bool = False
    children: tuple[Child, ...] = ()
    models: tuple[Learned, ...] = ()
    files: tuple[FileUse, ...] = ()


def why(versions: Versions, query: str, dataset: str | None = None) -> Answer:
    """The whole history of a URL, a source key, an id, an id's first 8 to 31 hex characters, of all records that have
    the image, clip or video of a sha256, or of an input file by its name or sha256: of what in it has no name but its
    place, such as damage.

    Raises NoSuchVersion for an unknown dataset, ValueError for an empty question.
    """
    if dataset is not None:
        require_dataset(versions, dataset)
    names = versions.names() if dataset is None else [dataset]
    catalogue = Catalogue(versions)
    summaries = {name: catalogue.of(name).in_order() for name in names}
    normalised, prefixes = _prefixes(versions, summaries, query)
    files = uses_of(summaries, query)
    prefixes = tuple(dict.fromkeys((*prefixes, *(head for use in files for head in use.heads))))
    searched = _search(versions, summaries, prefixes)
    unanswered = not any(rows for part in searched.values() for rows in part.rows.values())
    respelled = unanswered and not files and len(prefixes) > ALIKE  # a URL that mixes spellings has another first half
    latest = [of_dataset[-1] for of_dataset in summaries.values() if of_dataset]
    unscanned = respelled and sum(summary.received for summary in latest) > SCANNED_RECORDS
    heads: Sequence[str] = prefixes
    if respelled and not unscanned and (ids := ids_of_page(versions, query)):
        heads = sorted(ids)
        searched = _search(versions, summaries, heads)
    for part in searched.values():
        for message in part.damage:
            versions.warn(message)
    stories = [story for name in names for story in _stories(summaries[name], searched[name].rows)]
    unreadable: list[str] = []
    for name in names:
        unread = {*catalogue.of(name).problems, *searched[name].unreadable}
        unreadable += [f"{name}@v{number}" for number in sorted(unread)]
    kept = {f"{story.dataset}@v{number}" for story in stories if story.fate == "kept" for number in story.versions}
    return Answer(
        query=query,
        normalised=normalised,
        prefixes=prefixes,
        searched={name: tuple(m.version for m in ms) for name, ms in summaries.items()},
        stories=tuple(_with_clusters(versions, _with_survivors(versions, summaries, stories))),
        withdrawn=tuple(f"{name}@v{n}" for name in names for n in sorted(versions.withdrawn(name))),
        unreadable=tuple(unreadable),
        unscanned=unscanned,
        children=children_of(versions, summaries, heads),
        models=Holders(catalogue, kept).models(names) if kept else (),
        files=files,
    )


def _search(
    versions: Versions, summaries: Mapping[str, Sequence[Summary]], prefixes: Sequence[str]
) -> dict[str, Searched]:
    """By dataset. An object that several datasets share is read once."""
    read: dict[str, list[Row]] = {}
    return {name: search(versions, of_dataset, prefixes, read) for name, of_dataset in summaries.items()}


def _prefixes(
    versions: Versions, summaries: Mapping[str, Sequence[Summary]], query: str
) -> tuple[str | None, tuple[str, ...]]:
    """(normalised URL, prefixes of ids that the question may mean)."""
    query = query.strip()
    if not query:
        raise ValueError("why: give a URL, a record id, at least 8 hex characters of one, or the sha256 of a medium")
    if _ID.fullmatch(query):
        return None, (query,)
    if _SHA256.fullmatch(query.lower()):
        return None, tuple(sorted(_having(versions, summaries, query.lower()))) or (query,)
    return normalise_url(query), url_heads(query)


def _having(versions: Versions, summaries: Mapping[str, Sequence[Summary]], sha256: str) -> set[str]:
    """The records that have a medium, by the tables of media of these versions; an object that several share is read
    once. What is lost is named, unless gc took it with a withdrawn version."""
    ids: set[str] = set()
    read: set[str] = set()
    for chain in (chain for of_dataset in summaries.values() for chain in chains(of_dataset)):
        for summary in chain:
            try:
                for ref in versions.manifest(summary.dataset, summary.version).attachments:
                    if ref.kind == media.KIND and ref.sha256 not in read:
                        ids |= media.ids_having(versions.store, ref, [sha256])
                        read.add(ref.sha256)
                break  # the table of the newest has the rows of all that it extends
            except (NotFound, DamagedObject) as error:
                say_lost(versions, summary.dataset, [summary.version], error)
    return ids


def _stories(manifests: Sequence[Summary], rows: Mapping[int, Sequence[Row]]) -> list[Story]:
    """The stories of one dataset. `rows`: those of each version."""
    # The same fate in several versions is one story, with the row of the first of them.
    agreeing: dict[tuple[Any, ...], tuple[Summary, Row, list[int]]] = {}
    for manifest in manifests:
        for row in rows.get(manifest.version, ()):
            key = tuple(row[name] for name in (*_KEY, "fate", "reason", "value", "survivor"))
            _, _, numbers = agreeing.setdefault(key, (manifest, row, []))
            numbers.append(manifest.version)
    names = names_of(manifests)
    stories = []
    for manifest, row, numbers in agreeing.values():
        survivor = None if row["survivor"] is None else Survivor(row["survivor"], None, None, None)
        verdict = (row["fate"], row["stage"], row["reason"], row["value"])
        stories.append(Story(manifest.dataset, tuple(numbers), place_of(row, names), *verdict, survivor))
    return sorted(stories, key=lambda s: (s.place.id, s.place.input, s.place.ordinal, s.versions))


def names_of(manifests: Iterable[Manifest | Summary]) -> dict[str, tuple[str, ...]]:
    """input digest -> addresses; a version that grew names only its own inputs, its ancestors name theirs."""
    return {file.digest: file.names for manifest in manifests for file in manifest.inputs if file.names}


def place_of(row: dict[str, Any], names: dict[str, tuple[str, ...]]) -> Place:
    """The place of a ledger row; `names`: input digest -> addresses."""
    where = {name: row[name] for name in (*_KEY, "start", "length")}
    return Place(**where, names=names.get(row["input"], ()))


def _with_survivors(versions: Versions, summaries: dict[str, list[Summary]], stories: Sequence[Story]) -> list[Story]:
    """The stories with each survivor as the newest version of its story knows it."""
    done = []
    for story in stories:
        if story.survivor is None:
            done.append(story)
            continue
        newest = next(m for m in summaries[story.dataset] if m.version == story.versions[-1])
        known = _rows_or_none(versions, newest, story.survivor.id)
        best = min(known, key=lambda row: row["fate"] != "kept", default=None)  # kept sorts first
        if best is not None:
            place = place_of(best, names_of(summaries[story.dataset]))
            survivor = Survivor(story.survivor.id, best["fate"], best["reason"], place)
            story = replace(story, survivor=survivor)
        done.append(story)
    return done


def _rows_or_none(versions: Versions, summary: Summary, record: str) -> list[Row]:
    try:
        return rows_of(versions.store, versions.outline(summary.dataset, summary.version), [record])
    except (NotFound, DamagedObject) as error:
        say_lost(versions, summary.dataset, [summary.version], error)
        return []


def _with_clusters(versions: Versions, stories: Sequence[Story]) -> list[Story]:
    """The stories of near duplicates and of their survivors with their cluster."""
    done = []
    manifests: dict[tuple[str, int], Manifest] = {}
    for story in stories:
        survivor = _survivor_of(story)
        if survivor is not None:
            newest = (story.dataset, story.versions[-1])
            if newest not in manifests:
                manifests[newest] = versions.manifest(*newest)
            if cluster := _cluster(versions, manifests[newest], survivor):
                story = replace(story, cluster=cluster)
        done.append(story)
    return done


def _survivor_of(story: Story) -> str | None:
    """The id that a cluster would have for a survivor: the record's own if it was kept."""
    if story.fate == "kept":
        return story.place.id
    return None if story.survivor is None else story.survivor.id


def _cluster(versions: Versions, manifest: Manifest, survivor: str) -> Cluster | None:
    """The cluster of a survivor, from the tables sorted by survivor; None if it has no duplicates."""
    others: list[str] = []
    for ref in manifest.attachments:
        if ref.kind == "clusters" and ref.overlaps(survivor, survivor + "g"):
            try:
                others += rows_between(versions.store, ref, "survivor", survivor, survivor + "g")["id"].to_pylist()
            except (NotFound, DamagedObject) as error:  # a cluster is an extra: the rest is answered
                say_lost(versions, manifest.dataset, [manifest.version], error)
                return None
    return Cluster(survivor, len(others) + 1, tuple(sorted(others)[:CLUSTER_SHOWN])) if others else None
