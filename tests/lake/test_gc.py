"""gc never takes what a version, a live run or a recent write needs, whenever it looks and wherever it is killed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import toy
from toy import DAY, garbage, key_of, keys, live

from gristmill.lake.accounts.receipt import finished, read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_refs
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import GcStopped, plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.lease import LEASE_SECONDS, Lease
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import Versions

# marking


def test_versions_hold_their_objects_and_nothing_else_that_is_old(lake_uri: str) -> None:
    store = open_store(lake_uri)
    toy.commit(store, "web", range(40))
    toy.commit(store, "code", range(30))
    before = keys(store)
    plan = plan_gc(store, now=time.time() + 2 * DAY)
    assert plan.reasons().keys() == {
        ("object", "result of work that no version holds"),
        ("receipt", "its outputs go or are gone"),
    }
    assert keys(store) == before, "a plan deletes nothing"
    report = run_gc(store, plan)
    assert report.deleted["object"] == (2, plan.bytes - report.deleted["receipt"][1])  # the two raw texts
    assert report.deleted["receipt"][0] == 2 and not report.spared
    assert before - keys(store) == {doomed.key for doomed in plan.doomed}
    assert verify(store, deep=True) == []
    assert plan_gc(store, now=time.time() + 2 * DAY).doomed == ()


def test_young_objects_stay_between_object_and_receipt(store: Store) -> None:
    ref = toy.put_text(store, "written, and its receipt comes in a moment")
    toy.age(store, DAY - 60, [ref.key])
    plan = plan_gc(store)
    assert plan.doomed == () and plan.kept == {"young": (1, ref.bytes)}
    toy.age(store, 120, [ref.key])
    assert [doomed.why for doomed in plan_gc(store).doomed] == ["neither a version nor a receipt names it"]


def test_outputs_of_a_young_receipt_stay_however_old(store: Store) -> None:
    (ref,) = garbage(store, 1)
    toy.do_work(store, "today's", [ref])
    plan = plan_gc(store)
    assert plan.doomed == () and plan.kept == {"young": (1, ref.bytes)}


def test_a_receipt_goes_with_any_of_its_outputs_and_stays_with_all(store: Store) -> None:
    manifest = toy.commit(store, "web", range(20))
    shard = manifest.shards[0]
    both = toy.do_work(store, "half held", [shard, toy.put_text(store, "not held")])
    gone = toy.do_work(store, "long gone", [toy.put_text(store, "taken")])
    store.delete(gone.outputs[0].key)
    toy.age(store, 2 * DAY)
    run_gc(store, plan_gc(store))
    assert read_receipt(store, both.work_key) is None and read_receipt(store, gone.work_key) is None
    assert finished(store, toy.work_key([toy.STAGE], [f"write {shard.sha256}"])), "it still saves work"
    assert store.info(shard.key)


def test_withdrawn_versions_are_no_roots_but_what_others_share_stays(store: Store) -> None:
    first = toy.commit(store, "web", range(20))
    mine = toy.put_text(store, "of the second only", "shard2")
    second = toy.commit(store, "web", range(20), run_key="other", attachments=(mine,))
    Versions(store).withdraw("web", second.version, "takedown 17")
    toy.age(store, 2 * DAY)
    plan = plan_gc(store)
    assert {doomed.key: doomed.why for doomed in plan.doomed if doomed.kind == "object"}[mine.key] == (
        "only withdrawn versions hold it"
    )
    run_gc(store, plan)
    assert store.info(mine.key) is None
    assert all(store.info(ref.key) for ref in first.objects())
    assert verify(store, deep=True) == []


def test_lists_hold_what_they_name(store: Store) -> None:
    inner = toy.put_text(store, "named by a list")
    toy.commit(store, "web", range(10), attachments=(put_refs(store, [inner]),))
    toy.age(store, 2 * DAY)
    run_gc(store, plan_gc(store))
    assert store.info(inner.key)


@pytest.mark.parametrize("beat, spared", [(LEASE_SECONDS - 60, True), (LEASE_SECONDS + 60, False)])
def test_a_live_lease_protects_and_a_dead_one_does_not(store: Store, beat: float, spared: bool) -> None:
    refs = garbage(store, 2)
    live(store, "a" * 32, [key_of(0)])
    toy.age(store, beat, keys(store, "runs/"))
    run_gc(store, plan_gc(store))
    assert (finished(store, key_of(0)) is not None) is spared
    assert (store.info(refs[0].key) is not None) is spared
    assert store.info(refs[1].key) is None and read_receipt(store, key_of(1)) is None


def test_the_receipt_of_work_that_a_live_run_is_redoing_stays(store: Store) -> None:
    (ref,) = garbage(store, 1)
    store.delete(ref.key)
    live(store, "a" * 32, [key_of(0)])
    assert plan_gc(store).doomed == ()


def test_the_real_lease_is_what_gc_reads(lake_uri: str) -> None:
    store = open_store(lake_uri)
    ref = toy.put_text(store, "needed")
    receipt = toy.do_work(store, "needed", [ref])
    with Lease(store, "web") as lease:
        lease.announce("extract", [receipt.work_key])
        assert plan_gc(store, grace_seconds=0).doomed == ()
    assert keys(store, "runs/") == set()


def test_grace_counts_from_the_start_of_the_oldest_live_run(store: Store) -> None:
    """A list that a run wrote on its first day and reads on its fifth is no receipt's output."""
    listed = toy.put_text(store, "written by the run", "refs2")
    before = toy.put_text(store, "written days before it")
    live(store, "b" * 32, [])
    toy.age(store, 5 * DAY, [listed.key, f"runs/{'b' * 32}/0001.json"])
    toy.age(store, 7 * DAY, [before.key])
    assert [doomed.key for doomed in plan_gc(store).doomed] == [before.key]


def test_dead_leases_and_leftovers_go_when_old(store: Store) -> None:
    live(store, "c" * 32, [])
    live(store, "d" * 32, [])
    mine = "runs/" + "c" * 32 + "/notes.txt"
    store.put(mine, b"a person's")
    toy.age(store, 2 * DAY, [key for key in keys(store, "runs/") if "ccc" in key])
    toy.age(store, 3600, [key for key in keys(store, "runs/") if "ddd" in key])
    old, new = (Path(store.uri, ".tmp", name) for name in ("old", "new"))
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * DAY,) * 2)
    report = run_gc(store, plan_gc(store))
    assert report.deleted == {"lease": (2, report.deleted["lease"][1]), "temporary": (1, 4)}
    assert not old.exists() and new.exists()
    assert keys(store, "runs/") == {mine, *(f"runs/{'d' * 32}/{name}.json" for name in ("lease", "0001"))}


def test_what_is_not_gcs_stays(store: Store) -> None:
    stays = ["inputs/ab/abc.json", "datasets/web/tags/x.json", "objects/ab/README", "receipts/ab/notes.json", "mine/x"]
    for key in stays:
        store.put(key, b"{}")
    toy.age(store, 9 * DAY)
    assert plan_gc(store).doomed == ()
    assert keys(store) == {*stays, "lake.json"}


# stopping


def damage(store: Store, how: str) -> str:
    key = slot_key("web", 2)
    if how == "torn":
        store.put(key, store.get(key)[:100])
    elif how == "newer":
        store.put(key, store.get(key).replace(b'"format": 3', b'"format": 4', 1))
    elif how == "gone":
        store.delete(key)
    elif how == "swapped":
        store.put(key, store.get(slot_key("web", 1)))
    elif how == "sha changed":
        data = json.loads(store.get(key))
        data["attachments"][0]["sha256"] = "0" * 64
        store.put(key, json.dumps(data).encode())
        return "web@v2"  # its seal shows it
    elif how == "foreign":
        key = "datasets/web/versions/00000002.json.bak"
        store.put(key, b"{}")
    return key if how in ("torn", "newer", "foreign") else "web"


@pytest.mark.parametrize("how", ["torn", "newer", "gone", "swapped", "sha changed", "foreign"])
def test_gc_stops_at_a_version_it_cannot_trust_and_names_it(store: Store, how: str) -> None:
    garbage(store)
    for n in (10, 20, 30):
        toy.commit(store, "web", range(n))
    named = damage(store, how)
    toy.age(store, 2 * DAY)
    with pytest.raises(GcStopped, match=named.replace(".", r"\.")):
        plan_gc(store)


def test_gc_stops_at_a_receipt_or_an_announcement_it_cannot_read(store: Store) -> None:
    key = f"receipts/ab/ab{'0' * 62}.json"
    store.put(key, b'{"format": 2}')
    with pytest.raises(GcStopped, match=f"ab{'0' * 62}"):
        plan_gc(store)
    store.delete(key)
    live(store, "e" * 32, [])
    store.put(f"runs/{'e' * 32}/0002.json", b'{"format": 2}')
    with pytest.raises(GcStopped, match="0002"):
        plan_gc(store)


def test_bad_arguments(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="grace_seconds=-1"):
        plan_gc(store, grace_seconds=-1)
    with pytest.raises(ValueError, match="plan again"):
        run_gc(open_store(str(tmp_path / "other")), plan_gc(store))
