"""A dataset of many increments: what stands in its manifests, and what a question reads, grows with the logarithm."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import many_nights
import pytest
import toy

from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.query.checkout import checkout
from gristmill.lake.query.dataset import Dataset
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, generations
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions import chains, history
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.folded import BLOCK, KIND, Unfolder, fold
from gristmill.lake.versions.manifest import parse
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import Versions

NIGHTS = 70


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Seventy increments. Tests that change it take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        store = open_store(str(tmp_path_factory.mktemp("nights") / "lake"))
        for _ in many_nights.increments(store, NIGHTS):
            pass
    return store


@pytest.fixture
def copy(grown: Store, tmp_path: Path) -> Store:
    shutil.copytree(grown.uri, tmp_path / "lake")
    return open_store(str(tmp_path / "lake"))


def test_all_manifests_together_grow_as_the_increments_do(grown: Store) -> None:
    sizes = [len(grown.get(slot_key("web", n + 1))) for n in range(NIGHTS)]
    assert max(sizes) <= sizes[0] + (2 * BLOCK + 24) * 300  # a pointer is less than 300 bytes
    stored = [parse(grown.get(slot_key("web", n + 1))) for n in range(NIGHTS)]
    lists = {ref.sha256: ref.bytes for manifest in stored for ref in _lists(grown, manifest.shards)}
    assert len(lists) == NIGHTS // BLOCK and sum(lists.values()) <= NIGHTS * 300
    assert sum(sizes[32:64]) <= 1.7 * sum(sizes[:32])  # with every pointer in it, three times


def _lists(store: Store, refs: tuple[ObjectRef, ...]) -> tuple[ObjectRef, ...]:
    return Unfolder(store).lists(refs)


def test_attachments_and_ledgers_are_as_many_as_the_logarithm(grown: Store) -> None:
    for manifest in Versions(grown).manifests("web"):
        blocks = history.blocks_of(manifest.attachments)
        assert len(blocks) <= (history.BLOCK - 1) * (manifest.version.bit_length() // 3 + 1)
        assert len(manifest.attachments) - len(blocks) <= manifest.version.bit_length() + 1
        assert len(generations(manifest.ledgers)) <= manifest.version.bit_length() + 1


def test_readers_see_every_shard_in_order(grown: Store, tmp_path: Path) -> None:
    manifest = Versions(grown).manifest("web", NIGHTS)
    assert Dataset(grown, manifest).to_arrow()["text"].to_pylist() == [f"night {n}" for n in range(NIGHTS)]
    assert len(checkout(grown, manifest, tmp_path / "out").files) == NIGHTS
    stored = parse(grown.get(slot_key("web", NIGHTS)))
    assert [ref.kind for ref in stored.shards[: NIGHTS // BLOCK + 1]] == [KIND, KIND, "shard"]


def test_why_opens_a_few_ledgers_and_tells_every_version(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    find = chains.ledger.find

    def counting(store: Store, refs: list[ObjectRef], prefix: str) -> object:
        opened.extend(ref.sha256 for ref in refs)
        return find(store, refs, prefix)

    monkeypatch.setattr(chains.ledger, "find", counting)
    head = Versions(grown).manifest("web", NIGHTS)
    for increment, page in itertools.product((0, 1, 31, 32, NIGHTS - 1), (0, 1)):
        opened.clear()
        story = single(why(Versions(grown), many_nights.url(increment, page)).stories)
        assert story.versions == tuple(range(increment + 1, NIGHTS + 1))
        assert (story.fate, story.place.names) == (("kept", "dropped")[page], (f"crawl/{increment}.warc.gz",))
        assert story.survivor is None or story.survivor.fate == "kept"
        assert len(opened) <= 3 * len(head.ledgers) and set(opened) <= {ref.sha256 for ref in head.ledgers}


def single(stories: tuple) -> object:
    assert len(stories) == 1
    return stories[0]


def test_the_head_of_a_chain_tells_what_each_version_would(grown: Store) -> None:
    versions = Versions(grown)
    summaries = Catalogue(versions).of("web").in_order()
    for prefix in ("0", "7", "ab", url_hash(many_nights.url(40, 2))):
        together = chains.search(versions, summaries, [prefix])
        for summary in summaries[::6]:
            alone = chains.rows_of(grown, versions.outline("web", summary.version), [prefix])
            assert sorted(map(str, together.rows[summary.version])) == sorted(map(str, alone))


def test_a_damaged_head_is_named_and_the_version_before_it_answers(copy: Store) -> None:
    head = Versions(copy).manifest("web", NIGHTS)
    asked = url_hash(many_nights.url(5, 0))
    touched = [ref for ref in head.ledgers if ref.overlaps(asked, asked + "g")]
    toy.flip(copy, touched[0].key)
    warnings: list[str] = []
    answer = why(Versions(copy, warnings.append), many_nights.url(5, 0))
    assert len(warnings) == 1 and touched[0].key in warnings[0]
    holders = [m.version for m in Versions(copy).manifests("web") if touched[0] in m.ledgers]
    assert answer.unreadable == tuple(f"web@v{number}" for number in holders)
    assert single(answer.stories).versions == tuple(n for n in range(6, NIGHTS + 1) if n not in holders)


def test_a_manifest_that_cannot_be_read_is_named_and_the_rest_answers(copy: Store) -> None:
    copy.put(slot_key("web", 30), b"")
    warnings: list[str] = []
    answer = why(Versions(copy, warnings.append), many_nights.url(5, 0))
    assert answer.unreadable == ("web@v30",) and slot_key("web", 30) in warnings[0] and len(warnings) == 1
    expected = tuple(n for n in range(6, NIGHTS + 1) if n != 30)
    assert single(answer.stories).versions == expected


def test_lists_are_roots_and_their_damage_is_found(copy: Store) -> None:
    assert verify(copy, deep=True) == []
    toy.age(copy, 2 * toy.DAY)
    plan = plan_gc(copy)
    run_gc(copy, plan)
    assert verify(copy, deep=True) == []
    listed = parse(copy.get(slot_key("web", NIGHTS))).shards[0]
    toy.flip(copy, listed.key)
    assert {finding.what for finding in verify(copy)} == {"manifest"}
    copy.delete(listed.key)
    findings = verify(copy)
    assert {finding.what for finding in findings} == {"manifest"} and listed.sha256 in findings[0].message


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK * BLOCK, BLOCK * BLOCK + BLOCK + 1])
def test_what_is_folded_unfolds(store: Store, count: int) -> None:
    refs = [ObjectRef(kind="shard", sha256=f"{i:064x}", bytes=i, records=i) for i in range(count)]
    folded = fold(store, refs)
    assert list(Unfolder(store).unfold(folded)) == refs and len(folded) < 2 * BLOCK
