"""What only the rows show: objects whose bytes are right and whose content is not, rule by rule."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
import toy
from toy import only

from gristmill.lake.accounts import ledger, proof
from gristmill.lake.accounts.balance import Tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.lake.store.sealed import seal
from gristmill.lake.upkeep import verify_content
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Draft
from gristmill.lake.versions.roots import slot_key


def force(store: Store, draft: Draft) -> str:
    """The manifest in slot 1 as a defective release would have written it: commit's checks are not asked."""
    data = draft.model_dump(mode="json") | {"version": 1, "previous": None, "digest": draft.content_digest}
    store.create(slot_key(draft.dataset, 1), seal(json.dumps(data, indent=1).encode()))
    return slot_key(draft.dataset, 1)


def test_a_pointer_with_another_number_of_rows(store: Store) -> None:
    shards = toy.put_shards(store, toy.shard_table(range(40)))
    lie = shards[0].model_copy(update={"records": shards[0].records + 1})
    toy.commit(store, "web", range(40), shards=(lie, *shards[1:]))
    finding = only(verify(store, deep=True))
    assert (finding.what, finding.where) == ("rows", lie.sha256)
    assert f"{shards[0].records} rows, its pointer says {lie.records}" in finding.message


def test_parquet_that_was_written_broken(store: Store, tmp_path: Path) -> None:
    whole = toy.put_shards(store, toy.shard_table(range(40)), parts=1)[0]
    data = bytearray(store.get(whole.key))
    data[10:60] = bytes(50)
    ref = toy.put_text(store, "", "shard").model_copy(
        update={"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "records": whole.records}
    )
    store.put(ref.key, bytes(data))
    toy.commit(store, "web", range(40), shards=(ref,))
    finding = only(verify(store, deep=True))
    assert (finding.what, finding.where) == ("rows", ref.sha256) and "cannot be decoded" in finding.message


def reverse(table: pa.Table) -> pa.Table:
    return table.take(list(reversed(range(table.num_rows))))


def with_fate(table: pa.Table, fate: str) -> pa.Table:
    fates = ["kept" if i else fate for i in range(table.num_rows)]
    return table.set_column(table.column_names.index("fate"), "fate", pa.array(fates))


WRONG_LEDGERS = {
    "out of order": reverse(toy.ledger_table(range(8))),
    "stands twice": pa.concat_tables([toy.ledger_table([1]), toy.ledger_table([1])]),
    "have a fate other than": with_fate(toy.ledger_table(range(8)), "lost"),
    "cannot be decoded": toy.ledger_table(range(8)).drop_columns(["ordinal"]),
    "is kept twice": ledger.sort(
        pa.concat_tables([t := toy.ledger_table([0]), t.set_column(2, "ordinal", pa.array([7], pa.int64()))])
    ),
}


@pytest.mark.parametrize("message", WRONG_LEDGERS)
def test_ledgers_that_were_written_wrong(store: Store, message: str) -> None:
    ref = put_table(store, "ledger", WRONG_LEDGERS[message], sorted_by="id")
    force(store, toy.draft(store, "web", range(8), ledgers=(ref,)))
    finding = only(verify(store, deep=True))
    assert (finding.what, finding.where, finding.harmed) == ("ledger", ref.sha256, ("web@v1",))
    assert message in finding.message


def test_order_is_checked_over_the_borders_of_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = toy.ledger_table(range(40))
    swapped = pa.concat_tables([table.slice(10, 10), table.slice(0, 10), table.slice(20)])
    monkeypatch.setattr(proof, "iter_batches", lambda *args: swapped.to_batches(max_chunksize=10))
    ref = put_table(store, "ledger", swapped, sorted_by="id")
    assert "out of order" in (proof.prove(store, ref).problem or ("", ""))[1]


def test_a_range_that_is_not_the_ledgers(store: Store) -> None:
    lower, upper = toy.put_ledgers(store, toy.ledger_table(range(40)))
    lie = lower.model_copy(update={"last": lower.first})
    toy.commit(store, "web", range(40), ledgers=(lie, upper))
    finding = only(verify(store, deep=True))
    assert finding.what == "ledger" and finding.where == lower.sha256 and "lookups miss rows" in finding.message


def test_ledger_objects_in_the_wrong_order(store: Store) -> None:
    lower, upper = toy.put_ledgers(store, toy.ledger_table(range(40)))
    toy.commit(store, "web", range(40), ledgers=(upper, lower))
    finding = only(verify(store, deep=True))
    assert (finding.what, finding.where) == ("ledger", lower.sha256) and "overlap" in finding.message


def test_a_ledger_of_other_records_than_the_manifest_counts(store: Store) -> None:
    """As many, with the same fates: only the sums of hashes differ."""
    other = toy.ledger_table(range(40, 80))
    shards = toy.put_shards(store, toy.shard_table(range(40, 80)))
    toy.commit(store, "web", range(40), ledgers=toy.put_ledgers(store, other), shards=shards)
    findings = verify(store, deep=True)
    assert {f.what for f in findings} == {"ledger"} and len(findings) == 3
    assert "24 each, but not the same ones" in findings[0].message and findings[0].harmed == ("web@v1",)


def test_no_ledger_at_all(store: Store) -> None:
    toy.commit(store, "web", range(40), ledgers=())
    assert "no ledger says" in only(verify(store, deep=True)).message


@pytest.mark.parametrize("slices", [0, 1])
@pytest.mark.parametrize(
    "records, message",
    [
        ([0, 2, 4, 5, 7], "is kept but in no shard"),
        ([0, 2, 4, 5, 7, 9, 10], "is in a shard but not kept"),
        ([0, 2, 4, 5, 7, 9, 9], "stands in shards 2 times"),
        ([0, 2, 4, 5, 7, 12], "6 each, but not the same ones"),
    ],
)
def test_shards_hold_exactly_the_kept_records(
    store: Store, records: list[int], message: str, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_content, "_WHOLE", 1 if slices else 1_000_000)
    toy.commit(store, "web", range(10), shards=toy.put_shards(store, toy.shard_table(records)))
    finding = only(verify(store, deep=True))
    assert (finding.what, finding.where) == ("shards", slot_key("web", 1)) and message in finding.message


def test_shards_that_are_no_tables_of_the_kept_records_are_not_compared(store: Store) -> None:
    children = {"samples": Tally.of([b"a"]), "verdicts": {"accepted": Tally.of([b"a"])}}
    chains = put_table(store, "shard", pa.table({"id": ["x"]}))
    toy.commit(store, "chains", range(10), form="verdicts", shards=(chains,), **children)
    tar, index = toy.put_text(store, "a tar", "pack"), put_table(store, "index", pa.table({"key": ["a"]}))
    toy.commit(store, "mix", range(10), form="windows", shards=(tar, index))
    toy.commit(store, "model", range(10), form="model", shards=(toy.put_text(store, "numbers", "weights"),))
    assert verify(store, deep=True) == []


@pytest.mark.parametrize("table", [pa.table({"tokens": [[1, 2]]}), None])
def test_shards_of_records_that_name_none_are_found(store: Store, table: pa.Table | None) -> None:
    """No takedown could find a record there."""
    shard = toy.put_text(store, "a tar", "shard") if table is None else put_table(store, "shard", table)
    toy.commit(store, "web", range(10), shards=(shard,))
    finding = only(verify(store, deep=True))
    assert (finding.what, finding.where) == ("rows", shard.sha256)
    assert ("without a column 'id'" if table else "no Parquet") in finding.message
