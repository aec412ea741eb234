"""Garbage, marked: what no version, no live run and no recent write needs. `lake/upkeep/gc.py` sweeps it.

Roots are the objects of every version that is not withdrawn, the work announced by live runs, and everything
younger than the grace period, which is counted back from the start of the oldest live run. A manifest or receipt
that cannot be read stops gc with its name. Ages are differences of the store's own times, so a wrong clock on this
machine does no harm. The folder of long work (`runs/<work key>/`) stays as long as a live run announces that work.
`datasets/`, `inputs/` and `lake.json` are never touched.
"""

from __future__ import annotations

import errno
import re
import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gristmill.lake.accounts.receipt import read_receipt
from gristmill.lake.store.base import TEMPORARY, Info, NotFound, Store
from gristmill.lake.store.objects import DamagedObject
from gristmill.lake.versions.lease import LEASE_SECONDS, RUN_FOLDER, LiveRun, live_runs
from gristmill.lake.versions.roots import Slots, follow, list_slots, read_slots

GRACE_SECONDS = 86_400.0
"""Longer than a run needs between writing an object and its receipt, and than any clock is off."""

OBJECT = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})")
RECEIPT = re.compile(r"receipts/([0-9a-f]{2})/(\1[0-9a-f]{62})\.json")
LEASE = re.compile(r"(runs/[0-9a-f]{32})/(lease|clock|\d{4,})\.json")
"""What gc may delete, by name. Anything else below these folders is somebody's own and stays."""
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class GcStopped(Exception):
    """Something that gc must know cannot be read. Nothing more was deleted."""


@dataclass(frozen=True)
class Doomed:
    """`kind`: receipt | object | lease | run | temporary. `modified` is checked again before it goes."""

    kind: str
    key: str
    bytes: int
    modified: float
    why: str


@dataclass(frozen=True)
class GcPlan:
    """What would go and why; nothing was deleted yet. `kept` counts what stays: reason -> (objects, bytes).

    `now` is the store's time of the plan (`clock`: this machine's, where no file may be written that tells the store's
    own); what changed after `cutoff` (seconds since the epoch) is young. `known` versions and `promises` (receipt ->
    its outputs) are what the sweep compares the store with.
    """

    uri: str
    now: float
    skew: float
    grace_seconds: float
    cutoff: float
    doomed: tuple[Doomed, ...]
    kept: Mapping[str, tuple[int, int]]
    known: frozenset[str] = field(repr=False)
    promises: Mapping[str, tuple[str, ...]] = field(repr=False)
    clock: Literal["store", "machine"] = "store"

    @property
    def bytes(self) -> int:
        """Of all that would go."""
        return sum(doomed.bytes for doomed in self.doomed)

    def reasons(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(kind, why) -> (how many, bytes)."""
        return tally_up(((doomed.kind, doomed.why), doomed.bytes) for doomed in self.doomed)

    def to_json(self) -> dict[str, Any]:
        """As `grist gc --json` prints it."""
        going = [{"kind": k, "why": why, "count": n, "bytes": b} for (k, why), (n, b) in self.reasons().items()]
        kept = [{"why": why, "count": n, "bytes": b} for why, (n, b) in self.kept.items()]
        return {"lake": self.uri, "bytes": self.bytes, "count": len(self.doomed), "going": going, "kept": kept}


def tally_up(items: Iterable[tuple[Any, int]]) -> dict[Any, tuple[int, int]]:
    """key -> (how many, sum), sorted by key."""
    sums: dict[Any, tuple[int, int]] = {}
    for key, size in items:
        count, total = sums.get(key, (0, 0))
        sums[key] = (count + 1, total + size)
    return dict(sorted(sums.items()))


def plan_gc(
    store: Store, *, grace_seconds: float = GRACE_SECONDS, now: float | None = None, to_look: bool = False
) -> GcPlan:
    """What gc would delete. Deletes nothing (it puts and removes one empty file, to read the store's clock).

    `now` is the store's time in seconds since the epoch; tests give one. `to_look`: nothing will be done by this plan,
    so that a lake that cannot be written is measured by this machine's clock. Raises GcStopped, ValueError.
    """
    if grace_seconds < 0:
        raise ValueError(f"grace_seconds={grace_seconds}: 0 or more; a day is usual, an hour the least that is wise")
    now, clock = _clock(store, to_look=to_look) if now is None else (now, "store")
    skew = now - time.time()
    # Leases before receipts and versions: a run that ends in between has its version committed by then.
    runs = _live(store, now)
    # What a run writes is held by no version until it commits, hours later: so grace is counted back from its start.
    cutoff = min([now, *(run.started for run in runs)]) - grace_seconds
    receipts = _list(store, "receipts/", RECEIPT)
    announced = {key for run in runs for key in run.work}
    promises = _promises(store, receipts)
    live = {sha for key in announced for sha in promises.get(key, ())}
    young_receipts = [key for key in promises if receipts[key].modified > cutoff]
    recent = {sha for key in young_receipts for sha in promises[key]}  # however old they are themselves
    slots = list_slots(store)
    held, withdrawn = read_roots(store, slots)
    objects = _list(store, "objects/", OBJECT)
    named = {sha for outputs in promises.values() for sha in outputs}
    kept: list[tuple[str, int]] = []
    doomed: list[Doomed] = []
    staying: set[str] = set()
    for sha, info in objects.items():
        needed_by = _needed_by(sha, held, live, young=info.modified > cutoff or sha in recent)
        if needed_by is not None:
            kept.append((needed_by, info.size))
            staying.add(sha)
            continue
        why = "only withdrawn versions hold it" if sha in withdrawn else _why(sha in named)
        doomed.append(Doomed("object", info.key, info.size, info.modified, why))
    for key, info in receipts.items():
        lost = not staying.issuperset(promises.get(key, ()))
        if lost and key not in announced and info.modified <= cutoff:
            doomed.append(Doomed("receipt", info.key, info.size, info.modified, "its outputs go or are gone"))
    doomed += _stale_leases(store, runs, now - grace_seconds)
    doomed += _stale_folders(store, announced, cutoff)
    doomed += _leftovers(store, now - max(grace_seconds, LEASE_SECONDS))  # a live writer's file is young
    ages = (now, skew, grace_seconds, cutoff)
    return GcPlan(store.uri, *ages, tuple(doomed), tally_up(kept), frozenset(slots.keys()), promises, clock)


def _needed_by(sha: str, held: set[str], live: set[str], *, young: bool) -> str | None:
    """Why an object stays, the strongest reason first; None: it goes."""
    if sha in held:
        return "version"
    if sha in live:
        return "live run"
    return "young" if young else None


def _why(named: bool) -> str:
    return "result of work that no version holds" if named else "neither a version nor a receipt names it"


def store_time(store: Store) -> float:
    """The store's own time, in seconds since the epoch: that of a file written now."""
    key = f"runs/{uuid.uuid4().hex}/clock.json"
    store.put(key, b"{}")
    info = store.info(key)
    store.delete(key)
    if info is None:
        raise GcStopped(f"{store.uri}: {key} was written and is not there; gc does not trust such a store")
    return info.modified


def _clock(store: Store, *, to_look: bool) -> tuple[float, Literal["store", "machine"]]:
    """The time, and whose it is."""
    try:
        return store_time(store), "store"
    except OSError as error:
        if not to_look or error.errno not in _READ_ONLY:
            raise
        return time.time(), "machine"


def read_roots(store: Store, slots: Slots, known: frozenset[str] | None = None) -> tuple[set[str], set[str]]:
    """Digests that versions hold, and those that withdrawn ones held. With `known`, only of datasets with new slots.

    Raises GcStopped for anything that cannot be read.
    """
    if slots.faults:
        raise GcStopped(f"gc stopped: {slots.faults[0].message}")
    held: set[str] = set()
    withdrawn: set[str] = set()
    # By whole datasets: what a manifest says of itself is checked against the one in the slot before.
    changed = {key.split("/")[1] for key in slots.keys() - (known or frozenset())}
    for slot in read_slots(store, slots, sorted(changed)):
        if slot.manifest is None or slot.faults:
            raise GcStopped(
                f"gc stopped, because what it cannot read it might delete: {slot.faults[0].message}."
                " `grist verify` lists everything that is wrong"
            )
        if slot.withdrawn:
            withdrawn.update(ref.sha256 for ref in slot.objects())
            continue
        try:
            held |= follow(store, slot.objects())
        except (NotFound, DamagedObject, ValueError) as error:
            raise GcStopped(
                f"gc stopped: a list object of {slot} cannot be read ({error}); see `grist verify`"
            ) from error
    return held, withdrawn


def _live(store: Store, now: float) -> list[LiveRun]:
    """Live runs. Raises GcStopped where it cannot be read what one announces."""
    try:
        return live_runs(store, now)
    except ValueError as error:
        raise GcStopped(f"gc stopped: {error}") from error


def _list(store: Store, prefix: str, pattern: re.Pattern[str]) -> dict[str, Info]:
    """Everything below `prefix` whose name fits the pattern, by the digest in it."""
    return {match[2]: info for info in store.list(prefix) if (match := pattern.fullmatch(info.key))}


def _promises(store: Store, receipts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Outputs of every receipt that is still there."""
    with ThreadPoolExecutor(16) as pool:
        named = zip(receipts, pool.map(lambda key: _outputs(store, key), receipts), strict=True)
        return {key: outputs for key, outputs in named if outputs is not None}


def _outputs(store: Store, key: str) -> tuple[str, ...] | None:
    """Digests of what the receipt says was written, and of what lists among it name."""
    try:
        receipt = read_receipt(store, key)
    except ValueError as error:
        raise GcStopped(f"gc stopped: {error}") from error
    if receipt is None:
        return None
    try:
        return tuple(sorted(follow(store, receipt.outputs)))
    except NotFound:  # a list is gone: so is the use of the receipt, and the work will be done again
        return tuple(held.sha256 for ref in receipt.outputs for held in (ref, *ref.beside()))
    except DamagedObject as error:
        raise GcStopped(f"gc stopped: a list that receipt {key} names cannot be read: {error}") from error


def _stale_leases(store: Store, runs: Iterable[LiveRun], before: float) -> list[Doomed]:
    """The files of dead runs that wrote nothing since `before`; those of one run go together or not at all."""
    alive = {run.folder for run in runs}
    folders: dict[str, list[Info]] = {}
    for info in store.list("runs/"):
        match = LEASE.fullmatch(info.key)
        if match and match[1] not in alive:
            folders.setdefault(match[1], []).append(info)
    doomed: list[Doomed] = []
    for infos in folders.values():
        if max(info.modified for info in infos) <= before:
            doomed += [Doomed("lease", info.key, info.size, info.modified, "its run is dead") for info in infos]
    return doomed


def _stale_folders(store: Store, announced: Collection[str], before: float) -> list[Doomed]:
    """The folders of work that no live run announces, in which nothing was written since `before`."""
    folders: dict[str, list[Info]] = {}
    for info in store.list("runs/"):
        match = RUN_FOLDER.match(info.key)
        if match and match[1] not in announced:
            folders.setdefault(match[1], []).append(info)
    doomed: list[Doomed] = []
    for infos in folders.values():
        if max(info.modified for info in infos) <= before:
            doomed += [Doomed("run", info.key, info.size, info.modified, "its run is dead") for info in infos]
    return doomed


def _leftovers(store: Store, before: float) -> list[Doomed]:
    """Half-written files of killed writers. Local lakes only: on S3 what was not completed is not there."""
    if store.uri.startswith("s3://"):
        return []
    left_behind = []
    for path in sorted(Path(store.uri, TEMPORARY).glob("*")):
        try:
            status = path.stat()
        except FileNotFoundError:  # its writer finished
            continue
        if status.st_mtime <= before:
            key = f"{TEMPORARY}/{path.name}"
            left_behind.append(Doomed("temporary", key, status.st_size, status.st_mtime, "its writer was killed"))
    return left_behind
