"""Versions: the chain of slots, tags and withdrawals that are created once, and how errors name what there is."""

from __future__ import annotations

import hashlib
import json

import pytest
from lake_builder import Page, commit, pages

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.accounts.receipt import StageId
from gristmill.lake.store.objects import ObjectRef
from gristmill.lake.versions.manifest import Draft, FunnelRow, VersionRef, content_digest, run_key
from gristmill.lake.versions.versions import CommitConflict, NoSuchVersion, Versions, check_name


@pytest.fixture
def web(store) -> Versions:
    """Three versions of `web`."""
    for n in range(3):
        commit(store, "web", pages(4 + n), recipe={"n": n})
    return Versions(store)


def slot(n: int, name: str = "web") -> str:
    return f"datasets/{name}/versions/{n:08d}.json"


# Slots


def test_versions_are_numbered_and_every_manifest_names_the_one_before(web):
    assert web.numbers("web") == [1, 2, 3] and web.latest("web") == 3
    first, second, third = web.manifests("web")
    assert [m.version for m in web.manifests("web", newest_first=True)] == [3, 2, 1]
    assert first.previous is None
    assert second.previous == hashlib.sha256(web.store.get(slot(1))).hexdigest()
    assert third.previous == hashlib.sha256(web.store.get(slot(2))).hexdigest()
    assert third.digest == content_digest(third.shards, third.ledgers)


def test_numbers_are_in_order_far_beyond_ten(store):
    for n in range(1, 12):
        commit(store, "web", pages(n), recipe={"n": n})
    versions = Versions(store)
    assert versions.numbers("web") == list(range(1, 12)) and versions.latest("web") == 11
    assert [m.version for m in versions.manifests("web", newest_first=True)] == list(range(11, 0, -1))


def test_names_are_those_with_a_version(web):
    commit(web.store, "code.limit", pages(1))
    web.store.put("datasets/pinned/pins/x/0001.json", b"{}")
    assert web.names() == ["code.limit", "web"]
    assert web.numbers("pinned") == [] and web.numbers("we") == []


def test_a_version_is_found_by_the_run_that_made_it_unless_it_was_withdrawn(web):
    second = web.manifest("web", 2)
    assert web.find_run("web", second.run_key) == second
    assert web.find_run("web", "0" * 64) is None and web.find_run("other", second.run_key) is None
    web.withdraw("web", 2, "takedown")
    assert web.find_run("web", second.run_key) is None
    again = commit(web.store, "web", pages(5), recipe={"n": 1})
    assert again.version == 4 and web.find_run("web", second.run_key) == again


def test_an_expected_parent_that_does_not_exist_is_refused(web):
    draft = Draft(**{name: getattr(web.manifest("web", 3), name) for name in Draft.model_fields})
    draft = draft.model_copy(update={"run_key": "other"})
    with pytest.raises(NoSuchVersion, match="web has no v7; it has v1, v2, v3"):
        web.commit(draft, expected_parent=7)
    with pytest.raises(CommitConflict, match=r"expected v2 to be the latest, but v3 is there already .*run the same"):
        web.commit(draft, expected_parent=2)
    web.withdraw("web", 3, "takedown")
    assert web.commit(draft, expected_parent=2).version == 4  # nobody builds on what was taken down


def test_an_object_of_another_size_is_not_committed(web):
    manifest = web.manifest("web", 1)
    web.store.put(manifest.shards[0].key, b"cut")
    fields = {name: getattr(manifest, name) for name in Draft.model_fields}
    draft = Draft(**fields).model_copy(update={"run_key": "other"})
    shard = manifest.shards[0]
    message = rf"web: not committed, 1 objects .* shard {shard.sha256[:12]} has 3 bytes, not {shard.bytes}"
    with pytest.raises(FileNotFoundError, match=message):
        web.commit(draft)


# Files that are none of ours


def test_other_peoples_files_do_no_harm(web):
    for folder in ("versions", "tags", "withdrawn"):
        for name in (".DS_Store", "notes.txt", "00000001.json.bak"):
            web.store.put(f"datasets/web/{folder}/{name}", b"?")
    assert web.numbers("web") == [1, 2, 3] and web.tags("web") == {} and web.withdrawn("web") == {}
    assert web.resolve("web").version == 3 and commit(web.store, "web", pages(9)).version == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"[]", "it has no format number"),
        (b"{}", "it has no format number"),
        (b"\xff", "it is cut short, or no JSON"),
        (b'{"format": 1}', "dataset: Field req"),
    ],
)
def test_a_damaged_manifest_is_named_with_what_to_do(web, data, message):
    web.store.put(slot(2), data)
    where = rf"web@v2: its manifest {slot(2)} in .* cannot be read \({message}.*restore the file"
    with pytest.raises(ValueError, match=where):
        web.resolve("web@v2")
    with pytest.raises(ValueError, match=where):
        list(web.manifests("web"))


def test_a_manifest_of_another_format_says_upgrade(web):
    data = json.loads(web.store.get(slot(3))) | {"format": 4, "future": True}
    web.store.put(slot(3), json.dumps(data).encode())
    with pytest.raises(ValueError, match=r"web@v3: its manifest .* format 4, this gristmill reads up to 3: upgrade it"):
        web.resolve("web")


# Names


@pytest.mark.parametrize("name", ["web", "web.limit", "a", "0", "cot-1_b", "a.b.c-d"])
def test_names_that_are(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", "Web", ".web", "web.", "a..b", "-web", "a/b", "../a", "web@v1", "wéb", "web\n"])
def test_names_that_are_not(name):
    with pytest.raises(ValueError, match=r"dataset name .*lower-case letters"):
        check_name(name)


def test_a_reference_to_what_is_no_name_is_refused(web):
    with pytest.raises(ValueError, match=r"dataset name '\.\./web'"):
        web.resolve("../web@v1")


# Resolving


def test_a_reference_is_a_number_a_tag_or_the_latest(web):
    web.tag("web", 2, "good")
    numbers = {ref: web.resolve(ref).version for ref in ("web", "web@", "web@latest", "web@v1", "web@v01", "web@good")}
    assert numbers == {"web": 3, "web@": 3, "web@latest": 3, "web@v1": 1, "web@v01": 1, "web@good": 2}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("web@v4", "web has no v4; it has v1, v2, v3, good"),
        ("web@v0", "web has no v0; it has v1"),
        ("web@better", "web has no tag 'better'; it has v1, v2, v3, good"),
        ("web@v1@good", "web has no tag 'v1@good'"),
        ("cot", "there is no dataset 'cot' in .*; it has web"),
        ("cot@v1", "there is no dataset 'cot'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(web, ref, message):
    web.tag("web", 2, "good")
    with pytest.raises(NoSuchVersion, match=message):
        web.resolve(ref)


def test_a_dataset_without_a_usable_version_has_no_latest(store):
    commit(store, "web", pages(3))
    versions = Versions(store)
    versions.withdraw("web", 1, "takedown")
    assert versions.latest("web") is None and versions.resolve("web@v1").version == 1
    with pytest.raises(NoSuchVersion, match="web has no version that is not withdrawn; it has v1"):
        versions.resolve("web")


# Tags and withdrawals


def test_a_tag_is_never_moved(web):
    web.tag("web", 1, "release-1.0")
    web.tag("web", 1, "release-1.0")  # the same again is no error
    with pytest.raises(FileExistsError, match=r"web@release-1\.0 is v1 already; tags are never moved"):
        web.tag("web", 2, "release-1.0")
    web.tag("web", 1, "other")
    assert web.tags("web") == {"release-1.0": 1, "other": 1}


@pytest.mark.parametrize("tag", ["", "v3", "v03", "latest", "a/b", ".hidden", "-x", "a b", "a@b", "ä", "v3\n"])
def test_tags_that_could_be_mistaken_are_refused(web, tag):
    with pytest.raises(ValueError, match=r"letters, digits, .* not 'latest' and not like 'v3'"):
        web.tag("web", 1, tag)
    assert web.tags("web") == {}


def test_only_what_exists_is_tagged_or_withdrawn(web):
    with pytest.raises(NoSuchVersion, match="web has no v9"):
        web.tag("web", 9, "good")
    with pytest.raises(NoSuchVersion, match="web has no v9"):
        web.withdraw("web", 9, "why")
    assert web.tags("web") == {} and web.withdrawn("web") == {}


def test_a_withdrawal_keeps_the_number_and_its_first_reason(web):
    web.withdraw("web", 3, "takedown")
    web.withdraw("web", 3, "another reason")
    assert web.withdrawn("web") == {3: "takedown"}
    assert web.numbers("web") == [1, 2, 3] and web.latest("web") == 2 and web.resolve("web").version == 2
    assert commit(web.store, "web", pages(9)).version == 4


# Manifests


STAGE = StageId(name="toy", version=1, config={})


def test_the_run_key_takes_inputs_as_a_set_and_all_else_in_order():
    key = run_key("web", {"a": 1}, ["x", "y"], [STAGE])
    assert run_key("web", {"a": 1}, ["y", "x", "y"], [STAGE]) == key
    source = VersionRef(dataset="a", version=1, digest="d")
    others = [
        run_key("wob", {"a": 1}, ["x", "y"], [STAGE]),
        run_key("web", {"a": 2}, ["x", "y"], [STAGE]),
        run_key("web", {"a": 1}, ["x"], [STAGE]),
        run_key("web", {"a": 1}, ["x", "y"], [STAGE.model_copy(update={"version": 2})]),
        run_key("web", {"a": 1}, ["x", "y"], [STAGE], [source]),
        run_key("web", {"a": 1}, ["x", "y"], [STAGE], [source.model_copy(update={"role": "extends"})]),
    ]
    assert len({key, *others}) == 7


def test_the_content_digest_covers_shards_and_ledgers_in_order_and_nothing_else(web):
    manifest = web.manifest("web", 1)
    a, b = (ObjectRef(kind="shard", sha256=c * 64, bytes=1, records=1) for c in "ab")
    assert content_digest([a, b], []) != content_digest([b, a], [])
    assert content_digest([a], []) != content_digest([a.model_copy(update={"kind": "ledger"})], [])
    changed = manifest.model_copy(update={"made": {}, "attachments": (), "recipe": {"x": 1}})
    assert changed.content_digest == manifest.content_digest


def test_a_funnel_that_does_not_add_up_is_refused():
    with pytest.raises(ValueError, match="10 records entered 'read', 9 left it"):
        FunnelRow(stage="read", received=10, passed=7, dropped={"read.a": 1}, quarantined={"read.b": 1})


def test_manifests_cannot_be_changed_and_survive_json(web):
    manifest = web.manifest("web", 1)
    with pytest.raises(ValueError, match="frozen"):
        manifest.kept = Tally()
    assert type(manifest).model_validate_json(manifest.model_dump_json()) == manifest
    assert str(manifest) == str(manifest.ref) == "web@v1"


def test_a_run_that_finds_its_version_withdrawn_commits_a_new_one(store):
    broken = [*pages(3), Page("https://example.org/x", "read.unreadable", "bad")]
    first = commit(store, "web", broken)
    Versions(store).withdraw("web", 1, "takedown")
    second = commit(store, "web", broken)
    assert (second.version, second.digest, second.run_key) == (2, first.digest, first.run_key)


def test_a_run_that_ends_after_an_equal_one_gets_its_version_and_takes_no_slot(store):
    first = commit(store, "web", pages(3))
    other = commit(store, "web", pages(3), recipe={"n": 1})
    assert commit(store, "web", pages(3)) == first  # both began before either was there
    assert Versions(store).numbers("web") == [1, other.version]
