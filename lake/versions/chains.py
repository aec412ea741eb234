"""Chains: the rows of all versions of a dataset from the ledgers of the newest.

A version that extends another has all of its records and adds those of its own inputs. So of a chain of a hundred
increments only the head's ledgers are searched (a few, they are merged), and which versions have a row follows from the
input that it came from. Where a head's ledgers are gone or damaged, the version before it is the head of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import NotFound, Store
from gristmill.lake.store.objects import DamagedObject, ObjectRef
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.manifest import Manifest, Outline
from gristmill.lake.versions.versions import Versions

Row = dict[str, Any]


@dataclass
class Searched:
    """`rows` of each version that was searched; `unreadable`: those that were not. `damage`: of objects, in words."""

    rows: dict[int, list[Row]] = field(default_factory=dict)
    unreadable: list[int] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)


def search(
    versions: Versions, summaries: Sequence[Summary], prefixes: Sequence[str], read: dict[str, list[Row]] | None = None
) -> Searched:
    """The ledger rows whose id has one of the prefixes, in each of these versions of one dataset.

    `read`: rows by object, of what an earlier search with these prefixes read; it is added to.
    """
    searched, read = Searched(), {} if read is None else read
    for chain in chains(summaries):
        for i, head in enumerate(chain):
            try:
                rows = rows_of(versions.store, versions.outline(head.dataset, head.version), prefixes, read)
            except (NotFound, DamagedObject, Unreadable) as error:
                searched.unreadable.append(head.version)
                if not isinstance(error, NotFound):  # else gc took the ledger of a withdrawn version
                    searched.damage.append(str(error))
                continue
            _share(searched, chain[i:], rows)
            break  # the first head that can be read answers for all versions behind it
    return searched


def chains(manifests: Sequence[Summary]) -> list[list[Summary]]:
    """All versions, each in one chain, newest first: every version of a chain has all records of the next one."""
    by_number = {manifest.version: manifest for manifest in manifests}
    done: list[list[Summary]] = []
    seen: set[int] = set()
    for head in sorted(manifests, key=lambda manifest: -manifest.version):
        if head.version in seen:
            continue
        chain = [head]
        at = _above(by_number, head)
        # Where two versions extend one, the ancestors that they share are in the chain of the newer.
        while at is not None and at.version not in seen:
            chain.append(at)
            at = _above(by_number, at)
        seen.update(manifest.version for manifest in chain)
        done.append(chain)
    return done


def rows_of(
    store: Store, manifest: Manifest | Outline, prefixes: Sequence[str], read: dict[str, list[Row]] | None = None
) -> list[Row]:
    """The rows of one version; `read` as for `search`. Raises NotFound, DamagedObject."""
    read = {} if read is None else read
    # "g" stands behind every hex digit: p <= id < p + "g" are all ids with the prefix p
    refs = [ref for ref in manifest.fates if any(ref.overlaps(p, p + "g") for p in prefixes)]

    def rows(ref: ObjectRef) -> list[Row]:
        return list(ledger.find_any(store, ref, prefixes).to_pylist())

    new = [ref for ref in refs if ref.sha256 not in read]
    if len(new) > 1:
        with ThreadPoolExecutor(8) as pool:
            read.update(zip([ref.sha256 for ref in new], pool.map(rows, new), strict=True))
    else:
        read.update((ref.sha256, rows(ref)) for ref in new)
    return [row for ref in refs for row in read[ref.sha256]]


def _above(by_number: Mapping[int, Summary], child: Summary) -> Summary | None:
    """The version that this one has all records of; None if it extends none, or takedown changed its rows."""
    ref = child.parent
    if ref is None or ref.role == "forget" or ref.dataset != child.dataset:
        return None
    parent = by_number.get(ref.version)
    if parent is None or parent.digest != ref.digest or parent.version >= child.version:
        return None
    # The counts have to say so too: a chain that is no superset would give a version rows that it never had.
    own = sum(item.records for item in child.inputs)
    return parent if child.received == parent.received + own else None


def _share(searched: Searched, chain: Sequence[Summary], rows: Sequence[Row]) -> None:
    """Gives each version of a chain the head's rows that it had."""
    oldest_first = list(reversed(chain))
    since: dict[str, int] = {}  # input digest -> the first version of the chain, by its place in it, that has it
    for place, manifest in enumerate(oldest_first):
        since.update((item.digest, place) for item in manifest.inputs)
    for place, manifest in enumerate(oldest_first):
        # an input that none of the chain names is of what the oldest was made from
        searched.rows[manifest.version] = [row for row in rows if since.get(row["input"], 0) <= place]
