"""Leases: what a live run announces is seen, what a dead one left is not, and no trouble of a lease ends a run."""

from __future__ import annotations

import json
import logging
import os

import pytest

from gristmill.lake.store.base import Store
from gristmill.lake.versions import lease as module
from gristmill.lake.versions.lease import LEASE_SECONDS, Lease, live_runs, live_work


def age(store: Store, key: str, seconds: float) -> None:
    path = f"{store.uri}/{key}"
    at = os.stat(path).st_mtime - seconds
    os.utime(path, (at, at))


def test_announced_work_is_live_while_the_run_is(store):
    with Lease(store, "web") as lease:
        assert live_work(store) == set()
        lease.announce("scan", ["a"])
        lease.announce("extract", ["b", "c"])
        (run,) = live_runs(store)
        assert run.work == {"a", "b", "c"} == live_work(store)
        assert f"{run.folder}/" == lease.prefix
    assert live_runs(store) == [] and list(store.list("runs/")) == []


def test_runs_do_not_disturb_each_other(store):
    with Lease(store, "web") as lease, Lease(store, "web") as other:
        lease.announce("scan", ["a"])
        other.announce("scan", ["a", "b"])
        assert lease.prefix != other.prefix and len(live_runs(store)) == 2 and live_work(store) == {"a", "b"}


def test_the_lease_says_who_it_is(store):
    with Lease(store, "web") as lease:
        about = json.loads(store.get(f"{lease.prefix}lease.json"))
    assert about["format"] == 2 and about["dataset"] == "web" and about["pid"] == os.getpid() and about["host"]


@pytest.mark.parametrize(("seconds", "alive"), [(LEASE_SECONDS - 5, True), (LEASE_SECONDS + 5, False)])
def test_a_lease_dies_of_age(store, seconds, alive):
    with Lease(store, "web") as lease:
        lease.announce("scan", ["a"])
        age(store, f"{lease.prefix}0001.json", 10 * LEASE_SECONDS)  # announced long ago: no matter
        age(store, f"{lease.prefix}lease.json", seconds)
        assert live_work(store) == ({"a"} if alive else set())


def test_now_is_the_stores_when_given(store):
    with Lease(store, "web") as lease:
        lease.announce("scan", ["a"])
        modified = store.info(f"{lease.prefix}lease.json").modified
        assert live_work(store, modified + LEASE_SECONDS) == set()
        assert live_work(store, modified + LEASE_SECONDS - 1) == {"a"}


def test_a_run_started_when_it_took_its_lease_however_often_that_was_touched(store):
    """Also one that announces no work: an import of a model writes objects as well."""
    with Lease(store, "web") as lease:
        age(store, f"{lease.prefix}0000.json", 500)
        lease._touch()
        (run,) = live_runs(store)
        assert run.started == store.info(f"{lease.prefix}0000.json").modified and run.work == frozenset()
        lease.announce("extract", ["b"])
        assert live_runs(store)[0].started == run.started


def test_announcements_without_a_lease_are_of_a_dead_run(store):
    store.put("runs/abc/0001.json", json.dumps({"format": 1, "stage": "scan", "work": ["a"]}).encode())
    assert live_runs(store) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"work": null}', b"\xff"])
def test_an_announcement_that_cannot_be_read_is_named_with_what_to_do(store, data):
    with Lease(store, "web") as lease:
        store.put(f"{lease.prefix}0001.json", data)
        with pytest.raises(ValueError, match=rf"{lease.prefix}0001\.json in .* cannot be used.*upgrade this one"):
            live_work(store)


def test_the_lease_is_renewed_and_a_failed_renewal_is_tried_again(store, monkeypatch, caplog):
    monkeypatch.setattr(module, "_BEAT", 0.01)
    beats: list[str] = []
    put = store.put

    def faulty(key: str, data: bytes) -> None:
        beats.append(key)
        if len(beats) == 3:
            raise OSError("the store is away")
        put(key, data)

    monkeypatch.setattr(store, "put", faulty)
    with caplog.at_level(logging.WARNING, "gristmill"), Lease(store, "web") as lease:
        while len(beats) < 5:
            assert lease._thread.is_alive()
            lease._thread.join(0.01)
    assert set(beats[1:]) == {f"{lease.prefix}lease.json"}
    assert "was not renewed" in caplog.text and "the store is away" in caplog.text
    assert list(store.list("runs/")) == []


def test_a_lease_that_cannot_be_removed_never_hides_the_runs_own_error(store, monkeypatch, caplog):
    def refuse(key: str) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(store, "delete", refuse)
    with pytest.raises(KeyError, match="its own"), Lease(store, "web"):
        raise KeyError("its own")
    assert "was not removed: read-only" in caplog.text


def test_the_run_that_fails_leaves_no_lease(store):
    with pytest.raises(KeyError), Lease(store, "web") as lease:
        lease.announce("scan", ["a"])
        raise KeyError
    assert live_work(store) == set() and not lease._thread.is_alive()


def test_a_lease_that_cannot_be_written_stops_the_run_before_it_works(store, monkeypatch):
    def refuse(key: str, data: bytes) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store, "put", refuse)
    with pytest.raises(OSError, match="disk full"), Lease(store, "web"):
        pytest.fail("worked without a lease")
