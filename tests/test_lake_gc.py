"""gc never takes what a version, a live run or a recent write needs, whenever it looks and wherever it is killed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import toy

from lake.gc import GcStopped, plan_gc, run_gc
from lake.lease import LEASE_SECONDS, Lease
from lake.objects import ObjectRef, put_refs
from lake.receipt import finished, read_receipt
from lake.roots import slot_key
from lake.store import Store, open_store
from lake.verify import verify
from lake.versions import Versions

DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


def keys(store: Store, prefix: str = "") -> set[str]:
    return {info.key for info in store.list(prefix)}


def garbage(store: Store, count: int = 4, *, days: float = 2) -> list[ObjectRef]:
    """Results of finished work that no version holds."""
    refs = [toy.put_text(store, f"garbage {i}") for i in range(count)]
    receipts = [toy.do_work(store, f"work {i}", [ref]) for i, ref in enumerate(refs)]
    names = [f"receipts/{r.work_key[:2]}/{r.work_key}.json" for r in receipts]
    toy.age(store, days * DAY, [*(ref.key for ref in refs), *names])
    return refs


def key_of(i: int) -> str:
    return toy.work_key([toy.STAGE], [f"work {i}"])


def live(store: Store, folder: str, work: list[str]) -> None:
    """A lease as a running run has it."""
    store.put(f"runs/{folder}/lease.json", b"{}")
    store.put(f"runs/{folder}/0001.json", json.dumps({"format": 1, "stage": "toy", "work": work}).encode())


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
    assert before - keys(store) == {one.key for one in plan.doomed}
    assert verify(store, deep=True) == []
    assert plan_gc(store, now=time.time() + 2 * DAY).doomed == ()


def test_young_objects_stay_between_object_and_receipt(store: Store) -> None:
    ref = toy.put_text(store, "written, and its receipt comes in a moment")
    toy.age(store, DAY - 60, [ref.key])
    plan = plan_gc(store)
    assert plan.doomed == () and plan.kept == {"young": (1, ref.bytes)}
    toy.age(store, 120, [ref.key])
    assert [one.why for one in plan_gc(store).doomed] == ["no receipt names it: its writer was killed"]


def test_outputs_of_a_young_receipt_stay_however_old(store: Store) -> None:
    (ref,) = garbage(store, 1)
    toy.do_work(store, "today's", [ref])
    assert plan_gc(store).doomed == ()


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
    assert {one.key: one.why for one in plan.doomed if one.kind == "object"}[mine.key] == (
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


def test_the_real_lease_is_what_gc_reads(lake_uri: str) -> None:
    store = open_store(lake_uri)
    ref = toy.put_text(store, "needed")
    receipt = toy.do_work(store, "needed", [ref])
    with Lease(store, "web", "run") as lease:
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
    assert [one.key for one in plan_gc(store).doomed] == [before.key]


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
        store.put(key, store.get(key).replace(b'"format": 1', b'"format": 2', 1))
    elif how == "gone":
        store.delete(key)
    elif how == "swapped":
        store.put(key, store.get(slot_key("web", 1)))
    elif how == "sha changed":
        data = json.loads(store.get(key))
        data["attachments"][0]["sha256"] = "0" * 64
        store.put(key, json.dumps(data).encode())
        return "web@v3"  # the chain shows it
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


# the lake moves between plan and sweep


def test_an_object_put_again_after_the_plan_survives(lake_uri: str) -> None:
    store = open_store(lake_uri)
    ref, other = toy.put_text(store, "again"), toy.put_text(store, "not again")
    plan = plan_gc(store, grace_seconds=0, now=time.time() + DAY)
    assert len(plan.doomed) == 2
    time.sleep(1.1)  # S3 tells whole seconds
    toy.put_text(store, "again")
    report = run_gc(store, plan)
    assert store.info(ref.key) and store.info(other.key) is None
    assert report.spared == {"it was written again since the plan": 1}


def test_a_version_committed_after_the_plan_keeps_its_objects(store: Store) -> None:
    ref = toy.put_text(store, "held soon", "measures")
    toy.age(store, 2 * DAY)
    plan = plan_gc(store)
    manifest = toy.commit(store, "web", range(10), attachments=(ref,))
    report = run_gc(store, plan)
    assert report.spared == {"a version committed since holds it": 1}
    assert all(store.info(one.key) for one in manifest.objects())


def test_a_version_damaged_after_the_plan_stops_the_sweep(store: Store) -> None:
    garbage(store)
    plan = plan_gc(store)
    toy.commit(store, "web", range(10))
    store.put(slot_key("web", 1), b"{")
    with pytest.raises(GcStopped, match=slot_key("web", 1)):
        run_gc(store, plan)
    assert len(keys(store, "receipts/")) > 4


def test_a_run_that_begins_after_the_plan_keeps_its_work(store: Store) -> None:
    refs = garbage(store, 3)
    plan = plan_gc(store)
    live(store, "f" * 32, [key_of(1)])
    report = run_gc(store, plan)
    assert finished(store, key_of(1)) and report.spared == {"a run that began since needs it": 2}
    assert store.info(refs[0].key) is None and store.info(refs[2].key) is None


def test_a_run_that_saw_a_receipt_just_before_it_went_gets_it_back(store: Store) -> None:
    """The narrowest race: announced, found done, and the receipt is deleted at that moment."""
    refs = garbage(store, 2)
    plan = plan_gc(store)

    def run_looks(verb: str, key: str) -> None:
        if verb == "delete" and key_of(0) in key:
            live(store, "a" * 32, [key_of(0)])
            assert finished(store, key_of(0))

    report = run_gc(toy.Watched(store, run_looks), plan)
    assert finished(store, key_of(0)) and store.info(refs[0].key)
    assert report.spared == {"a run that began since needs it": 2}
    assert finished(store, key_of(1)) is None


def test_from_lease_to_commit_something_holds_the_work(store: Store) -> None:
    """Lease, commit, end: at every moment of it the objects are held by one or the other."""
    garbage(store, 1)
    ref = read_receipt(store, key_of(0)).outputs[0]
    with Lease(store, "web", "run") as lease:
        lease.announce("toy", [key_of(0)])
        plan = plan_gc(store)
        assert ref.key not in {one.key for one in plan.doomed}
        toy.commit(store, "web", range(10), attachments=(ref,))
    assert ref.key not in {one.key for one in plan_gc(store).doomed}


@pytest.mark.parametrize("k", [0, 1, 3, 5, 9])
def test_a_sweep_killed_anywhere_is_finished_by_the_next(store: Store, k: int) -> None:
    toy.commit(store, "web", range(20))
    garbage(store, 5)
    toy.age(store, 2 * DAY, [key for key in keys(store) if key.startswith(("objects", "receipts"))])
    left = k

    def die(verb: str, key: str) -> None:
        nonlocal left
        if verb == "delete":
            if left <= 0:
                raise KeyboardInterrupt
            left -= 1

    plan = plan_gc(store)
    objects = {one.key for one in plan.doomed if one.kind == "object"}
    with pytest.raises(KeyboardInterrupt):
        run_gc(toy.Watched(store, die), plan)
    promised = {ref.key for i in range(5) if (r := read_receipt(store, key_of(i))) for ref in r.outputs}
    assert promised <= keys(store), "no receipt outlives its outputs"
    run_gc(store, plan_gc(store))
    assert not objects & keys(store)
    assert plan_gc(store).doomed == () and verify(store, deep=True) == []
    assert all(read_receipt(store, key_of(i)) is None for i in range(5))


def test_two_sweeps_at_once_do_no_harm(store: Store) -> None:
    toy.commit(store, "web", range(20))
    garbage(store, 3)
    first, second = plan_gc(store), plan_gc(store)
    run_gc(store, first)
    run_gc(store, second)
    assert verify(store, deep=True) == []


def test_ages_are_by_the_stores_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is two days ahead: young work and live runs must look young and alive all the same."""
    toy.put_text(store, "young")
    live(store, "a" * 32, [key_of(0)])
    garbage(store, 1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * DAY)
    plan = plan_gc(store)
    assert plan.doomed == ()
    assert run_gc(store, plan).deleted == {}
