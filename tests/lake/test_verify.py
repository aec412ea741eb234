"""verify names what is damaged and everyone it harms, and says nothing about a sound lake."""

from __future__ import annotations

import hashlib
import json

import pytest
import toy
from toy import only

from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.store.sealed import seal, unseal
from gristmill.lake.upkeep import verify as verify_module
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import NoSuchVersion, Versions


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
        finding = only(verify(store, refs, deep=True))
        assert (finding.severity, finding.what, finding.where) == ("error", "corrupt", ref.sha256)
        assert finding.harmed == harmed
        assert ref.sha256[:12] in finding.message and "backup" in finding.message
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
        kinds = {f.where: f.what for f in verify(store, refs, deep=deep)}
        assert kinds == {lost.sha256: "missing", short.sha256: "size"}


def test_each_shared_object_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = toy.commit(store, "web", range(40))
    for n in range(3):
        toy.commit(store, "web", range(40), run_key=str(n))
    read: list[str] = []
    real = verify_module.prove
    monkeypatch.setattr(
        verify_module, "prove", lambda s, ref, id_column: read.append(ref.sha256) or real(s, ref, id_column)
    )
    assert verify(store, deep=True) == []
    assert sorted(read) == sorted({ref.sha256 for ref in first.objects()})


def test_withdrawn_versions_may_have_lost_everything(store: Store) -> None:
    keeps = toy.commit(store, "web", range(40))
    gone = toy.commit(store, "web", range(30))
    Versions(store).withdraw("web", 2, "takedown")
    for ref in {ref.sha256: ref for ref in gone.objects()}.values():
        if ref.sha256 not in {held.sha256 for held in keeps.objects()}:
            store.delete(ref.key)
    assert verify(store, deep=True) == [] and verify(store, ["web@v2"], deep=True) == []
    toy.commit(store, "web", range(40), run_key="again")
    Versions(store).withdraw("web", 3, "takedown")
    toy.flip(store, keeps.shards[0].key)
    assert only(verify(store, deep=True)).harmed == ("web@v1",)


def test_a_version_withdrawn_while_we_look_is_not_reported(store: Store) -> None:
    manifest = toy.commit(store, "web", range(40))

    def takedown(verb: str, key: str) -> None:
        if verb == "info" and not Versions(store).withdrawn("web"):
            Versions(store).withdraw("web", 1, "takedown")
            store.delete(manifest.shards[0].key)

    assert verify(toy.Watched(store, takedown), ["web@v1"]) == []


# the chain


def rewrite(store: Store, n: int, **fields: object) -> None:
    """Changes a manifest and seals it again, as somebody who means it would."""
    key = slot_key("web", n)
    changed = json.loads(unseal(store.get(key))) | fields
    store.put(key, seal(json.dumps(changed, indent=1).encode()))


def test_damaged_chains(store: Store) -> None:
    for n in (10, 20, 30, 40):
        toy.commit(store, "web", range(n))
    whole = {n: store.get(slot_key("web", n)) for n in (1, 2, 3, 4)}

    def findings() -> set[tuple[str, str, tuple[str, ...]]]:
        problems = {(f.what, f.where, f.harmed) for f in verify(store)}
        for n, data in whole.items():
            store.put(slot_key("web", n), data)
        assert verify(store) == []
        return problems

    v2, v3 = slot_key("web", 2), slot_key("web", 3)
    store.put(v2, whole[2].replace(b"crawl.warc", b"other.warc"))
    assert findings() == {("manifest", v2, ("web@v2",)), ("chain", v3, ("web@v3",))}
    rewrite(store, 2, recipe={})  # sealed anew: the next one names what stood there
    assert findings() == {("chain", v3, ("web@v3",))}
    store.delete(v2)
    assert findings() == {("gap", v2, ("web@v2",))}
    store.put(v2, whole[2][:-20])
    assert findings() == {("manifest", v2, ("web@v2",)), ("chain", v3, ("web@v3",))}
    store.put(v2, b"[]")
    assert ("manifest", v2, ("web@v2",)) in findings()
    store.put(v2, whole[2].replace(b'"format": 3', b'"format": 9', 1))
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
    finding = only(verify(store))
    assert (finding.severity, finding.what, finding.where) == ("warning", "foreign", "datasets/web/versions/notes.txt")


def test_only_the_versions_asked_for_are_judged(store: Store) -> None:
    for n in (10, 20):
        toy.commit(store, "web", range(n))
    toy.commit(store, "code", range(10))
    Versions(store).tag("web", 2, "release")
    rewrite(store, 2, digest="0" * 64)
    assert verify(store, ["web@v1", "code"]) == []
    assert [f.harmed for f in verify(store, ["web"])] == [("web@v2",)]
    assert [f.harmed for f in verify(store, ["web@release"])] == [("web@v2",)]
    store.put(slot_key("web", 2), b"{")
    assert only(verify(store, ["web@v2"])).what == "manifest"
    for unknown in ("nothing", "web@v9", "web@old"):
        with pytest.raises(NoSuchVersion):
            verify(store, [unknown])
