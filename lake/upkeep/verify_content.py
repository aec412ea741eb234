"""A version's shards and ledgers against each other and against its manifest, from the proofs of its objects.

Tallies do not depend on order, so that of each object a few numbers are enough (lake/accounts/proof.py); only where
those differ are ids read again, a slice of the id space at a time, to name a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.fan import MEMBER
from gristmill.lake.accounts.proof import Proof, id_batches
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.roots import slot_key

DEFECT = (
    "The release that wrote it has a defect: please report it. A release that mends it makes the version anew from the"
    " same recipe; withdraw this one then"
)
"""The way out where a release wrote what does not agree."""
_WHOLE = 1_000_000
"""Ids compared in one set when stray ones are looked for: about 150 MB."""


@dataclass(frozen=True)
class Finding:
    """`severity`: error | warning. `what`: manifest | slot | gap | chain | digest | balance | source | foreign |
    missing | size | corrupt | unreadable | rows | ledger | shards | history | tag | withdrawal | pass | pin | receipt |
    note | lease | suppression. `where`: the sha256 of an object, else a key of the store.
    `harmed`: every version that is not what it was, as `web@v3`."""

    severity: str
    what: str
    where: str
    harmed: tuple[str, ...]
    message: str

    def to_json(self) -> dict[str, Any]:
        """As `grist verify --json` prints it."""
        return {
            "severity": self.severity,
            "what": self.what,
            "where": self.where,
            "harmed": list(self.harmed),
            "message": self.message,
        }


def compare(store: Store, manifest: Manifest, proofs: dict[str, Proof]) -> Iterator[Finding]:
    """A version's ledger and shards against each other and its manifest; damaged objects are reported already."""
    key = slot_key(manifest.dataset, manifest.version)

    def finding(what: str, problem: str, where: str = key) -> Finding:
        return Finding("error", what, where, (str(manifest),), f"{manifest}: {problem}. {DEFECT}")

    ledgers = manifest.fates
    if not ledgers:
        if manifest.received.count and not manifest.ledgers:
            yield finding(
                "ledger", f"{manifest.received.count:,} records came in and no ledger says what became of them"
            )
        return
    rows = [proofs.get(ref.sha256) for ref in ledgers]
    good = [proof for proof in rows if proof is not None and proof.problem is None]
    if len(good) < len(rows):
        return
    for before, after in pairwise([proof for proof in good if proof.ref.records]):
        if after.first <= before.last and manifest.parent is None:  # a version that grew has several generations
            problem = f"ledger objects overlap: one ends at id {before.last}, the next begins at {after.first}"
            yield finding("ledger", problem, after.ref.sha256)
    if doubled := [proof for proof in good if proof.twice and manifest.layout.kept_once]:
        for proof in doubled:
            yield finding("ledger", f"record {proof.twice} is kept twice", proof.ref.sha256)
        return
    for fate in ("kept", "dropped", "quarantined"):
        stated, counted = getattr(manifest, fate), total(proof.fates[fate] for proof in good)
        if stated != counted:
            yield finding("ledger", f"{fate}: manifest and ledger disagree, {_differ(stated, counted)}")
    yield from _compare_shards(store, manifest, ledgers, good, proofs, finding)


def _compare_shards(
    store: Store,
    manifest: Manifest,
    ledgers: Sequence[ObjectRef],
    good: Sequence[Proof],
    proofs: dict[str, Proof],
    finding: Callable[[str, str], Finding],
) -> Iterator[Finding]:
    """Only where shards hold each kept record once: a fan-out's hold samples, windows hold pieces of what was drawn."""
    if not manifest.layout.one_each:
        return
    naming = (*(ref for ref in manifest.shards if manifest.layout.holds(ref.kind) == "rows"), *manifest.members)
    shard_proofs = [proofs.get(ref.sha256) for ref in naming]
    shards = [proof for proof in shard_proofs if proof is not None and proof.problem is None]
    if not shards or len(shards) < len(shard_proofs):
        return
    kept, held = total(p.ids for p in good if p.ids), total(p.ids for p in shards if p.ids)
    if kept != held:
        columns = [(ref, MEMBER if ref in manifest.members else str(manifest.layout.id_column)) for ref in naming]
        strays = "; ".join(_strays(store, ledgers, columns, max(kept.count, held.count)))
        yield finding("shards", f"shards and kept records disagree, {_differ(kept, held)} ({strays})")


def _differ(stated: Tally, counted: Tally) -> str:
    """In what two tallies that should be equal differ: the count, or which records they are of."""
    if stated.count != counted.count:
        return f"{stated.count:,} against {counted.count:,}"
    return f"{stated.count:,} each, but not the same ones"


def _strays(
    store: Store, ledgers: Sequence[ObjectRef], shards: Sequence[tuple[ObjectRef, str]], count: int
) -> Iterator[str]:
    """Up to three ids that stand in one and not the other, or twice in shards; a slice of the id space at a time.
    `shards`: each with its column of ids."""
    # Ids are hashes: each hex digit more of a prefix makes the slices sixteen times smaller, until one fits in a set.
    width = 0
    while count > _WHOLE * 16**width:
        width += 1
    for prefix in map("".join, product("0123456789abcdef", repeat=width)):
        kept: set[str] = set()
        for ref in ledgers:
            for ids in id_batches(store, ref, prefix):
                kept.update(ids)
        held = Counter[str]()
        for ref, column in shards:
            for ids in id_batches(store, ref, prefix, column):
                held.update(ids)
        lost = [f"{record} is kept but in no shard" for record in sorted(kept - held.keys())]
        extra = [f"{record} is in a shard but not kept" for record in sorted(held.keys() - kept)]
        twice = [f"{record} stands in shards {n} times" for record, n in sorted(held.items()) if n > 1]
        if lost or extra or twice:
            yield from [*lost[:1], *extra[:1], *twice[:1]]
            return
