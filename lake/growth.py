"""Growing a dataset by what is new, whatever happens meanwhile.

A nightly run lists its inputs and takes away those in the ancestry of the latest version: nothing left, nothing
to do. Else it pins its base (put-if-absent, under recipe and input list, attempt k), so that the same command
after a kill resumes against the same base although the dataset may have moved on. Losing the slot writes pin
k+1 with the new base; only what depends on the base is redone, because everything else has receipts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lake.identity import digest_of
from lake.manifest import Manifest
from lake.receipt import canonical
from lake.versions import Versions


@dataclass(frozen=True)
class Growth:
    """What to do tonight: `new` input digests on top of version `base` (0: none yet), under pin `attempt`."""

    dataset: str
    key: str
    attempt: int
    base: int
    new: tuple[str, ...]


def plan_growth(
    versions: Versions, dataset: str, recipe: dict[str, Any], inputs: Iterable[str], *, pin: bool = True
) -> Growth | Manifest:
    """The pinned plan for these inputs, or the latest version if it has them all already. Without `pin` a plan that is
    only looked at."""
    listed = sorted(set(inputs))
    key = digest_of(b"growth", dataset, canonical(recipe), canonical(listed))
    latest = versions.latest(dataset)
    if latest is not None and not set(listed) - ancestry(versions, dataset, latest):
        return versions.manifest(dataset, latest)
    pinned = _pinned(versions, dataset, key, listed)
    if pinned is None and not pin:
        return _growth(versions, dataset, key, 1, latest or 0, listed)
    if pinned is None:
        return _pin(versions, dataset, key, listed, 1)
    if pinned.base in versions.withdrawn(dataset):  # taken down since: never build on it
        return _pin(versions, dataset, key, listed, pinned.attempt + 1)
    return pinned


def move_base(versions: Versions, lost: Growth, inputs: Iterable[str]) -> Growth | Manifest:
    """After a lost slot: the next pin, on the version that is latest now; or that version if it has everything."""
    listed = sorted(set(inputs))
    latest = versions.latest(lost.dataset)
    if latest is not None and not set(listed) - ancestry(versions, lost.dataset, latest):
        return versions.manifest(lost.dataset, latest)
    return _pin(versions, lost.dataset, lost.key, listed, lost.attempt + 1)


def ancestors(versions: Versions, manifest: Manifest) -> Iterator[Manifest]:
    """The version and all that it extends, newest first."""
    at: Manifest | None = manifest
    while at is not None:
        yield at
        at = versions.manifest(at.parent.dataset, at.parent.version) if at.parent else None


def ancestry(versions: Versions, dataset: str, version: int) -> set[str]:
    """Input digests of a version and of all it extends."""
    latest = versions.manifest(dataset, version)
    return {item.digest for manifest in ancestors(versions, latest) for item in manifest.inputs}


def _path(dataset: str, key: str, attempt: int) -> str:
    return f"datasets/{dataset}/pins/{key}/{attempt:04d}.json"


def _pinned(versions: Versions, dataset: str, key: str, listed: list[str]) -> Growth | None:
    pins = list(versions.store.list(f"datasets/{dataset}/pins/{key}/"))
    if not pins:
        return None
    data = json.loads(versions.store.get(pins[-1].key))
    return _growth(versions, dataset, key, len(pins), int(data["base"]), listed)


def _pin(versions: Versions, dataset: str, key: str, listed: list[str], attempt: int) -> Growth:
    base = versions.latest(dataset) or 0
    path = _path(dataset, key, attempt)
    if not versions.store.create(path, json.dumps({"format": 1, "base": base}).encode()):
        base = int(json.loads(versions.store.get(path))["base"])  # a run beside ours pinned first
    return _growth(versions, dataset, key, attempt, base, listed)


def _growth(versions: Versions, dataset: str, key: str, attempt: int, base: int, listed: list[str]) -> Growth:
    had = ancestry(versions, dataset, base) if base else set()
    return Growth(dataset, key, attempt, base, tuple(d for d in listed if d not in had))
