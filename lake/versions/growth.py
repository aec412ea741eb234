"""Growing a dataset by what is new, whatever happens meanwhile.

A nightly run lists its inputs and takes away those in the ancestry of the latest version: nothing left, nothing
to do. Else it pins its base (put-if-absent, under recipe and input list, attempt k), so that the same command
after a kill resumes against the same base although the dataset may have moved on. Losing the slot writes pin
k+1 with the new base; only what depends on the base is redone, because everything else has receipts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.sealed import Unreadable, read_note, write_note
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions

_ATTEMPT = re.compile(r"/(\d{4,})\.json$")


@dataclass(frozen=True)
class Growth:
    """What an increment has to do: `new` input digests on top of version `base` (0: none yet), under pin `attempt`.
    `key`: of its recipe and its list of inputs."""

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
    attempt, base = _last_pin(versions, dataset, key)
    # The pin decides, and not what is latest by now: the receipts of the run that was killed are about its base. Only
    # where that was taken down since is another one pinned.
    if base is not None and base not in versions.withdrawn(dataset):
        return _growth(versions, dataset, key, attempt, base, listed)
    if not pin:
        return _growth(versions, dataset, key, attempt + 1, latest or 0, listed)
    return _pin(versions, dataset, key, listed, attempt + 1)


def move_base(versions: Versions, lost: Growth, inputs: Iterable[str]) -> Growth | Manifest:
    """After a lost slot: the next pin, on the version that is latest now; or that version if it has everything."""
    listed = sorted(set(inputs))
    latest = versions.latest(lost.dataset)
    if latest is not None and not set(listed) - ancestry(versions, lost.dataset, latest):
        return versions.manifest(lost.dataset, latest)
    return _pin(versions, lost.dataset, lost.key, listed, lost.attempt + 1)


def ancestors(versions: Versions, manifest: Manifest) -> Iterator[Manifest]:
    """The version and all that it extends, newest first."""
    at = manifest
    yield at
    while (ref := at.parent) is not None:
        child, at = at, versions.manifest(ref.dataset, ref.version)
        if at.digest != ref.digest:
            raise Unreadable(
                f"{child} extends {at} of digest {ref.digest[:12]}, which now has {at.digest[:12]}: one of the two"
                " manifests was changed; `grist verify` says which"
            )
        yield at


def ancestry(versions: Versions, dataset: str, version: int) -> set[str]:
    """Input digests of a version and of all it extends."""
    latest = versions.manifest(dataset, version)
    return {item.digest for manifest in ancestors(versions, latest) for item in manifest.inputs}


def pin_key(dataset: str, key: str, attempt: int) -> str:
    """Where attempt `attempt` of a run is pinned; `key` is of its recipe and list of inputs."""
    return f"datasets/{dataset}/pins/{key}/{attempt:04d}.json"


def read_pin(store: Store, dataset: str, key: str, attempt: int) -> int:
    """The version that attempt `attempt` of an increment is built on. Raises Unreadable, NotFound."""
    about = {"dataset": dataset, "night": key, "attempt": attempt}  # as lakes have it: an increment was a night once
    remedy = "it is not used, and the increment is pinned anew; delete it"
    return int(read_note(store, pin_key(dataset, key, attempt), about, remedy, base=int)["base"])


def _last_pin(versions: Versions, dataset: str, key: str) -> tuple[int, int | None]:
    """(attempt, its base) of the last pin; (0, None) if there is none. The base is None if it cannot be read."""
    prefix = f"datasets/{dataset}/pins/{key}/"
    attempts = [int(match[1]) for info in versions.store.list(prefix) if (match := _ATTEMPT.search(info.key))]
    if not attempts:
        return 0, None
    try:
        return max(attempts), read_pin(versions.store, dataset, key, max(attempts))
    except Unreadable as error:
        versions.warn(error)
        return max(attempts), None


def _pin(versions: Versions, dataset: str, key: str, listed: list[str], attempt: int) -> Growth:
    """Pins the latest version as the base of this attempt, or takes the one that an equal run pinned."""
    base = versions.latest(dataset) or 0
    note = write_note({"dataset": dataset, "night": key, "attempt": attempt}, base=base)
    if not versions.store.create(pin_key(dataset, key, attempt), note):
        try:
            base = read_pin(versions.store, dataset, key, attempt)  # an equal run pinned first; both do its work
        except Unreadable as error:
            versions.warn(error)
            return _pin(versions, dataset, key, listed, attempt + 1)
    return _growth(versions, dataset, key, attempt, base, listed)


def _growth(versions: Versions, dataset: str, key: str, attempt: int, base: int, listed: list[str]) -> Growth:
    """The plan on this base. New is what the base has not: another version may have some of it, and is not built on."""
    had = ancestry(versions, dataset, base) if base else set()
    return Growth(dataset, key, attempt, base, tuple(d for d in listed if d not in had))
