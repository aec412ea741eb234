"""The sweep looks again: whatever begins, commits or dies between plan and deletion, nothing needed is lost."""

from __future__ import annotations

import time

import pytest
import toy
from toy import DAY, garbage, key_of, keys, live

from gristmill.lake.accounts.receipt import finished, read_receipt
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import GcStopped, plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.lease import Lease
from gristmill.lake.versions.roots import slot_key


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
    assert all(store.info(ref.key) for ref in manifest.objects())


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
    with Lease(store, "web") as lease:
        lease.announce("toy", [key_of(0)])
        plan = plan_gc(store)
        assert ref.key not in {doomed.key for doomed in plan.doomed}
        toy.commit(store, "web", range(10), attachments=(ref,))
    assert ref.key not in {doomed.key for doomed in plan_gc(store).doomed}


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
    objects = {doomed.key for doomed in plan.doomed if doomed.kind == "object"}
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
    garbage(store, 2)
    live(store, "a" * 32, [key_of(0)])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * DAY)
    plan = plan_gc(store)
    assert {doomed.kind for doomed in plan.doomed} == {"object", "receipt"} and len(plan.doomed) == 2
    live(store, "b" * 32, [key_of(1)])
    report = run_gc(store, plan)
    assert report.deleted == {} and finished(store, key_of(0)) and finished(store, key_of(1))
