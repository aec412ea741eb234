"""A version without some of its records: what holds them is written anew, everything else is kept by reference.

Rows keep their order, objects their schema and writer, so that the result depends on the version and the records
alone. In the ledger a forgotten record turns from kept to dropped, `forget.requested`: it came in and has one fate, as
ever. Tallies and statistics move by what was taken out, read from the rows themselves, and the rows taken from shards
must be those that change in the ledger. Rows are streamed: no shard is ever in memory as a whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake import ledger
from lake.balance import Tally
from lake.identity import digest_of
from lake.manifest import Draft, FunnelRow, Manifest
from lake.objects import ROW_GROUP_ROWS, ObjectRef, iter_batches, open_parquet, put_file, scratch, table_writer
from lake.proof import tally_ids
from lake.store import Store
from lake.suppress import Suppression

COMPARED = frozenset({"contents", "signatures", "clusters"})
"""Attachments that later documents are compared with."""
STAGE, REASON, ROLE = "forget", "forget.requested", "forget"
Change = Callable[[pa.Table], pa.Table]


class NotRewritable(ValueError):
    """No clean version can be made of this one; it can still be withdrawn."""


def clean_version(
    store: Store, base: Manifest, request: Suppression, gone: Suppression, rows: Mapping[str, int | None]
) -> Draft:
    """`base` without the records of `gone`: the request and the ids it came to. `rows`: see `Search`.

    Raises NotRewritable where shards and ledger do not name the same records.
    """
    removed = _Removed(base.statistics)

    def without(table: pa.Table, note: Callable[[pa.Table], None] | None = None) -> pa.Table:
        hit = pa.array(gone.match(table["id"]))
        if note is not None:
            note(table.filter(hit))
        return table.filter(pc.invert(hit))

    shards = _each(store, base.shards, rows, partial(without, note=removed.add))
    attachments = _without_followers(store, base, _each(store, base.attachments, rows, without), removed.ids)
    moved = _Moved(removed.ids)
    ledgers = [_rewrite(store, ref, moved.change) if moved.concerns(ref) else ref for ref in base.ledgers]
    if moved.tally.count != removed.documents or tally_ids(pa.array(moved.ids, pa.string())) != removed.tally:
        raise NotRewritable(
            f"{base}: {removed.documents:,} records go from its shards, its ledger has {moved.tally.count:,} of them as"
            " kept: it does not say what became of each; `grist verify --deep` says more"
        )
    return Draft(
        dataset=base.dataset,
        form=base.form,
        run_key=digest_of(b"forget", base.dataset, base.digest, request.digest),
        parent=base.ref.model_copy(update={"role": ROLE}),
        recipe={**base.recipe, "forget": {"suppression": request.digest}},
        stages=base.stages,
        shards=_not_empty(shards),
        ledgers=tuple(ledgers),
        attachments=_not_empty(attachments),
        schemas=base.schemas,
        came_in=base.came_in,
        kept=base.kept - moved.tally,
        dropped=base.dropped + moved.tally,
        quarantined=base.quarantined,
        machine_fates=base.machine_fates,
        funnel=_funnel(base, moved.tally.count),
        statistics=removed.statistics(),
    )


def _each(
    store: Store, refs: Sequence[ObjectRef], rows: Mapping[str, int | None], change: Change
) -> list[tuple[ObjectRef, bool]]:
    """Each object, written anew where rows of it go, and whether it was."""
    return [(_rewrite(store, ref, change), True) if rows.get(ref.sha256) else (ref, False) for ref in refs]


def _without_followers(
    store: Store, base: Manifest, refs: Sequence[tuple[ObjectRef, bool]], gone: Sequence[str]
) -> list[tuple[ObjectRef, bool]]:
    """Without what is known of records that were dropped in favour of one that is gone: a later copy of them would be
    dropped for a text that nobody has. They stay dropped; the next of their kind is a new text."""
    wanted, followers = pa.array(sorted(gone), pa.string()), list[str]()
    for ref in (one for one in base.attachments if one.kind == "clusters"):
        for batch in iter_batches(store, ref, ["survivor", "id"]):
            followers += batch.filter(pc.is_in(batch["survivor"], wanted))["id"].to_pylist()
    lost = pa.array(sorted(followers), pa.string())

    def without(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["id"], lost)))

    def concerned(ref: ObjectRef) -> bool:
        return any(pc.any(pc.is_in(batch["id"], lost)).as_py() for batch in iter_batches(store, ref, ["id"]))

    return [
        (_rewrite(store, ref, without), True)
        if len(lost) and ref.kind in COMPARED and ref.records and concerned(ref)
        else (ref, rewritten)
        for ref, rewritten in refs
    ]


def _not_empty(refs: Sequence[tuple[ObjectRef, bool]]) -> tuple[ObjectRef, ...]:
    """Without what was emptied here, unless nothing else of its kind is left: readers look there for the schema."""
    full = {ref.kind for ref, rewritten in refs if ref.records or not rewritten}
    kept: list[ObjectRef] = []
    for ref, rewritten in refs:
        if ref.records or not rewritten or ref.kind not in full:
            kept.append(ref)
            full.add(ref.kind)
    return tuple(kept)


def _rewrite(store: Store, ref: ObjectRef, change: Change) -> ObjectRef:
    """The object with every batch changed. A pointer that has a range was sorted by its leading column."""
    records, first, last = 0, "", ""
    with scratch() as folder:
        path = folder / "table.parquet"
        with open_parquet(store, ref) as file:
            schema = file.schema_arrow
            with table_writer(path, schema) as writer:
                for batch in file.iter_batches(ROW_GROUP_ROWS):
                    table = change(pa.Table.from_batches([batch], batch.schema)).cast(schema)
                    if not table.num_rows:
                        continue
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                    records += table.num_rows
                    if ref.first or ref.last:
                        first, last = first or table[0][0].as_py(), table[0][-1].as_py()
        return put_file(store, ref.kind, path, records, first=first, last=last)


class _Removed:
    """What goes from the shards: ids, tallies, and the statistics that remain."""

    def __init__(self, before: Mapping[str, Any]) -> None:
        self.before = before
        self.ids: list[str] = []
        self.tally = Tally()
        self.text_bytes = 0
        self.languages: Counter[str] = Counter()
        self.bins: Counter[str] = Counter()
        # A text that goes was counted, so its bin is there: that of the largest bound not above its length.
        self._bounds = sorted(int(bound) for bound in before.get("bytes_from", ()))

    @property
    def documents(self) -> int:
        return len(self.ids)

    def add(self, rows: pa.Table) -> None:
        self.ids += rows["id"].to_pylist()
        self.tally += tally_ids(rows["id"])
        if "text" in rows.schema.names:
            lengths = pc.fill_null(pc.binary_length(rows["text"]), 0).to_numpy()
            self.text_bytes += int(lengths.sum())
            at = np.searchsorted(self._bounds, lengths, side="right") - 1
            self.bins.update(str(self._bounds[i]) for i in at if i >= 0)
        if "language" in rows.schema.names:
            self.languages.update(rows["language"].to_pylist())

    def statistics(self) -> dict[str, Any]:
        """Those of the version, less what went. What else it counted stays as it is."""
        after = dict(self.before)
        for name, less in (("documents", self.documents), ("text_bytes", self.text_bytes)):
            if name in after:
                after[name] -= less
        if "languages" in after:
            left = _less(after["languages"], self.languages)
            after["languages"] = dict(sorted(left.items(), key=lambda item: (-item[1], item[0])))
        if "bytes_from" in after:
            after["bytes_from"] = _less(after["bytes_from"], self.bins)
        return after


def _less(before: Mapping[str, int], less: Mapping[str, int]) -> dict[str, int]:
    return {key: n - less.get(key, 0) for key, n in before.items() if n > less.get(key, 0)}


class _Moved:
    """Ledger rows that turn from kept to dropped."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.sorted = sorted(ids)
        self.wanted = pa.array(self.sorted, pa.string())
        self.ids: list[str] = []
        self.tally = Tally()

    def concerns(self, ref: ObjectRef) -> bool:
        at = bisect_left(self.sorted, ref.first)
        return ref.kind == "ledger" and bool(ref.records) and at < len(self.sorted) and self.sorted[at] <= ref.last

    def change(self, table: pa.Table) -> pa.Table:
        hit = pc.and_(pc.is_in(table["id"], self.wanted), pc.equal(table["fate"], "kept"))
        turned = table.filter(hit)
        self.ids += turned["id"].to_pylist()
        self.tally += ledger.tally(turned)
        null = pa.scalar(None, pa.string())
        values = {"fate": "dropped", "stage": STAGE, "reason": REASON, "value": null, "survivor": null}
        for name, value in values.items():
            table = table.set_column(table.schema.get_field_index(name), name, pc.if_else(hit, value, table[name]))
        return table


def _funnel(base: Manifest, records: int) -> tuple[FunnelRow, ...]:
    """The row "forget", there or at the end, has `records` more; every row after it as many fewer."""
    rows = list(base.funnel)
    if not any(row.stage == STAGE for row in rows):
        left = rows[-1].passed if rows else base.kept.count
        rows.append(FunnelRow(stage=STAGE, came_in=left, passed=left))
    done: list[FunnelRow] = []
    less = 0
    for row in rows:
        came_in, dropped = row.came_in - less, dict(row.dropped)
        if row.stage == STAGE and not less:
            less = records
            dropped[REASON] = dropped.get(REASON, 0) + records
        done.append(
            FunnelRow(
                stage=row.stage,
                came_in=came_in,
                passed=row.passed - less,
                dropped={reason: n for reason, n in dropped.items() if n},
                quarantined=row.quarantined,
            )
        )
    return tuple(done)
