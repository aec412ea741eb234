"""Children of records, for `why`: the samples that were drawn of a problem, or one of them, from their ledgers.

A child's id shares the first half with its parent's, and such a ledger is sorted by id: so the children of a record, or
a single one, are a range of rows, whether the question was the parent's id or URL, or the child's own id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from gristmill.lake.accounts.fan import FAMILIES
from gristmill.lake.query.query import say_lost
from gristmill.lake.store.base import NotFound
from gristmill.lake.store.objects import DamagedObject, ObjectRef, rows_between
from gristmill.lake.store.sealed import Unreadable
from gristmill.lake.versions.history import Summary
from gristmill.lake.versions.versions import Versions

HALF = 16
"""Hex digits of an id that a child has from its parent."""


@dataclass(frozen=True)
class Child:
    """A sample, and the versions of the dataset that have it so. As in `lake.accounts.fan.SAMPLES`."""

    dataset: str
    versions: tuple[int, ...]
    id: str
    parent_id: str
    sample: int
    verdict: str
    reason: str | None
    value: str | None
    verifier: str | None
    attempt: int | None
    engine: str | None
    tokens: int | None


_STORED = [field.name for field in fields(Child) if field.name not in ("dataset", "versions")]


def children_of(
    versions: Versions, summaries: Mapping[str, Sequence[Summary]], prefixes: Sequence[str]
) -> tuple[Child, ...]:
    """The children whose own id, or whose parent's, begins with one of the prefixes; in order of parents and numbers.
    What is lost is named, unless gc took it with a withdrawn version."""
    children: list[Child] = []
    for dataset, of_dataset in summaries.items():
        numbers: dict[str, list[int]] = {}
        refs: dict[str, ObjectRef] = {}
        for summary in of_dataset:
            for ref in _ledgers(versions, summary):
                refs[ref.sha256] = ref
                numbers.setdefault(ref.sha256, []).append(summary.version)
        for sha256, ref in refs.items():
            try:
                children += _children(versions, dataset, tuple(numbers[sha256]), ref, prefixes)
            except (NotFound, DamagedObject) as error:
                say_lost(versions, dataset, numbers[sha256], error)
    return tuple(sorted(children, key=lambda child: (child.parent_id, child.dataset, child.sample)))


def _ledgers(versions: Versions, summary: Summary) -> list[ObjectRef]:
    """Those of children that a version has; none of one whose manifest is damaged, which `versions` warns of."""
    if FAMILIES not in summary.ledgers:
        return []
    try:
        ledgers = versions.outline(summary.dataset, summary.version).ledgers
    except (Unreadable, DamagedObject) as error:
        versions.warn(error)
        return []
    return [ref for ref in ledgers if ref.kind == FAMILIES]


def _children(
    versions: Versions, dataset: str, numbers: tuple[int, ...], ref: ObjectRef, prefixes: Sequence[str]
) -> list[Child]:
    """Of one object, each once."""
    by_id: dict[str, Child] = {}
    for prefix in prefixes:
        head = prefix[:HALF]
        if not ref.records or not ref.overlaps(head, head + "g"):
            continue
        for row in rows_between(versions.store, ref, "id", head, head + "g").to_pylist():
            if row["id"].startswith(prefix) or row["parent_id"].startswith(prefix):
                by_id[row["id"]] = Child(dataset, numbers, **{name: row.get(name) for name in _STORED})
    return list(by_id.values())
