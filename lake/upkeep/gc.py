"""Collecting garbage: `plan_gc` says what would go and why, `run_gc` deletes it, looking again before each deletion.

Receipts go before objects. A run announces its work, then looks for receipts, then for their outputs: so once a
receipt is gone, a run either announced the work (the leases are read again: its outputs stay, its receipt comes
back) or does it again, which renews the outputs' age. Leases are read before versions, because a run commits
before it ends. Killed at any point, a sweep leaves nothing but garbage, and the next one finishes it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.lake.store.base import TEMPORARY, NotFound, Store
from gristmill.lake.upkeep.mark import LEASE, Doomed, GcPlan, GcStopped, plan_gc, read_roots, tally_up
from gristmill.lake.versions.lease import RUN_FOLDER, live_runs
from gristmill.lake.versions.roots import list_slots

__all__ = ["Doomed", "GcPlan", "GcReport", "GcStopped", "plan_gc", "run_gc"]

BATCH = 256
"""Deletions between two looks at leases and versions: a second or two on a remote store."""

_ORDER = ("receipt", "object", "lease", "run", "temporary")
"""Receipts first: one that stood without its outputs would be believed by the next run."""
_SWEPT = ("objects/", "receipts/", "runs/")


@dataclass(frozen=True)
class GcReport:
    """What went: kind -> (how many, bytes); what was spared since the plan: why -> how many."""

    deleted: dict[str, tuple[int, int]]
    spared: dict[str, int]

    @property
    def bytes(self) -> int:
        """Of all that was deleted."""
        return sum(size for _, size in self.deleted.values())

    def to_json(self) -> dict[str, Any]:
        """As `grist gc --json` prints it."""
        gone = {kind: {"count": n, "bytes": size} for kind, (n, size) in self.deleted.items()}
        return {"bytes": self.bytes, "deleted": gone, "spared": self.spared}


def run_gc(store: Store, plan: GcPlan, progress: Callable[[int, int], None] | None = None) -> GcReport:
    """Deletes what the plan names and nothing needs since. `progress` is called with (done, total).

    What remains of the race with a run that writes the same bytes again is the instant between looking and
    deleting; such a run is refused at commit, which checks every object, and does the work again.
    Raises GcStopped, ValueError (the plan of another lake), and whatever the store raises: run gc again then.
    """
    if plan.clock != "store":
        raise ValueError("gc: the plan was made to look at, by this machine's clock; plan again where you may write")
    if plan.uri != store.uri:
        raise ValueError(f"gc: the plan is for {plan.uri}, the store is {store.uri}; plan again for this one")
    guard = _Guard(store, plan)
    outcomes: list[tuple[Doomed, str | None]] = []
    with ThreadPoolExecutor(8) as pool:
        for kind in _ORDER:
            of_kind = [doomed for doomed in plan.doomed if doomed.kind == kind]
            for start in range(0, len(of_kind), BATCH):
                guard.refresh()
                outcomes += _sweep(guard, pool, kind, of_kind[start : start + BATCH])
                if progress is not None:
                    progress(len(outcomes), len(plan.doomed))
    gone = tally_up((doomed.kind, doomed.bytes) for doomed, why in outcomes if why is None)
    return GcReport(gone, dict(sorted(Counter(why for _, why in outcomes if why is not None).items())))


class _Guard:
    """What must not go, as of the last `refresh`: the plan is minutes old, and runs went on meanwhile."""

    def __init__(self, store: Store, plan: GcPlan) -> None:
        self.store, self.plan = store, plan
        self.known = plan.known
        self.held: set[str] = set()  # digests in versions committed since the plan
        self.announced: set[str] = set()  # keys of live work
        self.promised: set[str] = set()  # digests that receipts of live work name
        self.alive: set[str] = set()

    def refresh(self) -> None:
        """Looks again at leases and at versions that were committed since.

        In this order: a run commits before its lease ends, so that one that ends in between is seen as a version. What
        versions hold is only added to, as none goes away; who is alive is asked anew each time.
        """
        try:
            runs = live_runs(self.store, time.time() + self.plan.skew)
        except ValueError as error:
            raise GcStopped(f"gc stopped half-way, run it again later: {error}") from error
        self.alive = {run.folder for run in runs}
        self.announced = {key for run in runs for key in run.work}
        self.promised = {sha for key in self.announced for sha in self.plan.promises.get(key, ())}
        slots = list_slots(self.store)
        if slots.keys() != self.known or slots.faults:
            self.held |= read_roots(self.store, slots, self.known)[0]
            self.known = frozenset(slots.keys())

    def needs(self, doomed: Doomed) -> str | None:
        """Why it must stay after all; None: nothing needs it."""
        sha = doomed.key.rpartition("/")[2].removesuffix(".json")
        if doomed.kind == "object" and sha in self.held:
            return "a version committed since holds it"
        if (doomed.kind == "object" and sha in self.promised) or (doomed.kind == "receipt" and sha in self.announced):
            return "a run that began since needs it"
        match = LEASE.fullmatch(doomed.key)
        if doomed.kind == "lease" and match is not None and match[1] in self.alive:
            return "its run is alive"
        folder = RUN_FOLDER.match(doomed.key)
        if doomed.kind == "run" and folder is not None and folder[1] in self.announced:
            return "its run is alive"
        return None


def _sweep(
    guard: _Guard, pool: ThreadPoolExecutor, kind: str, batch: Sequence[Doomed]
) -> list[tuple[Doomed, str | None]]:
    """Each of the batch with None if it is gone now, else why it was spared.

    Between the look at a lease and the deletion of a receipt a run may have announced its work and read the receipt: it
    would go on to rely on outputs that go next. So bodies are kept, leases are looked at once more behind the deletion,
    and a receipt of announced work is put back before any object is touched.
    """
    if kind != "receipt":
        return list(zip(batch, pool.map(lambda doomed: _delete(guard, doomed), batch), strict=True))
    bodies = list(pool.map(lambda doomed: _body(guard.store, doomed.key), batch))
    results = list(pool.map(lambda doomed: _delete(guard, doomed), batch))
    guard.refresh()
    for i, (doomed, body) in enumerate(zip(batch, bodies, strict=True)):
        why = guard.needs(doomed)
        if results[i] is None and why is not None and body is not None:
            guard.store.create(doomed.key, body)  # never over one that the run wrote itself meanwhile
            results[i] = why
    return list(zip(batch, results, strict=True))


def _body(store: Store, key: str) -> bytes | None:
    """The bytes of a file; None where it is gone."""
    try:
        return store.get(key)
    except NotFound:  # another gc took it
        return None


def _delete(guard: _Guard, doomed: Doomed) -> str | None:
    """Deletes it, unless it is needed or changed since the plan; then says why. Gone already counts as deleted."""
    why = guard.needs(doomed)
    if why is not None:
        return why
    if doomed.kind == "temporary":
        return _delete_temporary(guard.store, doomed)
    if not doomed.key.startswith(_SWEPT):
        raise ValueError(f"gc: {doomed.key!r} is not gc's to delete; it sweeps {', '.join(_SWEPT)} only. Plan again")
    info = guard.store.info(doomed.key)
    if info is not None and not _same_time(info.modified, doomed.modified):
        return "it was written again since the plan"
    guard.store.delete(doomed.key)
    return None


def _same_time(a: float, b: float) -> bool:
    """Some S3 stores list fractions of a second and answer HEAD without: then whole seconds are compared."""
    return a == b or (int(a) == int(b) and (a.is_integer() or b.is_integer()))


def _delete_temporary(store: Store, doomed: Doomed) -> str | None:
    """As `_delete`, for a half-written file: it is none of the store's keys, and so is reached by its path."""
    path = Path(store.uri, TEMPORARY, Path(doomed.key).name)
    try:
        if path.stat().st_mtime != doomed.modified:
            return "it was written again since the plan"
        path.unlink()
    except FileNotFoundError:  # its writer finished after all, or another gc took it
        pass
    return None
