"""What people ask of a lake: which datasets, which versions, what is in one, where does it come from.

Every question is a pure function of the manifests and returns frozen dataclasses: the command draws them or
prints them as JSON, a notebook uses them as they are. Nothing here opens a shard or a ledger, so an answer
costs a few small reads. Withdrawn versions are shown and marked, never silently left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from gristmill.lake.store.base import NotFound
from gristmill.lake.store.objects import DamagedObject
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.manifest import InputFile, Manifest, VersionRef
from gristmill.lake.versions.manifest import stored_bytes as stored_bytes
from gristmill.lake.versions.recipes import changed_on_the_way
from gristmill.lake.versions.versions import NoSuchVersion, Versions


@dataclass(frozen=True)
class VersionRow:
    """One version as a line of a listing. `bytes` are of shards and ledgers; `withdrawn` is the reason given. Where its
    manifest cannot be read `problem` says so, and counts are 0."""

    dataset: str
    version: int
    at: str | None
    received: int = field(metadata={"json": "came_in"})  # as scripts know it
    kept: int
    dropped: int
    quarantined: int
    shards: int
    bytes: int
    digest: str
    parent: str | None
    commit: str | None
    dirty: bool | None
    tags: tuple[str, ...]
    withdrawn: str | None
    problem: str | None = None


@dataclass(frozen=True)
class DatasetRow:
    """One dataset; `latest` is None when every version was withdrawn. `withdrawn`: version -> reason."""

    dataset: str
    versions: int
    latest: VersionRow | None
    tags: dict[str, int]
    withdrawn: dict[int, str]


@dataclass(frozen=True)
class Description:
    """A version with what is known about it outside its manifest."""

    manifest: Manifest
    tags: tuple[str, ...]
    withdrawn: str | None
    changed: tuple[str, ...] = ()
    """In what the versions that it extends were made otherwise."""

    def to_json(self) -> dict[str, Any]:
        """As `grist show --json` prints it: the manifest, and what is known beside it."""
        about = {"tags": list(self.tags), "withdrawn": self.withdrawn, "bytes": stored_bytes(self.manifest)}
        return {**self.manifest.model_dump(mode="json"), **about, "changed_on_the_way": list(self.changed)}


@dataclass(frozen=True)
class Node:
    """A version in a lineage. `problem` says what is wrong with it; `repeated`: its own origins stand further up."""

    ref: str
    role: str
    digest: str
    kept: int = 0
    withdrawn: str | None = None
    problem: str | None = None
    repeated: bool = False
    inputs: tuple[InputFile, ...] = ()
    origins: tuple[Node, ...] = field(default=(), repr=False)

    @property
    def version(self) -> VersionRef:
        """A pointer to it."""
        name, _, number = self.ref.rpartition("@v")
        return VersionRef(dataset=name, version=int(number), digest=self.digest, role=self.role)


def list_datasets(versions: Versions) -> list[DatasetRow]:
    """Every dataset of the lake, by name; of each only the latest manifest is read."""
    rows = []
    for name in versions.names():
        tags, gone, numbers = versions.tags(name), versions.withdrawn(name), versions.numbers(name)
        latest = max((n for n in numbers if n not in gone), default=None)
        row = None if latest is None else _read_row(versions, name, latest, tags, gone)
        rows.append(DatasetRow(name, len(numbers), row, tags, gone))
    return rows


def list_versions(versions: Versions, name: str) -> list[VersionRow]:
    """Every version of a dataset, newest first. Raises NoSuchVersion if there is no such dataset."""
    require_dataset(versions, name)
    tags, gone, listing = versions.tags(name), versions.withdrawn(name), Catalogue(versions).of(name)
    rows = {number: _row(summary, tags, gone) for number, summary in listing.summaries.items()}
    rows |= {number: _problem_row(name, number, problem, tags, gone) for number, problem in listing.problems.items()}
    return [rows[number] for number in sorted(rows, reverse=True)]


def require_dataset(versions: Versions, name: str) -> None:
    """Raises NoSuchVersion, naming the datasets there are, unless `name` has a version."""
    if not versions.numbers(name):
        have = ", ".join(versions.names()) or "none"
        raise NoSuchVersion(f"there is no dataset {name!r} in {versions.store.uri}; it has {have}")


def say_lost(versions: Versions, name: str, numbers: Collection[int], error: NotFound | DamagedObject) -> None:
    """Warns of a part of an answer that cannot be read, which these versions of a dataset have; unless gc took it,
    with withdrawn versions."""
    erased = isinstance(error, NotFound) and set(numbers) <= set(versions.withdrawn(name))
    if not erased:
        of = ", ".join(f"v{number}" for number in sorted(numbers))
        versions.warn(f"{name}@{of}: a part of the answer is missing: {error}")


def _read_row(versions: Versions, name: str, number: int, tags: dict[str, int], gone: dict[int, str]) -> VersionRow:
    """The line of a version; where its manifest cannot be read, what is known without it."""
    try:
        return _row(versions.read(name, number)[1], tags, gone)
    except Unreadable as error:
        versions.warn(error)
        return _problem_row(name, number, str(error), tags, gone)


def _problem_row(name: str, number: int, problem: str, tags: dict[str, int], gone: dict[int, str]) -> VersionRow:
    """The line of a version whose manifest cannot be read."""
    return VersionRow(
        dataset=name,
        version=number,
        at=None,
        received=0,
        kept=0,
        dropped=0,
        quarantined=0,
        shards=0,
        bytes=0,
        digest="",
        parent=None,
        commit=None,
        dirty=None,
        tags=_tags_of(number, tags),
        withdrawn=gone.get(number),
        problem=problem,
    )


def _row(summary: Summary, tags: dict[str, int], gone: dict[int, str]) -> VersionRow:
    """The line of a version. `tags`: name -> version, `gone`: withdrawn version -> reason."""
    return VersionRow(
        dataset=summary.dataset,
        version=summary.version,
        at=summary.at,
        received=summary.received,
        kept=summary.kept,
        dropped=summary.dropped,
        quarantined=summary.quarantined,
        shards=summary.shards,
        bytes=summary.bytes,
        digest=summary.digest,
        parent=None if summary.parent is None else str(summary.parent),
        commit=summary.commit,
        dirty=summary.dirty,
        tags=_tags_of(summary.version, tags),
        withdrawn=gone.get(summary.version),
    )


def _tags_of(number: int, tags: dict[str, int]) -> tuple[str, ...]:
    return tuple(sorted(tag for tag, tagged in tags.items() if tagged == number))


def describe(versions: Versions, ref: str) -> Description:
    """Everything about one version; a withdrawn one too, with the reason. Raises NoSuchVersion."""
    manifest = versions.resolve(ref)
    tags, gone = versions.tags(manifest.dataset), versions.withdrawn(manifest.dataset)
    changed = changed_on_the_way(versions, manifest)
    return Description(manifest, _tags_of(manifest.version, tags), gone.get(manifest.version), changed)


def resolve_usable(versions: Versions, ref: str) -> Manifest:
    """`resolve` for readers of the data. Raises NoSuchVersion for a version that was withdrawn, with the reason."""
    manifest = versions.resolve(ref)
    reason = versions.withdrawn(manifest.dataset).get(manifest.version)
    if reason is not None:
        raise NoSuchVersion(
            f"{manifest} was withdrawn ({reason}): its data is no longer given out;"
            f" `grist ls {manifest.dataset}` lists the versions that are"
        )
    return manifest


def lineage(versions: Versions, ref: str) -> Node:
    """The tree of versions that this one extends or was made from, down to input files.

    A version reached twice shows its origins once. An origin that is gone, or whose digest is not the one that
    was recorded, stays in the tree as a node with a `problem`.
    """
    return tree_of(Catalogue(versions), versions.resolve(ref))


def tree_of(catalogue: Catalogue, manifest: Manifest) -> Node:
    """`lineage` of a manifest."""
    seen, gone = set[str](), dict[str, dict[int, str]]()
    # A dataset that grew a thousand times has a tree of that depth: deeper than Python's calls go.
    path = [_Growing(*_about(catalogue, manifest.ref.model_copy(update={"role": ""}), seen, gone))]
    while True:
        tip = path[-1]
        if tip.todo:
            path.append(_Growing(*_about(catalogue, tip.todo.pop(0), seen, gone)))
            continue
        node = replace(tip.node, origins=tuple(tip.origins))
        path.pop()
        if not path:
            return node
        path[-1].origins.append(node)


@dataclass
class _Growing:
    """A node whose origins are being looked up: `todo` are those to come."""

    node: Node
    todo: list[VersionRef]
    origins: list[Node] = field(default_factory=list)


def _about(
    catalogue: Catalogue, ref: VersionRef, seen: set[str], gone: dict[str, dict[int, str]]
) -> tuple[Node, list[VersionRef]]:
    """A version without its origins, and these. `seen`: versions of the tree whose origins are shown; `gone`: what is
    withdrawn of each dataset, read once."""
    try:
        summary = catalogue.summary(ref.dataset, ref.version)
    except NoSuchVersion as error:
        return Node(str(ref), ref.role, ref.digest, problem=f"not in this lake: {error}"), []
    except Unreadable as error:
        return Node(str(ref), ref.role, ref.digest, problem=str(error)), []
    if ref.dataset not in gone:
        gone[ref.dataset] = catalogue.versions.withdrawn(ref.dataset)
    problem = None
    if summary.digest != ref.digest:
        problem = f"its digest is {summary.digest[:12]}, not {ref.digest[:12]} as recorded: run `grist verify {ref}`"
    node = Node(
        ref=str(ref),
        role=ref.role,
        digest=summary.digest,
        kept=summary.kept,
        withdrawn=gone[ref.dataset].get(ref.version),
        problem=problem,
    )
    if str(ref) in seen:
        return replace(node, repeated=True), []
    seen.add(str(ref))
    above = list(summary.sources)
    if summary.parent is not None:
        role = summary.parent.role if summary.parent.role == "forget" else "extends"
        above.insert(0, summary.parent.model_copy(update={"role": role}))
    return replace(node, inputs=summary.inputs), above
