"""A version without some of its records: what holds them is written anew, everything else is kept by reference.

Rows keep their order, objects their schema and writer, so that the result depends on the version and the records
alone. In the ledger a forgotten record turns from kept to dropped, `forget.requested`: it came in and has one fate, as
ever. Tallies and statistics move by what was taken out, read from the shards themselves, and the records taken from
shards must be those that change in the ledger. Tables are streamed, tars are cut (lake/takedown/groups.py): no shard is
ever in memory as a whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.identity import digest_of
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    ROW_GROUP_ROWS,
    ObjectRef,
    iter_batches,
    open_parquet,
    put_file,
    scratch,
    table_writer,
)
from gristmill.lake.takedown.edits import edits_without
from gristmill.lake.takedown.groups import CutShard, GroupShard, NotRewritable, cut_shard
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.takedown.windows import draws_gone, records_gone, statistics_without, verdicts_without
from gristmill.lake.versions.form import ShardKind
from gristmill.lake.versions.manifest import Draft, FunnelRow, Manifest
from gristmill.lake.versions.statistics import TextStatistics
from gristmill.lake.versions.versions import Versions

COMPARED = frozenset({"contents", "signatures", "clusters"})
"""Attachments that later documents are compared with."""
STAGE, REASON, ROLE = "forget", "forget.requested", "forget"
Change = Callable[[pa.Table], pa.Table]


def clean_version(
    versions: Versions, base: Manifest, request: Suppression, gone: Suppression, rows: Mapping[str, int | None]
) -> Draft:
    """`base` without the records of `gone`: the request and the ids it came to. `rows`: see `Search`.

    Raises NotRewritable where shards and ledger do not name the same records, or a shard cannot be parted.
    """
    store = versions.store
    taken = _without(store, base, gone, rows)
    attachments = _each(store, base.attachments, rows, partial(_not_matching, gone))
    attachments = _without_followers(store, base, attachments, taken.ids)
    moved = _Moved(taken.ids)
    fates = [_rewrite(store, ref, moved.change) if moved.concerns(ref) else ref for ref in base.fates]
    if sorted(moved.ids) != sorted(taken.ids):
        raise NotRewritable(
            f"{base}: {len(taken.ids):,} records go from its shards, its ledger has {moved.tally.count:,} of them as"
            " kept: it does not say what became of each; `grist verify --deep` says more"
        )
    windows = base.layout.shown == "stretches"
    return Draft(
        dataset=base.dataset,
        form=base.form,
        run_key=digest_of(b"forget", base.dataset, base.digest, request.digest),
        parent=base.ref.model_copy(update={"role": ROLE}),
        sources=base.sources if windows else (),  # windows are read with the tokenizer that they were made with
        recipe={**base.recipe, "forget": {"suppression": request.digest}},
        stages=base.stages,
        shards=taken.shards,
        ledgers=(*fates, *taken.members, *(ref for ref in base.ledgers if ref.kind not in ("ledger", "members"))),
        attachments=_not_empty(attachments),
        schemas=base.schemas,
        received=base.received,
        kept=base.kept - moved.tally,
        dropped=base.dropped + moved.tally,
        quarantined=base.quarantined,
        samples=base.samples,
        verdicts=verdicts_without(versions, base, draws_gone(taken.cuts)) if windows else base.verdicts,
        machine_fates=base.machine_fates,
        funnel=_funnel(base, moved.tally.count),
        statistics={**taken.statistics, **edits_without(store, base, moved.rows)},
    )


@dataclass(frozen=True)
class _Taken:
    """Shards and tables of members without the records. `ids`: of those, one for each row that the ledger kept.
    `cuts`: of tars."""

    shards: tuple[ObjectRef, ...]
    members: tuple[ObjectRef, ...]
    ids: list[str]
    statistics: dict[str, Any]
    cuts: tuple[CutShard, ...] = ()


def _without(store: Store, base: Manifest, gone: Suppression, rows: Mapping[str, int | None]) -> _Taken:
    """Every shard of `base` without the records of `gone`, tables row by row and tars group by group."""
    removed = _Removed(TextStatistics.of(base.statistics))
    tables = [ref for ref in base.shards if base.layout.id_column_of(ref.kind) is not None]
    without = partial(_not_matching, gone, note=removed.add)
    kept = list(_not_empty(_each(store, tables, rows, without)))
    cuts = [cut_shard(store, shard, kind.unit, gone) for shard, kind in _group_shards(base)]
    left = [cut.shard for cut in cuts if cut.shard is not None]
    if cuts and not left and not kept:
        raise NotRewritable(f"{base}: nothing would be left in its shards")
    shards = (*kept, *(ref for shard in left for ref in (shard.tar, shard.index)))
    members = tuple(shard.members for shard in left)
    if base.layout.shown == "stretches":
        draws = draws_gone(cuts)
        statistics = statistics_without(base, cuts, draws)
        return _Taken(shards, members, records_gone(draws), statistics, tuple(cuts))
    for cut in cuts:
        removed.add_records(cut.gone["member"].to_pylist())
    return _Taken(shards, members, removed.ids, removed.statistics().into(base.statistics), tuple(cuts))


def _group_shards(base: Manifest) -> list[tuple[GroupShard, ShardKind]]:
    """The tars of a version with what belongs to each. Raises NotRewritable where something is not there."""
    kinds = [(ref, base.layout.kind(ref.kind)) for ref in base.shards]
    tars = [(ref, kind) for ref, kind in kinds if kind is not None and kind.holds == "groups"]
    indices = [ref for ref, kind in kinds if kind is not None and kind.holds == "index"]
    if not len(tars) == len(indices) == len(base.members):
        raise NotRewritable(
            f"{base}: {len(tars)} tars, {len(indices)} indices and {len(base.members)} tables of members do not belong"
            " together"
        )
    return [
        (GroupShard(tar, index, members), kind)
        for (tar, kind), index, members in zip(tars, indices, base.members, strict=True)
    ]


def _not_matching(gone: Suppression, table: pa.Table, note: Callable[[pa.Table], None] | None = None) -> pa.Table:
    """The rows that `gone` does not name by id. `note` is handed the others."""
    hit = pa.array(gone.match(table["id"]))
    if note is not None:
        note(table.filter(hit))
    return table.filter(pc.invert(hit))


def _each(
    store: Store, refs: Sequence[ObjectRef], rows: Mapping[str, int | None], change: Change
) -> list[tuple[ObjectRef, bool]]:
    """Each object, written anew where rows of it go, and whether it was."""
    changed: list[tuple[ObjectRef, bool]] = []
    for ref in refs:
        if rows.get(ref.sha256):
            changed.append((_rewrite(store, ref, change), True))
        else:
            changed.append((ref, False))
    return changed


def _without_followers(
    store: Store, base: Manifest, refs: Sequence[tuple[ObjectRef, bool]], gone: Sequence[str]
) -> list[tuple[ObjectRef, bool]]:
    """Without what is known of records that were dropped in favour of one that is gone: a later copy of them would be
    dropped for a text that nobody has. They stay dropped; the next of their kind is a new text."""
    wanted, followers = pa.array(sorted(gone), pa.string()), list[str]()
    for ref in base.attachments:
        if ref.kind == "clusters":
            for batch in iter_batches(store, ref, ["survivor", "id"]):
                followers += batch.filter(pc.is_in(batch["survivor"], wanted))["id"].to_pylist()
    if not followers:
        return list(refs)
    lost = pa.array(sorted(followers), pa.string())

    def without(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["id"], lost)))

    def concerned(ref: ObjectRef) -> bool:
        return any(pc.any(pc.is_in(batch["id"], lost)).as_py() for batch in iter_batches(store, ref, ["id"]))

    changed: list[tuple[ObjectRef, bool]] = []
    for ref, rewritten in refs:
        if ref.kind in COMPARED and ref.records and concerned(ref):
            changed.append((_rewrite(store, ref, without), True))
        else:
            changed.append((ref, rewritten))
    return changed


def _not_empty(refs: Sequence[tuple[ObjectRef, bool]]) -> tuple[ObjectRef, ...]:
    """Without what was emptied here, unless nothing else of its kind is left: readers look there for the schema."""
    represented = {ref.kind for ref, rewritten in refs if ref.records or not rewritten}
    kept: list[ObjectRef] = []
    for ref, rewritten in refs:
        if ref.records or not rewritten or ref.kind not in represented:
            kept.append(ref)
            represented.add(ref.kind)  # of several that were emptied the first is enough
    return tuple(kept)


def _rewrite(store: Store, ref: ObjectRef, change: Change) -> ObjectRef:
    """The object with every batch changed. A pointer that has a range was sorted by its leading column."""
    records, first, last = 0, "", ""
    with scratch() as folder:
        path = folder / "table.parquet"
        with open_parquet(store, ref) as file:
            schema = file.schema_arrow
            with table_writer(path, schema) as writer:
                for number in range(file.num_row_groups):  # which were bounded, in bytes too, by who wrote them
                    # the cast gives the file's metadata back, which a batch has not, and which is part of the bytes
                    table = change(file.read_row_group(number)).cast(schema)
                    if not table.num_rows:
                        continue
                    writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                    records += table.num_rows
                    if ref.first or ref.last:
                        first, last = first or table[0][0].as_py(), table[0][-1].as_py()
        return put_file(store, ref.kind, path, records, first=first, last=last)


@dataclass
class _Removed:
    """What goes from shards: ids, and what the statistics counted of it. `before`: statistics of the version."""

    before: TextStatistics
    ids: list[str] = field(default_factory=list)
    counted: TextStatistics = TextStatistics()

    def add(self, rows: pa.Table) -> None:
        """Rows of a table."""
        self.ids += rows["id"].to_pylist()
        self.counted = self.counted.plus(self.before.of_rows(rows))

    def add_records(self, ids: Sequence[str]) -> None:
        """Groups of a tar, of which no text was counted."""
        self.ids += ids
        self.counted = self.counted.plus(TextStatistics(documents=len(ids)))

    def statistics(self) -> TextStatistics:
        """Those of what is left."""
        return self.before.less(self.counted)


class _Moved:
    """Ledger `rows` that turn from kept to dropped. `ids` and `tally`: of those that did so far, for the balance."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.sorted = sorted(ids)
        self.wanted = pa.array(self.sorted, pa.string())
        self.ids: list[str] = []
        self.rows: list[pa.Table] = []
        self.tally = Tally()

    def concerns(self, ref: ObjectRef) -> bool:
        """Whether one of the ids lies in the range of a ledger, which is sorted; others are kept by reference."""
        at = bisect_left(self.sorted, ref.first)
        return bool(ref.records) and at < len(self.sorted) and self.sorted[at] <= ref.last

    def change(self, table: pa.Table) -> pa.Table:
        """The rows, in their order, with the forgotten ones as dropped."""
        # A row that was dropped before, or quarantined, keeps its fate: a record has one.
        hit = pc.and_(pc.is_in(table["id"], self.wanted), pc.equal(table["fate"], "kept"))
        turned = table.filter(hit)
        self.ids += turned["id"].to_pylist()
        self.rows.append(turned)
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
        rows.append(FunnelRow(stage=STAGE, received=left, passed=left))
    done: list[FunnelRow] = []
    fewer = 0  # by how many records less than before a row is reached
    for row in rows:
        received, dropped = row.received - fewer, dict(row.dropped)
        if row.stage == STAGE and not fewer:
            fewer = records
            dropped[REASON] = dropped.get(REASON, 0) + records
        done.append(
            FunnelRow(
                stage=row.stage,
                received=received,
                passed=row.passed - fewer,
                dropped={reason: n for reason, n in dropped.items() if n},
                quarantined=row.quarantined,
            )
        )
    return tuple(done)
