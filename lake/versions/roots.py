"""The versions of a lake as they stand in the store, damage included: what gc starts from and verify looks at.

`Versions` serves readers and fails on the first bad manifest. Here every slot of every dataset is visited in
order, one manifest in memory at a time, and what is wrong with it comes along as `faults`. gc refuses to run on
any fault, because a root it cannot read is data it would delete; verify reports them all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from gristmill.lake.accounts.balance import BalanceError
from gristmill.lake.store.base import Info, NotFound, Store
from gristmill.lake.store.objects import DamagedObject, ObjectRef, read_refs
from gristmill.lake.versions.folded import Unfolder
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.manifest import RESTORE as _RESTORE
from gristmill.lake.versions.manifest import Manifest, parse, unfolded
from gristmill.lake.versions.manifest import content_digest as digest_over

_PLACE = re.compile(r"datasets/([^/]+)/(versions|withdrawn)/(\d{8,})\.json")
_SLOT = re.compile(r"(\d{8,})\.json")
_AT_ONCE = 16


class Fault(NamedTuple):
    """`what` is a short kind: manifest | slot | gap | chain | digest | balance | foreign. `key` is where it is."""

    what: str
    key: str
    message: str


@dataclass(frozen=True)
class Slots:
    """What stands under `datasets/`: version numbers of each dataset, and those that are withdrawn."""

    versions: dict[str, list[int]]
    withdrawn: frozenset[tuple[str, int]]
    faults: tuple[Fault, ...]

    def keys(self) -> set[str]:
        """Where all of these manifests stand."""
        return {slot_key(name, n) for name, numbers in self.versions.items() for n in numbers}


@dataclass(frozen=True)
class Slot:
    """One slot. `manifest` is None where it is missing or cannot be read; `faults` say why, and what else is wrong.

    `lists`: objects that list its shards and ledgers, where those are many. `summary`: what later versions say of it.
    """

    dataset: str
    version: int
    manifest: Manifest | None
    withdrawn: bool
    faults: tuple[Fault, ...]
    lists: tuple[ObjectRef, ...] = ()
    summary: Summary | None = None

    def objects(self) -> tuple[ObjectRef, ...]:
        """All that the version holds, lists of pointers included; nothing where it cannot be read."""
        return () if self.manifest is None else (*self.manifest.objects(), *self.lists)

    def __str__(self) -> str:
        return f"{self.dataset}@v{self.version}"


def slot_key(dataset: str, version: int) -> str:
    """Where the manifest of a version stands."""
    return f"datasets/{dataset}/versions/{version:08d}.json"


def slots_below(store: Store, prefix: str) -> Iterator[tuple[int, Info]]:
    """Each file that is named like a slot, with its number; `verify` reports what else lies there."""
    for info in store.list(prefix):
        if match := _SLOT.fullmatch(info.key, len(prefix)):
            yield int(match[1]), info


def missing(dataset: str, version: int) -> str:
    """What is wrong where a version's manifest is not there and a later one's is."""
    return f"{dataset}@v{version} is missing though later versions exist: a version is never deleted; {_RESTORE}"


def list_slots(store: Store) -> Slots:
    """One listing. A file under `versions/` or `withdrawn/` that is not named like a slot is a fault."""
    versions: dict[str, list[int]] = {}
    withdrawn: set[tuple[str, int]] = set()
    faults: list[Fault] = []
    for info in store.list("datasets/"):
        parts = info.key.split("/")
        if len(parts) < 4 or parts[2] not in ("versions", "withdrawn"):
            continue
        match = _PLACE.fullmatch(info.key)
        if match is None or not int(match[3]):
            message = f"{info.key} is no {parts[2]} file of a dataset: move it away"
            faults.append(Fault("foreign", info.key, message))
        elif match[2] == "versions":
            versions.setdefault(match[1], []).append(int(match[3]))
        else:
            withdrawn.add((match[1], int(match[3])))
    return Slots({name: sorted(ns) for name, ns in sorted(versions.items())}, frozenset(withdrawn), tuple(faults))


def read_slots(store: Store, slots: Slots, datasets: Iterable[str] | None = None) -> Iterator[Slot]:
    """Every slot from 1 to the last of each dataset, in order, those that are missing in between included."""
    unfolder = Unfolder(store)
    with ThreadPoolExecutor(8) as pool:  # many small GETs; a remote store answers them side by side
        for name in slots.versions if datasets is None else datasets:
            last, before = max(slots.versions[name]), None
            for start in range(1, last + 1, _AT_ONCE):
                numbers = range(start, min(start + _AT_ONCE, last + 1))
                files = pool.map(lambda n: _bytes(store, slot_key(name, n)), numbers)  # noqa: B023  (used up here)
                for n, data in zip(numbers, files, strict=True):
                    yield _slot(unfolder, name, n, data, before, (name, n) in slots.withdrawn)
                    before = data  # though it may be damaged: the next manifest names the bytes that stood here


def follow(store: Store, refs: Iterable[ObjectRef]) -> set[str]:
    """Digests of these objects and of all that lists among them (kind `refs`) name. Raises NotFound for a lost list,
    DamagedObject."""
    reached: set[str] = set()
    todo = list(refs)
    while todo:
        ref = todo.pop()
        if ref.sha256 in reached:
            continue
        reached.add(ref.sha256)
        todo.extend(ref.beside())
        if ref.kind == "refs":
            todo.extend(read_refs(store, ref))
    return reached


def _bytes(store: Store, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NotFound:
        return None


def _slot(unfolder: Unfolder, name: str, n: int, data: bytes | None, before: bytes | None, withdrawn: bool) -> Slot:
    """The slot with these bytes; `before`: those of the slot before it, None where they are not there."""
    key = slot_key(name, n)
    if data is None:
        return Slot(name, n, None, withdrawn, (Fault("gap", key, missing(name, n)),))
    try:
        stored = parse(data)
        manifest, lists = unfolded(unfolder, stored), unfolder.lists((*stored.shards, *stored.ledgers))
    except (ValueError, NotFound, DamagedObject) as error:
        message = f"{name}@v{n}: its manifest {key} cannot be read ({error}); {_RESTORE}"
        return Slot(name, n, None, withdrawn, (Fault("manifest", key, message),))
    faults = tuple(_faults(name, n, manifest, before))
    return Slot(name, n, manifest, withdrawn, faults, lists, Summary.of(manifest, data))


def _faults(name: str, n: int, manifest: Manifest, before: bytes | None) -> Iterator[Fault]:
    """What is wrong with a manifest that can be read. Each check is one that its seal cannot make: of its place, its
    neighbour, and of what a release with a defect would have sealed."""
    key = slot_key(name, n)
    if (manifest.dataset, manifest.version) != (name, n):
        yield Fault("slot", key, f"slot {n} of {name} holds the manifest of {manifest}; {_RESTORE}")
    previous = None if before is None else hashlib.sha256(before).hexdigest()
    if manifest.previous != previous and (before is not None or n == 1):  # a gap before it is reported already
        message = f"{name}@v{n} was committed after a manifest of sha256 {manifest.previous}, but slot {n - 1} holds"
        message += f" {previous}: one of the two was changed since; {_RESTORE}"
        yield Fault("chain", key, message)
    digest = digest_over(manifest.shards, manifest.ledgers)
    if manifest.digest != digest:
        message = f"{name}@v{n} states content digest {manifest.digest[:12]}, its shards and ledgers give {digest[:12]}"
        yield Fault("digest", key, f"{message}: the manifest was changed; {_RESTORE}")
    try:
        manifest.check_shards()
    except ValueError as error:
        yield Fault("manifest", key, f"{error}: the manifest {key} was changed; {_RESTORE}")
    try:
        manifest.check()
    except BalanceError as error:
        message = f"{name}@v{n}: {str(error).partition(' Nothing was committed')[0]} The manifest was changed"
        yield Fault("balance", key, f"{message}, or a defective release wrote it; {_RESTORE}")
