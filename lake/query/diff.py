"""`diff`: what differs between two versions, from the recipe down to the fate of single records.

Both ledgers are sorted by id, so they are merged as streams: a window holds what both sides have read below the
smaller of their last ids, and is joined and counted as Arrow tables. Memory is a few row groups, whatever the
size. An object that both versions share holds the same rows for both and is not read at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, generations, iter_batches
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.manifest import InputFile, Manifest
from gristmill.lake.versions.recipes import differences, settings_that_differ
from gristmill.lake.versions.versions import Versions

ABSENT = "absent"
EXAMPLES = 3
_KEY = ["id", "input", "ordinal"]


@dataclass(frozen=True)
class Change:
    """`records` whose label went from `before` to `after`: a reason, "kept", or "absent". `examples`: smallest ids."""

    before: str
    after: str
    records: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """Records in both versions, only in the first, only in the second."""

    both: int
    only_a: int
    only_b: int


@dataclass(frozen=True)
class StageCounts:
    """A stage of two funnels: records that passed it, and by reason those that it dropped or quarantined, in `a` and in
    `b`; None where a version has no such stage. `settings`: (key, a, b) of the stage's own in which they differ; none
    where only one has it."""

    stage: str
    passed: tuple[int | None, int | None]
    reasons: tuple[tuple[str, int, int], ...]
    settings: tuple[tuple[str, Any, Any], ...]


@dataclass(frozen=True)
class Diff:
    """`recipe`: (dotted key, a, b). `stages`: (name, version a, version b). `funnel`: (stage, reason, a, b), and
    `side_by_side` with the stages themselves, in the order of both; `received`: what came in to each."""

    a: str
    b: str
    same_content: bool
    recipe: tuple[tuple[str, Any, Any], ...]
    stages: tuple[tuple[str, int | str | None, int | str | None], ...]
    inputs_added: tuple[InputFile, ...]
    inputs_removed: tuple[InputFile, ...]
    funnel: tuple[tuple[str, str, int, int], ...]
    received: tuple[int, int]
    side_by_side: tuple[StageCounts, ...]
    records: Overlap
    kept: Overlap
    changes: tuple[Change, ...]
    objects_shared: int
    objects_read: int


def diff(store: Store, a: Manifest, b: Manifest) -> Diff:
    """What changed from `a` to `b`. Raises NotFound if a ledger is gone (a withdrawn version)."""
    refs_a, refs_b = ({ref.sha256: ref for ref in m.fates} for m in (a, b))
    shared = refs_a.keys() & refs_b.keys()
    only_a = [ref for sha, ref in refs_a.items() if sha not in shared]
    only_b = [ref for sha, ref in refs_b.items() if sha not in shared]
    counts, examples = _compare(store, only_a, only_b)
    catalogue = Catalogue(Versions(store))
    before, after = (_inputs(catalogue, m) for m in (a, b))
    return Diff(
        a=str(a),
        b=str(b),
        same_content=a.digest == b.digest,
        recipe=settings_that_differ(a.recipe, b.recipe),
        stages=tuple(differences({s.name: s.edition for s in a.stages}, {s.name: s.edition for s in b.stages})),
        inputs_added=tuple(after[d] for d in sorted(after.keys() - before.keys())),
        inputs_removed=tuple(before[d] for d in sorted(before.keys() - after.keys())),
        funnel=_funnel(a, b),
        received=(a.received.count, b.received.count),
        side_by_side=_side_by_side(a, b),
        records=_records(counts, sum(refs_a[sha].records for sha in shared)),
        kept=_kept(counts, a),
        changes=tuple(
            Change(x, y, n, tuple(examples[x, y])) for (x, y), n in sorted(counts.items(), key=_order) if x != y
        ),
        objects_shared=len(shared),
        objects_read=len(only_a) + len(only_b),
    )


def _inputs(catalogue: Catalogue, manifest: Manifest) -> dict[str, InputFile]:
    """By digest, those of the versions that it extends as well."""
    inputs = {file.digest: file for file in manifest.inputs}
    return inputs | {file.digest: file for ancestor in catalogue.ancestors(manifest) for file in ancestor.inputs}


def _order(item: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    """The most frequent change first; equal ones by their labels."""
    return -item[1], item[0]


def _records(counts: Counter[tuple[str, str]], shared: int) -> Overlap:
    only_a = sum(n for (_, y), n in counts.items() if y == ABSENT)
    only_b = sum(n for (x, _), n in counts.items() if x == ABSENT)
    return Overlap(shared + counts.total() - only_a - only_b, only_a, only_b)


def _kept(counts: Counter[tuple[str, str]], a: Manifest) -> Overlap:
    only_a = sum(n for (x, y), n in counts.items() if x == "kept" != y)
    only_b = sum(n for (x, y), n in counts.items() if y == "kept" != x)
    return Overlap(a.kept.count - only_a, only_a, only_b)


def _compare(
    store: Store, a: list[ObjectRef], b: list[ObjectRef]
) -> tuple[Counter[tuple[str, str]], dict[tuple[str, str], list[str]]]:
    """How many records have label x in `a` and y in `b`, and the first ids of each pair that differs."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = defaultdict(list)
    sides_a, sides_b = ([_Side(store, run) for run in generations(refs)] for refs in (a, b))
    for left, right in _windows(sides_a, sides_b):
        joined = left.join(right, _KEY, join_type="full outer", left_suffix=".a", right_suffix=".b")
        labels = {c: pc.fill_null(joined[c], ABSENT) for c in ("label.a", "label.b")}
        pairs = pa.table({"id": joined["id"], "a": labels["label.a"], "b": labels["label.b"]})
        changed = pairs.filter(pc.not_equal(pairs["a"], pairs["b"])).sort_by("id")
        for row in pairs.group_by(["a", "b"]).aggregate([("id", "count")]).to_pylist():
            key = (row["a"], row["b"])
            counts[key] += row["id_count"]
            if key[0] != key[1] and len(examples[key]) < EXAMPLES:
                hit = changed.filter(pc.and_(pc.equal(changed["a"], key[0]), pc.equal(changed["b"], key[1])))
                examples[key] += hit["id"].slice(0, EXAMPLES - len(examples[key])).to_pylist()
    return counts, examples


class _Side:
    """One generation of a ledger as a stream of rows (id, input, ordinal, label) in order of id."""

    def __init__(self, store: Store, refs: list[ObjectRef]) -> None:
        self._batches = self._stream(store, refs)
        self.rows = pa.table({"id": [], "input": [], "ordinal": [], "label": []}, schema=_SIDE)
        self.done = False
        self.fill()

    @staticmethod
    def _stream(store: Store, refs: list[ObjectRef]) -> Iterator[pa.Table]:
        for ref in refs:
            for batch in iter_batches(store, ref, [*_KEY, "fate", "reason"]):
                label = pc.coalesce(batch["reason"], batch["fate"])
                yield pa.table({**{k: batch[k] for k in _KEY}, "label": label}).cast(_SIDE)

    def fill(self) -> None:
        """Reads on: one more row group, or `done`."""
        batch = next(self._batches, None)
        if batch is None:
            self.done = True
        else:
            self.rows = pa.concat_tables([self.rows, batch])

    @property
    def last(self) -> str:
        """The id of the last row that is here."""
        return str(self.rows["id"][-1].as_py())

    def take(self, below: str | None) -> pa.Table:
        """The rows with an id below `below` (None: all), which are then gone from here."""
        n = self.rows.num_rows
        if below is not None and n:
            n = pc.sum(pc.less(self.rows["id"], below)).as_py()
        taken, self.rows = self.rows.slice(0, n), self.rows.slice(n)
        return taken


_SIDE = pa.schema([("id", pa.string()), ("input", pa.string()), ("ordinal", pa.int64()), ("label", pa.string())])


def _windows(a: list[_Side], b: list[_Side]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Pairs of tables that have the rows of both sides for one stretch of ids, which together are everything."""
    # A stretch ends below the smallest of the last ids that were read: above it a side may have rows that are not here
    # yet. Each round that side reads on, so that every round takes rows or comes nearer to the end.
    while True:
        for side in (*a, *b):
            while not side.done and not side.rows.num_rows:
                side.fill()
        reading = [side for side in (*a, *b) if not side.done]
        below = min((side.last for side in reading), default=None)
        left = pa.concat_tables([_SIDE.empty_table(), *(side.take(below) for side in a)])
        right = pa.concat_tables([_SIDE.empty_table(), *(side.take(below) for side in b)])
        if left.num_rows or right.num_rows:
            yield left, right
        if not reading:
            return
        for side in reading:
            if side.rows.num_rows and side.last == below:  # its last id may go on in the next row group
                side.fill()


def _funnel(a: Manifest, b: Manifest) -> tuple[tuple[str, str, int, int], ...]:
    """Every reason of either version with both counts."""
    left, right = _reasons(a), _reasons(b)
    return tuple((*key, left.get(key, 0), right.get(key, 0)) for key in dict.fromkeys([*left, *right]))


def _side_by_side(a: Manifest, b: Manifest) -> tuple[StageCounts, ...]:
    """The stages of both funnels; one that only `b` has stands behind the stage that it stands behind there."""
    left, right = ({row.stage: row for row in manifest.funnel} for manifest in (a, b))
    order, behind = list(left), 0
    for stage in right:
        behind = order.index(stage) if stage in left else behind
        if stage not in left:
            order.insert(behind, stage)
        behind += 1
    counts, changes = _funnel(a, b), settings_that_differ(a.recipe, b.recipe)
    rows = []
    for stage in order:
        passed = tuple(side[stage].passed if stage in side else None for side in (left, right))
        reasons = tuple((reason, in_a, in_b) for of, reason, in_a, in_b in counts if of == stage)
        own = (change for change in changes if stage in left and stage in right)
        settings = tuple((key[len(stage) + 1 :], *values) for key, *values in own if key.startswith(f"{stage}."))
        rows.append(StageCounts(stage, (passed[0], passed[1]), reasons, settings))
    return tuple(rows)


def _reasons(manifest: Manifest) -> dict[tuple[str, str], int]:
    """(stage, reason) -> records, of everything that is dropped or quarantined."""
    counts: dict[tuple[str, str], int] = {}
    for row in manifest.funnel:
        for reason, records in (*row.dropped.items(), *row.quarantined.items()):
            counts[row.stage, reason] = records
    return counts
