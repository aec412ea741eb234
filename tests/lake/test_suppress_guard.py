"""The suppression list guarded: whatever is taken from it or exchanged is noticed by `verify` and by every run, before
anything that was forgotten can come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forget_lake import do, increment, two_nights
from forget_lake import docs as pages
from toy import Watched

from gristmill.lake.store.base import Info, Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import COPIES, PREFIX, ListNotWhole, Suppression, read_takedowns
from gristmill.lake.takedown.suppress_guard import guarded_list
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.lease import Lease
from gristmill.lake.versions.versions import Versions

A, B, C = (Suppression.of(urls=[f"https://example.org/{name}"]) for name in "abc")


def slot(number: int, prefix: str = PREFIX) -> str:
    return f"{prefix}{number:08d}.json"


def drop(*prefixes: str) -> Callable[[Store], None]:
    return lambda store: [store.delete(info.key) for prefix in prefixes for info in list(store.list(prefix))] and None


def edit(key: str, **changes: object) -> Callable[[Store], None]:
    return lambda store: store.put(key, json.dumps({**json.loads(store.get(key)), **changes}, indent=1).encode())


def put(key: str, data: bytes | Callable[[Store], bytes]) -> Callable[[Store], None]:
    return lambda store: store.put(key, data if isinstance(data, bytes) else data(store))


def both(*acts: Callable[[Store], None]) -> Callable[[Store], None]:
    return lambda store: [act(store) for act in acts] and None


DAMAGE = {
    "folder deleted": drop(PREFIX),
    "both folders deleted": drop(PREFIX, COPIES),
    "newest file deleted": lambda store: store.delete(slot(3)),
    "oldest file deleted": lambda store: store.delete(slot(1)),
    "newest file and its copy deleted": lambda store: [store.delete(slot(3, p)) for p in (PREFIX, COPIES)] and None,
    "truncated": put(slot(2), lambda store: store.get(slot(2))[:40]),
    "emptied": put(slot(3), b""),
    "emptied with its copy": both(put(slot(3), b""), put(slot(3, COPIES), b"")),
    "no entries left": both(edit(slot(3), urls=[], pages=[]), edit(slot(3, COPIES), urls=[], pages=[])),
    "another request in its place": put(slot(2), lambda store: store.get(slot(1))),
    "swapped with its copy": both(
        put(slot(2), lambda store: store.get(slot(1))), put(slot(2, COPIES), lambda store: store.get(slot(1)))
    ),
    "another reason": edit(slot(2), reason="no reason at all"),
}


@pytest.fixture(scope="module")
def three_requests(tmp_path_factory) -> Path:
    """A lake of which three pages were forgotten, each by a request of its own."""
    store = open_store(str(tmp_path_factory.mktemp("asked") / "lake"))
    two_nights(store)
    for request in (A, B, C):
        do(store, request)
    return Path(store.uri)


@pytest.fixture
def asked(three_requests, tmp_path) -> Store:
    return open_store(str(shutil.copytree(three_requests, tmp_path / "lake")))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_whatever_is_taken_from_the_list_is_noticed_by_verify_and_by_every_run(asked, damage):
    assert verify(asked) == [] and guarded_list(asked) == A.union([B, C])
    damage(asked)
    findings = [finding for finding in verify(asked) if finding.what == "suppression"]
    assert findings and all("suppressions/" in finding.message and "estore" in finding.message for finding in findings)
    with pytest.raises(ListNotWhole, match=r"suppressions/.*estore") as refusal:
        guarded_list(asked)
    assert asked.uri in str(refusal.value)


def test_what_the_copies_have_can_be_put_back(asked):
    for info in list(asked.list(PREFIX)):
        asked.delete(info.key)
    with pytest.raises(ListNotWhole, match=r"takedowns/00000001.json is its copy"):
        guarded_list(asked)
    for info in list(asked.list(COPIES)):
        asked.put(info.key.replace(COPIES, PREFIX), asked.get(info.key))
    assert verify(asked) == [] and guarded_list(asked) == A.union([B, C])


def test_to_ask_for_the_same_again_mends_a_list_that_is_lost(asked):
    for prefix in (PREFIX, COPIES):
        for info in list(asked.list(prefix)):
            asked.delete(info.key)
    for request in (A, B, C):
        do(asked, request)
    assert verify(asked) == [] and guarded_list(asked) == A.union([B, C])


def test_a_request_on_top_of_a_list_that_lost_one_is_refused(asked):
    asked.delete(slot(2))
    with pytest.raises(ListNotWhole, match=r"suppressions/00000002.json .* is missing"):
        do(asked, Suppression.of(domains=["evil.com"]))


def test_a_copy_that_is_lost_or_changed_is_named(asked):
    whole = asked.get(slot(1, COPIES))
    asked.delete(slot(1, COPIES))
    assert [finding.where for finding in verify(asked)] == [slot(1, COPIES)]
    asked.put(slot(1, COPIES), whole.replace(b"request 7", b"request 8"))
    assert ["differ" in finding.message for finding in verify(asked)] == [True]
    asked.delete(slot(1, COPIES))
    do(asked, A)  # the same request again writes what is missing
    assert verify(asked) == [] and asked.get(slot(1, COPIES)) == whole


def test_a_list_of_the_last_release_counts_goes_on_and_is_missed(store):
    """It wrote each request as a file named after its digest, in format 1, and knew no numbers."""
    old = Suppression(urls=A.urls)
    entries = {"format": 1, "url_format": 1, "ids": [], "urls": sorted(old.urls), "domains": []}
    store.put(f"{PREFIX}{old.digest}.json", json.dumps({**entries, "reason": "r", "at": "2026"}).encode())
    assert guarded_list(store) == old
    base = increment(store, "web", pages("a", "b"))
    Versions(store).commit(
        base.model_copy(update={"recipe": {"suppression": "f" * 64}, "run_key": "next"}), expected_parent=None
    )
    assert guarded_list(store) == old and verify(store) == []  # of an order that it did not write down, nothing is said
    B.save(store, "next")
    assert guarded_list(store) == old.union([B]) and len(read_takedowns(store).requests) == 2
    store.delete(f"{PREFIX}{old.digest}.json")
    with pytest.raises(ListNotWhole, match=f"{old.digest}.json in .* is missing"):
        guarded_list(store)


def test_two_requests_that_take_the_same_number_both_count(store):
    def others_first(verb: str, key: str) -> None:
        if verb == "create" and key == slot(1):
            B.save(store, "other")

    assert A.save(Watched(store, others_first), "mine") == slot(2)
    takedowns = read_takedowns(store)
    assert takedowns.whole == A.union([B]) and takedowns.lists == {B.digest, A.union([B]).digest}
    assert [info.key for info in store.list(COPIES)] == [slot(1, COPIES), slot(2, COPIES)]


@pytest.mark.parametrize("place", [PREFIX, COPIES])
def test_a_request_saved_while_the_list_is_read_is_on_it_or_not_yet(store, place):
    A.save(store, "first")

    class Meanwhile:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def list(self, prefix: str = "") -> Iterator[Info]:
            there = list(store.list(prefix))
            if prefix == place:
                B.save(store, "meanwhile")
            return iter(there)

    assert Suppression.load(Meanwhile()) in (A, A.union([B]))  # type: ignore[arg-type]
    assert Suppression.load(store) == A.union([B])


@pytest.mark.parametrize("data", [b"", b"{", b"\xff" * 40, b"[]", b'{"format": 1}', b'{"format": 1, "url_format": 1}'])
def test_what_is_wrong_is_said_in_words_of_ours(store, data):
    A.save(store, "asked")
    for prefix in (PREFIX, COPIES):
        store.put(slot(1, prefix), data)
    with pytest.raises(ListNotWhole, match=r"is damaged \(it .*restore it from a copy of the lake") as caught:
        read_takedowns(store)
    assert "Error" not in str(caught.value) and "codec" not in str(caught.value)


def test_another_datasets_damaged_manifest_stops_no_run(asked):
    asked.put("datasets/code/versions/00000001.json", b"{")
    with Lease(asked, "x"):
        assert guarded_list(asked) == A.union([B, C])


def test_a_run_ends_with_exit_code_3_and_the_remedy_and_brings_nothing_back(tmp_path: Path, capsys):
    from gristmill.pipelines.command import GATE, Request, run

    crawl, lake = tmp_path / "crawl.jsonl", str(tmp_path / "lake")
    crawl.write_text(json.dumps({"url": "https://example.org/", "text": "a page that is too short to keep"}) + "\n")
    config = {"pipeline": "web", "recipe": {"inputs": [str(crawl)]}, "run": {"workers": 0, "lake": lake}}
    assert run(Request(config)) == 0
    store = open_store(lake)
    do(store, Suppression.of(urls=["https://example.org/never-seen"]))
    drop(PREFIX)(store)
    capsys.readouterr()
    for settings in ((), ("recipe.dataset=other",), ("recipe.gopher_quality.min_words=30",)):
        assert run(Request(config, settings)) == GATE
        printed = capsys.readouterr().err
        assert "suppressions/00000001.json" in printed and "restore it" in printed and "Traceback" not in printed
    assert Versions(store).names() == ["web"] and Versions(store).numbers("web") == [1]
