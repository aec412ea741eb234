"""Verify: is everything that versions promise still there, and is it what they say?

Always: the chain of manifests, their seals, digests and balances, that every object is there at its size, and of the
whole lake every other file (lake/inventory.py). `deep` reads every object once, however many versions share it, and
compares rows and ids with ledger and manifest. A finding names the object and every version it harms, of every dataset,
because an object may serve many. It only looks: repairs are for people. Objects that only withdrawn versions hold may
be gone, and nobody misses them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any

from lake.balance import Tally, total
from lake.inventory import take_inventory, unheld
from lake.manifest import RESTORE, Manifest, VersionRef
from lake.objects import ObjectRef
from lake.proof import Proof, id_batches, prove
from lake.query import require_dataset
from lake.roots import Slot, list_slots, read_slots, slot_key
from lake.store import Info, Store
from lake.suppress_guard import Witness, list_problems
from lake.versions import Versions

_REPAIR = (
    "Copy the object from a backup or another lake (one of the same name has the same bytes); without one, delete it"
    " and run the recipe of the versions it harms again, which makes the same bytes. Do not withdraw them first: what"
    " was withdrawn is not made again"
)
_DEFECT = (
    "The release that wrote it has a defect: please report it. A release that mends it makes the version anew from the"
    " same recipe; withdraw this one then"
)
_WHOLE = 1_000_000
"""Ids compared in one set when stray ones are looked for: about 150 MB."""


@dataclass(frozen=True)
class Finding:
    """`severity`: error | warning. `what`: manifest | slot | gap | chain | digest | balance | source | foreign |
    missing | size | corrupt | unreadable | rows | ledger | shards | tag | withdrawal | pin | receipt | note | lease |
    suppression. `where`: the sha256 of an object, else a key of the store.
    `harmed`: every version that is not what it was, as `web@v3`."""

    severity: str
    what: str
    where: str
    harmed: tuple[str, ...]
    message: str

    def to_json(self) -> dict[str, Any]:
        return {
            "severity": self.severity,
            "what": self.what,
            "where": self.where,
            "harmed": list(self.harmed),
            "message": self.message,
        }


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
                findings += _compare(store, slot.manifest, proofs)
    return _still_true(store, findings)


def _prove(store: Store, id_columns: Mapping[str, str], ref: ObjectRef) -> Proof:
    return prove(store, ref, id_columns.get(ref.sha256))


def _wanted(store: Store, refs: Sequence[str]) -> set[tuple[str, int]]:
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
    return (*((manifest.parent,) if manifest.parent else ()), *manifest.sources)


class _Survey:
    """One pass over all manifests: the findings about those wanted, their objects, and who holds each object."""

    def __init__(self, store: Store, wanted: set[tuple[str, int]] | None) -> None:
        self.store, self.wanted = store, wanted
        self.listed = list_slots(store)
        self.objects: dict[str, ObjectRef] = {}
        self.id_columns: dict[str, str] = {}  # of shards that are tables of records
        self.findings: list[Finding] = []
        self._holders: dict[str, list[int]] = {}
        self._names: list[str] = []
        self._digests: dict[str, str] = {}
        self._named: list[tuple[str, str, VersionRef]] = []
        self.witnesses: dict[str, list[Witness]] = {}  # of the suppression list
        if wanted is None:
            self.findings += [Finding("warning", f.what, f.key, (), f.message) for f in self.listed.faults]
        for slot in read_slots(store, self.listed):
            if self._wants(slot):
                self.findings += [Finding("error", f.what, f.key, (str(slot),), f.message) for f in slot.faults]
            if slot.manifest is not None:
                self.witnesses.setdefault(slot.dataset, []).append(Witness.of(slot.manifest))
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
                said = f"{version} was made from {ref}, which is not there; {RESTORE}"
                yield Finding("error", "source", key, (version,), said)
            elif there not in (None, ref.digest):
                said = (
                    f"{version} was made from {ref} of digest {ref.digest[:12]}, which now has {there[:12]}; {RESTORE}"
                )
                yield Finding("error", "source", key, (version,), said)

    def _wants(self, slot: Slot) -> bool:
        return self.wanted is None or (slot.dataset, slot.version) in self.wanted

    def _add(self, slot: Slot, manifest: Manifest) -> None:
        self._names.append(str(slot))
        for ref in manifest.shards:
            if (column := manifest.layout.id_column_of(ref.kind)) is not None:
                self.id_columns[ref.sha256] = column
        for ref in (ref for held in slot.objects() for ref in (held, *held.beside())):
            holders = self._holders.setdefault(ref.sha256, [])
            if not holders or holders[-1] != len(self._names) - 1:
                holders.append(len(self._names) - 1)
            if self._wants(slot):
                self.objects.setdefault(ref.sha256, ref)

    def harmed(self, sha256: str) -> tuple[str, ...]:
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
    if info is None:
        return "missing", "is not in the store"
    return None if info.size == ref.bytes else ("size", f"has {info.size:,} bytes, not {ref.bytes:,}")


def _of_object(ref: ObjectRef, wrong: tuple[str, str], harmed: tuple[str, ...]) -> Finding:
    what, said = wrong
    remedy = _DEFECT if what in ("rows", "ledger") else _REPAIR
    return Finding("error", what, ref.sha256, harmed, f"{ref.kind} {ref.sha256[:12]} {said}. {remedy}")


def _compare(store: Store, manifest: Manifest, proofs: dict[str, Proof]) -> Iterator[Finding]:
    """A version's ledger and shards against each other and its manifest; damaged objects are reported already."""
    key = slot_key(manifest.dataset, manifest.version)

    def finding(what: str, said: str, where: str = key) -> Finding:
        return Finding("error", what, where, (str(manifest),), f"{manifest}: {said}. {_DEFECT}")

    ledgers = manifest.fates
    if not ledgers:
        if manifest.came_in.count and not manifest.ledgers:
            yield finding(
                "ledger", f"{manifest.came_in.count:,} records came in and no ledger says what became of them"
            )
        return
    rows = [proofs.get(ref.sha256) for ref in ledgers]
    good = [proof for proof in rows if proof is not None and proof.problem is None]
    if len(good) < len(rows):
        return
    for before, after in pairwise([proof for proof in good if proof.ref.records]):
        if after.first <= before.last and manifest.parent is None:  # a version that grew has several generations
            said = f"ledger objects overlap: one ends at id {before.last}, the next begins at {after.first}"
            yield finding("ledger", said, after.ref.sha256)
    mixed = manifest.form == "windows"  # two sources of a mixture may have one record
    if doubled := [proof for proof in good if proof.twice and not mixed]:
        for proof in doubled:
            yield finding("ledger", f"record {proof.twice} is kept twice", proof.ref.sha256)
        return
    for fate in ("kept", "dropped", "quarantined"):
        stated, found = getattr(manifest, fate), total(proof.fates[fate] for proof in good)
        if stated != found:
            yield finding("ledger", f"{fate}: manifest and ledger disagree, {_differ(stated, found)}")
    yield from _compare_shards(store, manifest, ledgers, good, proofs, finding)


def _compare_shards(
    store: Store,
    manifest: Manifest,
    ledgers: Sequence[ObjectRef],
    good: Sequence[Proof],
    proofs: dict[str, Proof],
    finding: Callable[[str, str], Finding],
) -> Iterator[Finding]:
    """Only where shards are tables of the kept records themselves: a fan-out's hold samples, a pack has no ids."""
    if not manifest.layout.one_each:
        return
    found = [proofs.get(ref.sha256) for ref in manifest.shards]
    shards = [proof for proof in found if proof is not None and proof.problem is None and proof.ids is not None]
    if not shards or len(shards) < len(found):
        return
    kept, held = total(p.ids for p in good if p.ids), total(p.ids for p in shards if p.ids)
    if kept != held:
        strays = "; ".join(_strays(store, ledgers, manifest.shards, max(kept.count, held.count)))
        yield finding("shards", f"shards and kept records disagree, {_differ(kept, held)} ({strays})")


def _differ(stated: Tally, found: Tally) -> str:
    if stated.count != found.count:
        return f"{stated.count:,} against {found.count:,}"
    return f"{stated.count:,} each, but not the same ones"


def _strays(store: Store, ledgers: Sequence[ObjectRef], shards: Sequence[ObjectRef], count: int) -> Iterator[str]:
    """Up to three ids that stand in one and not the other, or twice in shards; a slice of the id space at a time."""
    width = 0
    while count > _WHOLE * 16**width:
        width += 1
    for prefix in map("".join, product("0123456789abcdef", repeat=width)):
        kept = {one for ref in ledgers for ids in id_batches(store, ref, prefix) for one in ids}
        held = Counter(one for ref in shards for ids in id_batches(store, ref, prefix) for one in ids)
        lost = [f"{one} is kept but in no shard" for one in sorted(kept - held.keys())]
        extra = [f"{one} is in a shard but not kept" for one in sorted(held.keys() - kept)]
        twice = [f"{one} stands in shards {n} times" for one, n in sorted(held.items()) if n > 1]
        if lost or extra or twice:
            yield from [*lost[:1], *extra[:1], *twice[:1]]
            return


def _still_true(store: Store, findings: list[Finding]) -> list[Finding]:
    """Without what harms only versions withdrawn while we looked: gc takes their objects, and rightly."""
    gone = {f"{name}@v{n}" for name, n in list_slots(store).withdrawn}
    of_objects = ("missing", "size", "corrupt", "unreadable")
    return [f for f in findings if f.what not in of_objects or not f.harmed or set(f.harmed) - gone]
