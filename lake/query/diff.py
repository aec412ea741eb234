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

from gristmill.lake.accounts.receipt import canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, generations, iter_batches
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.manifest import InputFile, Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions

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
class Diff:
    """`recipe`: (dotted key, a, b). `stages`: (name, version a, version b). `funnel`: (stage, reason, a, b)."""

    a: str
    b: str
    same_content: bool
    recipe: tuple[tuple[str, Any, Any], ...]
    stages: tuple[tuple[str, int | None, int | None], ...]
    inputs_added: tuple[InputFile, ...]
    inputs_removed: tuple[InputFile, ...]
    funnel: tuple[tuple[str, str, int, int], ...]
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
        recipe=tuple(_differences(_flat(a.recipe), _flat(b.recipe))),
        stages=tuple(_differences({s.name: s.version for s in a.stages}, {s.name: s.version for s in b.stages})),
        inputs_added=tuple(after[d] for d in sorted(after.keys() - before.keys())),
        inputs_removed=tuple(before[d] for d in sorted(before.keys() - after.keys())),
        funnel=_funnel(a, b),
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


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; an empty one is a value."""
    if not isinstance(data, dict) or not data:
        return {path: data}
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{path}.{name}" if path else name)
    return flat


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, a, b) where they differ; a key that only one of them has differs, though its value be None."""
    keys = dict.fromkeys([*a, *b])
    return [(k, a.get(k), b.get(k)) for k in keys if k not in a or k not in b or a[k] != b[k]]


def _funnel(a: Manifest, b: Manifest) -> tuple[tuple[str, str, int, int], ...]:
    """Every reason of either version with both counts."""
    left, right = _reasons(a), _reasons(b)
    return tuple((*key, left.get(key, 0), right.get(key, 0)) for key in dict.fromkeys([*left, *right]))


def _reasons(manifest: Manifest) -> dict[tuple[str, str], int]:
    """(stage, reason) -> records, of everything that is dropped or quarantined."""
    counts: dict[tuple[str, str], int] = {}
    for row in manifest.funnel:
        for reason, records in (*row.dropped.items(), *row.quarantined.items()):
            counts[row.stage, reason] = records
    return counts


_NO_FATE = ("dataset", "extends", "forget", "limit", "max_quarantine_rate", "scan.chunk_bytes", "shards", "suppression")
"""Keys of a recipe that do not decide which records of an input are kept (or, of a takedown, for any recipe alike)."""


def recipe_changes(a: dict[str, Any], b: dict[str, Any]) -> tuple[str, ...]:
    """The keys that can decide what is kept in which two recipes differ, dotted, in order."""
    return tuple(
        key
        for key, _, _ in sorted(_differences(_flat(a), _flat(b)), key=lambda change: change[0])
        if not any(key == name or key.startswith(f"{name}.") for name in _NO_FATE)
    )


def changed_on_the_way(versions: Versions, manifest: Manifest) -> tuple[str, ...]:
    """In what a version's ancestors were made otherwise than itself: keys of the recipe, and stages whose VERSION is
    another; or that one of them is not in this lake. Empty for one that extends nothing."""
    changes: set[str] = set()
    own = {stage.name: stage.version for stage in manifest.stages}
    compared: set[bytes] = set()
    try:
        for ancestor in Catalogue(versions).ancestors(manifest):
            made_by = canonical([ancestor.recipe, ancestor.stages])
            if made_by in compared:  # as nearly all of a thousand are
                continue
            compared.add(made_by)
            changes.update(recipe_changes(ancestor.recipe, manifest.recipe))
            both = own.keys() & ancestor.stages.keys()
            changes.update(f"stage {name}" for name in both if own[name] != ancestor.stages[name])
    except NoSuchVersion:
        changes.add("an ancestor that is not in this lake")
    return tuple(sorted(changes))
