"""verify names what is damaged and everyone it harms, and says nothing about a sound lake."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest
import toy

from lake import ledger, proof
from lake import verify as verify_module
from lake.balance import Tally
from lake.manifest import Draft
from lake.objects import ObjectRef, put_table
from lake.roots import slot_key
from lake.store import Store, open_store
from lake.verify import Finding, verify
from lake.versions import NoSuchVersion, Versions


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [f.message for f in findings]
    return findings[0]


def force(store: Store, draft: Draft) -> str:
    """The manifest in slot 1 as a defective release would have written it: commit's checks are not asked."""
    data = draft.model_dump(mode="json") | {"version": 1, "previous": None, "digest": draft.content_digest}
    store.create(slot_key(draft.dataset, 1), json.dumps(data).encode())
    return slot_key(draft.dataset, 1)


def test_a_sound_lake_has_no_findings(lake_uri: str) -> None:
    store = open_store(lake_uri)
    toy.commit(store, "web", range(40))
    toy.commit(store, "web", range(60))
    toy.commit(store, "empty", [], shards=(), ledgers=(put_table(store, "ledger", ledger.empty(), sorted_by="id"),))
    seen: list[tuple[int, int, str]] = []
    assert verify(store) == [] and verify(store, deep=True, progress=lambda *args: seen.append(args)) == []
    # two versions of 2 shards + 2 ledgers + 1 attachment, and the empty one's 1 + 1
    assert [done for done, _, _ in seen] == list(range(1, 13)) and {of for _, of, _ in seen} == {12}
    assert verify(store, ["web@v2"], deep=True) == [] and verify(store, ["web", "empty"], deep=True) == []


@pytest.mark.parametrize("kind", ["shards", "ledgers", "attachments"])
def test_one_flipped_bit_names_the_object_and_everyone_it_harms(store: Store, kind: str) -> None:
    first = toy.commit(store, "web", range(40))
    shared = {kind: getattr(first, kind)}
    toy.commit(store, "web", range(40), run_key="again", **shared)
    toy.commit(store, "copy.of-web", range(40), **shared)
    toy.commit(store, "web", range(55))
    ref: ObjectRef = getattr(first, kind)[0]
    toy.flip(store, ref.key)
    assert verify(store) == [], "its size is right: only --deep can tell"
    harmed = ("copy.of-web@v1", "web@v1", "web@v2")
    for refs in (None, ["web@v2"], ["copy.of-web"]):
        found = only(verify(store, refs, deep=True))
        assert (found.severity, found.what, found.where) == ("error", "corrupt", ref.sha256)
        assert found.harmed == harmed
        assert ref.sha256[:12] in found.message and "backup" in found.message
    assert verify(store, ["web@v3"], deep=True) == []


def test_every_byte_counts(store: Store) -> None:
    manifest = toy.commit(store, "web", range(5))
    ref = manifest.ledgers[0]
    for at in range(0, ref.bytes, max(1, ref.bytes // 25)):
        toy.flip(store, ref.key, at)
        assert only(verify(store, deep=True)).where == ref.sha256
        toy.flip(store, ref.key, at)
    assert verify(store, deep=True) == []


@pytest.mark.parametrize("deep", [False, True])
def test_missing_and_short_objects(lake_uri: str, deep: bool) -> None:
    store = open_store(lake_uri)
    manifest = toy.commit(store, "web", range(40))
    lost, short = manifest.shards[0], manifest.ledgers[1]
    store.delete(lost.key)
    store.put(short.key, store.get(short.key)[:-1])
    for refs in (None, ["web@v1"]):
        found = {f.where: f.what for f in verify(store, refs, deep=deep)}
        assert found == {lost.sha256: "missing", short.sha256: "size"}


def test_each_shared_object_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toy.commit(store, "web", range(40))
    for n in range(3):
        toy.commit(store, "web", range(40), run_key=str(n))
    read: list[str] = []
    real = verify_module.prove
    monkeypatch.setattr(verify_module, "prove", lambda s, ref: read.append(ref.sha256) or real(s, ref))
    assert verify(store, deep=True) == []
    assert sorted(read) == sorted({ref.sha256 for ref in first.objects()})


def test_withdrawn_versions_may_have_lost_everything(store: Store) -> None:
    keeps = toy.commit(store, "web", range(40))
    gone = toy.commit(store, "web", range(30))
    Versions(store).withdraw("web", 2, "takedown")
    for ref in {ref.sha256: ref for ref in gone.objects()}.values():
        if ref.sha256 not in {one.sha256 for one in keeps.objects()}:
            store.delete(ref.key)
    assert verify(store, deep=True) == [] and verify(store, ["web@v2"], deep=True) == []


def test_a_version_withdrawn_while_we_look_is_not_reported(store: Store) -> None:
    manifest = toy.commit(store, "web", range(40))

    def takedown(verb: str, key: str) -> None:
        if verb == "info" and not Versions(store).withdrawn("web"):
            Versions(store).withdraw("web", 1, "takedown")
            store.delete(manifest.shards[0].key)

    assert verify(toy.Watched(store, takedown), ["web@v1"]) == []


# the chain


def rewrite(store: Store, n: int, **fields: object) -> None:
    key = slot_key("web", n)
    store.put(key, json.dumps(json.loads(store.get(key)) | fields).encode())


def test_damaged_chains(store: Store) -> None:
    for n in (10, 20, 30, 40):
        toy.commit(store, "web", range(n))
    whole = {n: store.get(slot_key("web", n)) for n in (1, 2, 3, 4)}

    def findings() -> set[tuple[str, str, tuple[str, ...]]]:
        found = {(f.what, f.where, f.harmed) for f in verify(store)}
        for n, data in whole.items():
            store.put(slot_key("web", n), data)
        assert verify(store) == []
        return found

    v2, v3 = slot_key("web", 2), slot_key("web", 3)
    store.put(v2, whole[2].replace(b"crawl.warc", b"other.warc"))
    assert findings() == {("chain", v3, ("web@v3",))}
    store.delete(v2)
    assert findings() == {("gap", v2, ("web@v2",))}
    store.put(v2, whole[2][:-20])
    assert findings() == {("manifest", v2, ("web@v2",)), ("chain", v3, ("web@v3",))}
    store.put(v2, b"[]")
    assert ("manifest", v2, ("web@v2",)) in findings()
    store.put(v2, whole[2].replace(b'"format": 1', b'"format": 9', 1))
    assert ("manifest", v2, ("web@v2",)) in findings()
    store.put(v2, whole[1])
    assert ("slot", v2, ("web@v2",)) in findings()
    last = slot_key("web", 4)
    rewrite(store, 4, digest="0" * 64)
    assert findings() == {("digest", last, ("web@v4",))}
    rewrite(store, 4, dropped=[0, "0" * 32])
    assert findings() == {("balance", last, ("web@v4",))}
    rewrite(store, 1, previous=hashlib.sha256(b"").hexdigest())
    assert ("chain", slot_key("web", 1), ("web@v1",)) in findings()


def test_files_of_others_are_a_warning(store: Store) -> None:
    toy.commit(store, "web", range(10))
    store.put("datasets/web/versions/notes.txt", b"hello")
    found = only(verify(store))
    assert (found.severity, found.what, found.where) == ("warning", "foreign", "datasets/web/versions/notes.txt")


def test_only_the_versions_asked_for_are_judged(store: Store) -> None:
    for n in (10, 20):
        toy.commit(store, "web", range(n))
    toy.commit(store, "code", range(10))
    rewrite(store, 2, digest="0" * 64)
    assert verify(store, ["web@v1", "code"]) == []
    assert [f.harmed for f in verify(store, ["web"])] == [("web@v2",)]
    Versions(store).tag("web", 2, "release")
    assert [f.harmed for f in verify(store, ["web@release"])] == [("web@v2",)]
    store.put(slot_key("web", 2), b"{")
    assert only(verify(store, ["web@v2"])).what == "manifest"
    for unknown in ("nothing", "web@v9", "web@old"):
        with pytest.raises(NoSuchVersion):
            verify(store, [unknown])


# what only the rows show: objects that are whole, and wrong


def test_a_pointer_with_another_number_of_rows(store: Store) -> None:
    shards = toy.put_shards(store, toy.shard_table(range(40)))
    lie = shards[0].model_copy(update={"records": shards[0].records + 1})
    toy.commit(store, "web", range(40), shards=(lie, *shards[1:]))
    found = only(verify(store, deep=True))
    assert (found.what, found.where) == ("rows", lie.sha256)
    assert f"{shards[0].records} rows, its pointer says {lie.records}" in found.message


def test_parquet_that_was_written_broken(store: Store, tmp_path: Path) -> None:
    whole = toy.put_shards(store, toy.shard_table(range(40)), parts=1)[0]
    data = bytearray(store.get(whole.key))
    data[10:60] = bytes(50)
    ref = toy.put_text(store, "", "shard").model_copy(
        update={"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "records": whole.records}
    )
    store.put(ref.key, bytes(data))
    toy.commit(store, "web", range(40), shards=(ref,))
    found = only(verify(store, deep=True))
    assert (found.what, found.where) == ("rows", ref.sha256) and "cannot be decoded" in found.message


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


@pytest.mark.parametrize("said", WRONG_LEDGERS)
def test_ledgers_that_were_written_wrong(store: Store, said: str) -> None:
    ref = put_table(store, "ledger", WRONG_LEDGERS[said], sorted_by="id")
    force(store, toy.draft(store, "web", range(8), ledgers=(ref,)))
    found = only(verify(store, deep=True))
    assert (found.what, found.where, found.harmed) == ("ledger", ref.sha256, ("web@v1",)) and said in found.message


def test_order_is_checked_over_the_borders_of_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table = toy.ledger_table(range(40))
    swapped = pa.concat_tables([table.slice(10, 10), table.slice(0, 10), table.slice(20)])
    monkeypatch.setattr(proof, "iter_batches", lambda *args: swapped.to_batches(max_chunksize=10))
    ref = put_table(store, "ledger", swapped, sorted_by="id")
    assert "out of order" in (proof.prove(store, ref).problem or ("", ""))[1]


def test_a_range_that_is_not_the_ledgers(store: Store) -> None:
    one, two = toy.put_ledgers(store, toy.ledger_table(range(40)))
    lie = one.model_copy(update={"last": one.first})
    toy.commit(store, "web", range(40), ledgers=(lie, two))
    found = only(verify(store, deep=True))
    assert found.what == "ledger" and found.where == one.sha256 and "lookups miss rows" in found.message


def test_ledger_objects_in_the_wrong_order(store: Store) -> None:
    one, two = toy.put_ledgers(store, toy.ledger_table(range(40)))
    toy.commit(store, "web", range(40), ledgers=(two, one))
    found = only(verify(store, deep=True))
    assert (found.what, found.where) == ("ledger", one.sha256) and "overlap" in found.message


def test_a_ledger_of_other_records_than_the_manifest_counts(store: Store) -> None:
    """As many, with the same fates: only the sums of hashes differ."""
    other = toy.ledger_table(range(40, 80))
    shards = toy.put_shards(store, toy.shard_table(range(40, 80)))
    toy.commit(store, "web", range(40), ledgers=toy.put_ledgers(store, other), shards=shards)
    found = verify(store, deep=True)
    assert {f.what for f in found} == {"ledger"} and len(found) == 3
    assert "24 each, but not the same ones" in found[0].message and found[0].harmed == ("web@v1",)


def test_no_ledger_at_all(store: Store) -> None:
    toy.commit(store, "web", range(40), ledgers=())
    assert "no ledger says" in only(verify(store, deep=True)).message


@pytest.mark.parametrize("slices", [0, 1])
@pytest.mark.parametrize(
    "records, said",
    [
        ([0, 2, 4, 5, 7], "is kept but in no shard"),
        ([0, 2, 4, 5, 7, 9, 10], "is in a shard but not kept"),
        ([0, 2, 4, 5, 7, 9, 9], "stands in shards 2 times"),
        ([0, 2, 4, 5, 7, 12], "6 each, but not the same ones"),
    ],
)
def test_shards_hold_exactly_the_kept_records(
    store: Store, records: list[int], said: str, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "_WHOLE", 1 if slices else 1_000_000)
    toy.commit(store, "web", range(10), shards=toy.put_shards(store, toy.shard_table(records)))
    found = only(verify(store, deep=True))
    assert (found.what, found.where) == ("shards", slot_key("web", 1)) and said in found.message


def test_shards_of_samples_or_without_ids_are_not_compared(store: Store) -> None:
    tally = Tally.of([b"a"])
    samples = put_table(store, "shard", pa.table({"id": ["x"]}))
    toy.commit(store, "chains", range(10), shards=(samples,), samples=tally, verdicts={"accepted": tally})
    packs = put_table(store, "shard", pa.table({"tokens": [[1, 2]]}))
    toy.commit(store, "packs", range(10), shards=(packs,))
    toy.commit(store, "tars", range(10), shards=(toy.put_text(store, "a tar", "shard"),))
    assert verify(store, deep=True) == []
