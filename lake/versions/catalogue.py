"""The catalogue: summaries of all versions of a dataset, from the history in the newest manifest.

Of a dataset of n versions a few files are read: the newest manifests, down to where the history of one takes over, and
its blocks. A manifest whose size is not the one of its summary, or whose link to the one before it is broken, was
changed since: it is read, and named with what is wrong with it. One catalogue serves one question; versions that are
committed meanwhile are not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gristmill.lake.store.base import NotFound
from gristmill.lake.store.objects import DamagedObject, ObjectRef
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.history import BLOCK, Summary, blocks_of, covered, read_block
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.roots import missing
from gristmill.lake.versions.versions import Versions


@dataclass(frozen=True)
class Listing:
    """What is known of a dataset's versions: `summaries` by number, and of others, in `problems`, why they cannot be
    read."""

    summaries: dict[int, Summary] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)

    def in_order(self) -> list[Summary]:
        """Oldest first."""
        return [self.summaries[number] for number in sorted(self.summaries)]


class Catalogue:
    """Summaries of the versions of a lake, for one question."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self._listings: dict[str, Listing] = {}

    def of(self, name: str) -> Listing:
        """All versions of a dataset; `warn` of the lake's versions is told of those that cannot be read."""
        if name not in self._listings:
            self._listings[name] = _read(self.versions, name)
        return self._listings[name]

    def summary(self, name: str, version: int) -> Summary:
        """Of one version. Raises NoSuchVersion, Unreadable."""
        listing = self.of(name)
        if version in listing.problems:
            raise Unreadable(listing.problems[version])
        if version not in listing.summaries:
            return self.versions.read(name, version)[1]  # raises NoSuchVersion, unless it was committed just now
        return listing.summaries[version]

    def ancestors(self, manifest: Manifest) -> Iterator[Summary]:
        """The versions that this one extends, newest first. Raises NoSuchVersion, Unreadable."""
        child, ref = str(manifest), manifest.parent
        while ref is not None:
            at = self.summary(ref.dataset, ref.version)
            if at.digest != ref.digest:
                raise Unreadable(
                    f"{child} extends {at} of digest {ref.digest[:12]}, which now has {at.digest[:12]}: one of the two"
                    " manifests was changed; `grist verify` says which"
                )
            yield at
            child, ref = str(at), at.parent


def _read(versions: Versions, name: str) -> Listing:
    sizes, withdrawn, listing = versions.slots(name), versions.withdrawn(name), Listing()
    for number in set(range(1, max(sizes, default=0))) - sizes.keys():
        _cannot_be_read(versions, listing, number, missing(name, number))
    todo = sorted(sizes, reverse=True)
    blocks: tuple[ObjectRef, ...] = ()
    while todo and not blocks:  # the newest, until one has a history; none has that an earlier release wrote
        part, todo = todo[:BLOCK], todo[BLOCK:]
        manifests = _one_by_one(versions, name, part, listing)
        histories = [blocks_of(m.attachments) for m in manifests if m.version not in withdrawn]
        blocks = max(histories, key=covered, default=())
    rows = {row.version: row for row in _rows(versions, name, blocks)}
    end = rows.get(covered(blocks))
    following = listing.summaries.get(covered(blocks) + 1)
    if end is not None and following is not None and following.previous != end.manifest:
        versions.warn(
            f"{following} was committed after another manifest than the one of {end}: one of the two was changed since;"
            " `grist verify` says which"
        )
        rows = {}
    intact = {n: rows[n] for n in todo if n in rows and rows[n].manifest_bytes == sizes[n]}
    listing.summaries.update(intact)
    _one_by_one(versions, name, [number for number in todo if number not in intact], listing)
    return listing


def _rows(versions: Versions, name: str, blocks: Sequence[ObjectRef]) -> Iterator[Summary]:
    """The summaries of these blocks; of one that is lost or damaged none, so that its versions are read themselves."""

    def read(ref: ObjectRef) -> list[Summary]:
        try:
            return read_block(versions.store, name, ref)
        except (NotFound, DamagedObject, ValueError) as error:
            versions.warn(f"{name}: a part of its history is not used, and its manifests are read instead: {error}")
            return []

    with ThreadPoolExecutor(8) as pool:
        for part in pool.map(read, blocks):
            yield from part


def _one_by_one(versions: Versions, name: str, numbers: Sequence[int], listing: Listing) -> list[Manifest]:
    """Reads these versions, and adds them to the listing. Returns those that could be read."""

    def read(number: int) -> tuple[Manifest, Summary] | str:
        try:
            return versions.read(name, number)
        except (Unreadable, DamagedObject) as error:
            return str(error)

    manifests: list[Manifest] = []
    with ThreadPoolExecutor(8) as pool:  # many small GETs; a remote store answers them side by side
        for number, outcome in zip(numbers, pool.map(read, numbers), strict=True):
            if isinstance(outcome, str):
                _cannot_be_read(versions, listing, number, outcome)
                continue
            manifest, listing.summaries[number] = outcome
            manifests.append(manifest)
    return manifests


def _cannot_be_read(versions: Versions, listing: Listing, number: int, problem: str) -> None:
    listing.problems[number] = problem
    versions.warn(problem)
