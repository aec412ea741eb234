"""Verify: is everything that versions promise still there, and is it what they say?

Always: the chain of manifests, their seals, digests and balances, that every object is there at its size, and of the
whole lake every other file (lake/upkeep/inventory.py). `deep` reads every object once, however many versions share it,
and compares rows and ids with ledger and manifest. A finding names the object and every version it harms, of every
dataset, because an object may serve many. It only looks: repairs are for people. Objects that only withdrawn versions
hold may be gone, and nobody misses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from gristmill.lake.accounts.fan import MEMBER
from gristmill.lake.accounts.proof import Proof, prove
from gristmill.lake.query.query import require_dataset
from gristmill.lake.store.base import Info, NotFound, Store
from gristmill.lake.store.objects import DamagedObject, ObjectRef
from gristmill.lake.takedown.suppress_guard import Witness, list_problems
from gristmill.lake.upkeep.inventory import take_inventory, unheld
from gristmill.lake.upkeep.verify_content import DEFECT, Finding, compare
from gristmill.lake.versions.history import KIND as HISTORY
from gristmill.lake.versions.history import read_block
from gristmill.lake.versions.manifest import RESTORE, Manifest, VersionRef
from gristmill.lake.versions.roots import Slot, list_slots, read_slots, slot_key
from gristmill.lake.versions.versions import Versions

_REPAIR = (
    "Copy the object from a backup or another lake (one of the same name has the same bytes); without one, delete it"
    " and run the recipe of the versions it harms again, which makes the same bytes. Do not withdraw them first: what"
    " was withdrawn is not made again"
)
_DERIVED = (
    "Copy the object from a backup or another lake. Without it the manifests that it tells of are read instead, and"
    " commits to come write it anew"
)


Progress = Callable[[int, int, str], None]
"""Called with (objects done, objects in all, what is being looked at)."""


def verify(
    store: Store, refs: Sequence[str] | None = None, deep: bool = False, progress: Progress | None = None
) -> list[Finding]:
    """What is wrong with these versions (`web@v3`, `web@tag`; `web`: all of them), or with the whole lake.

    Manifests of the whole lake are read in any case, to know whom an object harms. Raises NoSuchVersion.
    """
    wanted = None if refs is None else _wanted(store, refs)
    survey = _Survey(store, wanted)
    findings = list(survey.findings)
    findings += survey.wrong_histories(deep=deep)
    problems = list_problems(store, survey.witnesses.values())
    findings += [Finding("error", "suppression", key, (), message) for key, message in problems]
    sizes = _sizes(store, survey.objects, listed=wanted is None)
    whole = []
    for ref in survey.objects.values():
        wrong = _missing(ref, sizes.get(ref.key))
        if wrong is None:
            whole.append(ref)
        else:
            findings.append(_of_object(ref, wrong, survey.harmed(ref.sha256)))
    if wanted is None:
        findings += [Finding(o.severity, o.what, o.key, (), o.message) for o in take_inventory(store, survey.listed)]
    proofs: dict[str, Proof] = {}
    if deep and wanted is None:
        findings += [Finding(o.severity, o.what, o.key, (), o.message) for o in unheld(store, survey.objects)]
    if deep:
        with ThreadPoolExecutor(4) as pool:
            prove_one = partial(_prove, store, survey.id_columns)
            for done, proof in enumerate(pool.map(prove_one, whole), 1):
                proofs[proof.ref.sha256] = proof
                if proof.problem is not None:
                    findings.append(_of_object(proof.ref, proof.problem, survey.harmed(proof.ref.sha256)))
                if progress is not None:
                    progress(done, len(whole), f"{proof.ref.kind} {proof.ref.sha256[:12]}")
        for slot in survey.slots():
            if slot.manifest is not None and not slot.withdrawn:
                findings += compare(store, slot.manifest, proofs)
    return _still_true(store, findings)


def _prove(store: Store, id_columns: Mapping[str, str], ref: ObjectRef) -> Proof:
    return prove(store, ref, id_columns.get(ref.sha256))


def _wanted(store: Store, refs: Sequence[str]) -> set[tuple[str, int]]:
    """(dataset, number) of what was asked for, gaps in a dataset's numbers included. Raises NoSuchVersion."""
    versions = Versions(store)
    wanted: set[tuple[str, int]] = set()
    for ref in refs:
        name, _, at = ref.partition("@")
        if not at:
            require_dataset(versions, name)
            wanted.update((name, n) for n in range(1, max(versions.numbers(name)) + 1))
        elif re.fullmatch(r"v\d+", at) and int(at[1:]) in versions.numbers(name):
            wanted.add((name, int(at[1:])))  # by number, so that a damaged manifest is a finding and no error
        else:
            wanted.add((name, versions.tagged(name, at)))
    return wanted


def _origins(manifest: Manifest) -> tuple[VersionRef, ...]:
    """What a version extends and what it was made from."""
    return (*((manifest.parent,) if manifest.parent else ()), *manifest.sources)


class _Survey:
    """One pass over all manifests: the findings about those wanted, their objects, and who holds each object."""

    def __init__(self, store: Store, wanted: set[tuple[str, int]] | None) -> None:
        self.store, self.wanted = store, wanted
        self.listed = list_slots(store)
        self.objects: dict[str, ObjectRef] = {}
        self.id_columns: dict[str, str] = {}  # of tables that name records, one a row
        self.findings: list[Finding] = []
        self._holders: dict[str, list[int]] = {}
        self._names: list[str] = []
        self._digests: dict[str, str] = {}
        self._named: list[tuple[str, str, VersionRef]] = []
        self.witnesses: dict[str, list[Witness]] = {}  # of the suppression list
        self._summaries: dict[tuple[str, int], str] = {}  # the digest of each version's summary
        if wanted is None:
            self.findings += [Finding("warning", f.what, f.key, (), f.message) for f in self.listed.faults]
        for slot in read_slots(store, self.listed):
            if self._wants(slot):
                self.findings += [Finding("error", f.what, f.key, (str(slot),), f.message) for f in slot.faults]
            if slot.manifest is not None:
                self.witnesses.setdefault(slot.dataset, []).append(Witness.of(slot.manifest))
            if slot.summary is not None:
                self._summaries[slot.dataset, slot.version] = slot.summary.fingerprint
            if slot.manifest is not None and not slot.withdrawn:
                self._add(slot, slot.manifest)
                self._digests[str(slot)] = slot.manifest.digest
                if self._wants(slot):
                    self._named += [
                        (str(slot), slot_key(slot.dataset, slot.version), ref) for ref in _origins(slot.manifest)
                    ]
        self.findings += self._wrong_origins()

    def _wrong_origins(self) -> Iterator[Finding]:
        """Versions that others were made from, and that are not what they were."""
        for version, key, ref in self._named:
            there = self._digests.get(str(ref))
            if ref.version not in self.listed.versions.get(ref.dataset, ()):
                message = f"{version} was made from {ref}, which is not there; {RESTORE}"
                yield Finding("error", "source", key, (version,), message)
            elif there not in (None, ref.digest):
                message = (
                    f"{version} was made from {ref} of digest {ref.digest[:12]}, which now has {there[:12]}; {RESTORE}"
                )
                yield Finding("error", "source", key, (version,), message)

    def wrong_histories(self, *, deep: bool) -> Iterator[Finding]:
        """Blocks of summaries that do not say what manifests do. With `deep`, damaged ones are named with all other
        objects."""
        for ref in (ref for ref in self.objects.values() if ref.kind == HISTORY):
            harmed = self.harmed(ref.sha256)
            try:
                names = sorted({version.rpartition("@v")[0] for version in harmed})
                rows = [row for name in names for row in read_block(self.store, name, ref)]
            except NotFound:  # named with all other objects
                continue
            except DamagedObject as error:
                if not deep:
                    yield _of_object(ref, ("corrupt", f"cannot be read ({error})"), harmed)
                continue
            except ValueError as error:
                message = f"{error}: the manifests that it should tell of are read instead"
                yield Finding("error", "history", ref.sha256, harmed, message)
                continue
            for row in rows:
                there = self._summaries.get((row.dataset, row.version))
                if there not in (None, row.fingerprint):
                    message = f"history {ref.sha256[:12]} does not say of {row} what its manifest does. {DEFECT}"
                    yield Finding("error", "history", ref.sha256, harmed, message)

    def _wants(self, slot: Slot) -> bool:
        return self.wanted is None or (slot.dataset, slot.version) in self.wanted

    def _add(self, slot: Slot, manifest: Manifest) -> None:
        """Notes what a version that is given out holds."""
        self._names.append(str(slot))
        for ref in manifest.shards:
            if (column := manifest.layout.id_column_of(ref.kind)) is not None:
                self.id_columns[ref.sha256] = column
        self.id_columns |= {ref.sha256: MEMBER for ref in manifest.members}  # of tars, which have no columns
        wanted, number = self._wants(slot), len(self._names) - 1
        for held in slot.objects():
            for ref in (held, *held.beside()):
                # Numbers, not names: of a dataset that grew a hundred times the first object has a hundred holders.
                holders = self._holders.setdefault(ref.sha256, [])
                if not holders or holders[-1] != number:  # a version may hold an object twice
                    holders.append(number)
                if wanted:
                    self.objects.setdefault(ref.sha256, ref)

    def harmed(self, sha256: str) -> tuple[str, ...]:
        """Every version that holds the object."""
        return tuple(self._names[i] for i in self._holders.get(sha256, ()))

    def slots(self) -> Iterator[Slot]:
        """The wanted ones again; manifests of many versions are too large to keep."""
        datasets = None if self.wanted is None else sorted({name for name, _ in self.wanted})
        return (slot for slot in read_slots(self.store, self.listed, datasets) if self._wants(slot))


def _sizes(store: Store, objects: dict[str, ObjectRef], *, listed: bool) -> dict[str, Info]:
    """What the store has of these. For the whole lake one listing is cheaper than a question an object."""
    keys = {ref.key for ref in objects.values()}
    if listed:
        return {info.key: info for info in store.list("objects/") if info.key in keys}
    with ThreadPoolExecutor(16) as pool:
        return {info.key: info for info in pool.map(store.info, sorted(keys)) if info is not None}


def _missing(ref: ObjectRef, info: Info | None) -> tuple[str, str] | None:
    """(what, problem) of an object, as far as a listing shows; None: it is there at its size."""
    if info is None:
        return "missing", "is not in the store"
    return None if info.size == ref.bytes else ("size", f"has {info.size:,} bytes, not {ref.bytes:,}")


def _of_object(ref: ObjectRef, wrong: tuple[str, str], harmed: tuple[str, ...]) -> Finding:
    """The finding about an object. Rows that do not agree under a right digest were written so: no copy mends them."""
    what, problem = wrong
    remedy = DEFECT if what in ("rows", "ledger") else _DERIVED if ref.kind == HISTORY else _REPAIR
    return Finding("error", what, ref.sha256, harmed, f"{ref.kind} {ref.sha256[:12]} {problem}. {remedy}")


def _still_true(store: Store, findings: list[Finding]) -> list[Finding]:
    """Without what harms only versions withdrawn while we looked: gc takes their objects, and rightly."""
    gone = {f"{name}@v{n}" for name, n in list_slots(store).withdrawn}
    of_objects = ("missing", "size", "corrupt", "unreadable")
    return [f for f in findings if f.what not in of_objects or not f.harmed or set(f.harmed) - gone]
