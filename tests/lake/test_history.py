"""The history in a manifest: a question over three hundred versions reads a few objects, and is answered rightly where
some of them are damaged, lost, or not what they were."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from counting import Counting
from drafts import draft

from gristmill.lake.accounts.balance import Tally
from gristmill.lake.query.diff import diff
from gristmill.lake.query.lineage import graph, walk
from gristmill.lake.query.query import describe, lineage, list_datasets, list_versions
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, put_file
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions import history
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.manifest import Manifest, encode
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import Versions

NIGHTS = 300
FEW = 2 * 3 * (history.BLOCK - 1)
"""Blocks of three sizes, the manifests that no block has yet, and as many files again."""


def _input(night: int) -> str:
    return hashlib.sha256(b"%d" % night).hexdigest()


def commit_night(versions: Versions, base: Manifest | None, **fields: object) -> Manifest:
    """A version more, with one record more than `base`, of an input of its own."""
    number = 0 if base is None else base.version
    own = Tally.of_records([_input(number)], [0])
    tally = own if base is None else base.received + own
    parent = None if base is None else base.ref
    given = {"parent": parent, "received": tally, "kept": tally, **fields}
    return versions.commit(draft("web", f"night {number}", [_input(number)], **given), expected_parent=number)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """web@v1 to v300, each of which extends the one before. Tests that change it take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        store = open_store(str(tmp_path_factory.mktemp("nights") / "lake"))
        base = None
        for night in range(NIGHTS):
            recipe = {"filter": {"least": 1 if night < 10 else 2}}
            base = commit_night(Versions(store), base, recipe=recipe, made={"at": f"night {night}"})
    return store


@pytest.fixture
def copy(grown: Store, tmp_path: Path) -> Store:
    shutil.copytree(grown.uri, tmp_path / "lake")
    return open_store(str(tmp_path / "lake"))


def blocks(store: Store, number: int = NIGHTS) -> tuple[ObjectRef, ...]:
    return history.blocks_of(Versions(store).manifest("web", number).attachments)


def test_questions_over_three_hundred_versions_read_a_few_objects(grown: Store) -> None:
    before = Versions(grown).manifest("web", 100)
    newest = Versions(grown).manifest("web", NIGHTS)
    questions = {
        "ls": lambda versions: list_datasets(versions),
        "ls web": lambda versions: list_versions(versions, "web"),
        "show web": lambda versions: describe(versions, "web"),
        "show web@v150": lambda versions: describe(versions, "web@v150"),
        "lineage": lambda versions: lineage(versions, "web"),
        "diff": lambda versions: diff(versions.store, before, newest),
        "why": lambda versions: why(versions, "0" * 32),
    }
    for name, ask in questions.items():
        store = Counting(grown)
        ask(Versions(store))  # type: ignore[arg-type]
        assert 0 < len(store.read) <= FEW, (name, len(store.read))


def test_a_summary_says_what_the_manifest_does(grown: Store) -> None:
    warnings: list[str] = []
    versions = Versions(grown, warnings.append)
    listing = Catalogue(versions).of("web")
    assert sorted(listing.summaries) == list(range(1, NIGHTS + 1)) and not listing.problems and not warnings
    for number in (1, 8, 9, 64, 65, 256, 292, NIGHTS):
        assert listing.summaries[number] == versions.read("web", number)[1]
    newest, oldest = list_versions(versions, "web")[:: NIGHTS - 1]
    assert (newest.version, newest.kept, newest.at) == (NIGHTS, NIGHTS, "night 299")
    assert (oldest.version, oldest.kept, oldest.at) == (1, 1, "night 0")


def test_blocks_number_with_the_logarithm_and_follow_one_another(grown: Store) -> None:
    assert [ref.records for ref in blocks(grown)] == [64, 64, 64, 64, 8, 8, 8, 8, 8]
    for number in (1, 8, 9, 64, 65, 72, 73):
        assert history.covered(blocks(grown, number)) == (number - 1) // history.BLOCK * history.BLOCK


def test_what_changed_on_the_way_and_inputs_of_all_are_known(grown: Store) -> None:
    versions = Versions(grown)
    assert describe(versions, "web").changed == ("filter.least",)
    assert describe(versions, "web@v9").changed == ()
    old, new = versions.manifest("web", 3), versions.manifest("web", NIGHTS)
    assert [file.digest for file in diff(grown, old, new).inputs_added] == sorted(_input(n) for n in range(3, NIGHTS))


def test_a_lineage_is_as_deep_as_the_nights(grown: Store) -> None:
    tree = lineage(Versions(grown), "web")
    refs = [node.ref for node, _ in walk(tree)]
    assert refs == [f"web@v{number}" for number in range(NIGHTS, 0, -1)]
    data = graph(tree)
    assert len(data["nodes"]) == NIGHTS and len(data["edges"]) == NIGHTS - 1
    assert data["edges"][0] == {"version": "web@v300", "role": "extends", "origin": "web@v299"}


def test_a_sound_history_has_no_findings_and_gc_keeps_it(copy: Store) -> None:
    assert verify(copy) == []
    toy.age(copy, 2 * toy.DAY)
    run_gc(copy, plan_gc(copy))
    assert verify(copy) == []
    assert {ref.key for ref in blocks(copy)} <= {info.key for info in copy.list("objects/")}


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "damaged"])
def test_a_block_that_cannot_be_read_is_named_and_its_manifests_are_read(copy: Store, lost: bool) -> None:
    block = blocks(copy)[1]
    if lost:
        copy.delete(block.key)
    else:
        toy.flip(copy, block.key)
    warnings: list[str] = []
    store = Counting(copy)
    rows = list_versions(Versions(store, warnings.append), "web")  # type: ignore[arg-type]
    assert [row.kept for row in rows] == list(range(NIGHTS, 0, -1)) and all(row.problem is None for row in rows)
    assert len(warnings) == 1 and block.sha256 in warnings[0]
    assert {slot_key("web", number) for number in range(65, 129)} <= set(store.read)
    findings = verify(copy)
    assert {finding.what for finding in findings} == {"missing" if lost else "corrupt"}
    assert all("manifests that it tells of are read instead" in finding.message for finding in findings)


def test_a_manifest_of_another_size_is_read_and_named(copy: Store) -> None:
    copy.put(slot_key("web", 70), b"{}")
    warnings: list[str] = []
    rows = {row.version: row for row in list_versions(Versions(copy, warnings.append), "web")}
    assert rows[70].problem is not None and slot_key("web", 70) in rows[70].problem and len(warnings) == 1
    assert rows[69].problem is None and rows[71].kept == 71


def test_verify_names_a_history_that_does_not_say_what_the_manifest_does(copy: Store) -> None:
    changed = Versions(copy).manifest("web", 20).model_copy(update={"made": {"at": "night 91"}})
    copy.put(slot_key("web", 20), encode(changed))  # of the same size, and with a seal of its own
    findings = [finding for finding in verify(copy) if finding.what == "history"]
    assert findings and all("web@v20" in finding.message for finding in findings)
    assert all("web@v300" in f.harmed for f in findings if f.where in {ref.sha256 for ref in blocks(copy)})


def test_versions_of_a_release_without_histories_get_one_with_the_next(copy: Store) -> None:
    for number in range(NIGHTS, 100, -1):
        copy.delete(slot_key("web", number))
    versions, previous = Versions(copy), None
    for number in range(1, 101):
        without = {"attachments": (), "previous": previous}
        data = encode(versions.manifest("web", number).model_copy(update=without))
        copy.put(slot_key("web", number), data)
        previous = hashlib.sha256(data).hexdigest()
    assert [row.kept for row in list_versions(versions, "web")] == list(range(100, 0, -1))
    commit_night(versions, versions.manifest("web", 100))
    assert history.covered(blocks(copy, 101)) == 96
    store = Counting(copy)
    assert len(list_versions(Versions(store), "web")) == 101  # type: ignore[arg-type]
    assert len(store.read) <= FEW


def test_a_history_of_other_manifests_than_those_that_stand_there_is_not_used(copy: Store) -> None:
    changed = Versions(copy).manifest("web", 297).model_copy(update={"previous": "0" * 64})
    copy.put(slot_key("web", 297), encode(changed))
    warnings: list[str] = []
    store = Counting(copy)
    rows = list_versions(Versions(store, warnings.append), "web")  # type: ignore[arg-type]
    assert len(rows) == NIGHTS and {slot_key("web", number) for number in range(1, 297)} <= set(store.read)
    assert len(warnings) == 1 and "web@v297" in warnings[0] and "grist verify" in warnings[0]


def test_blocks_that_a_withdrawn_version_alone_may_hold_are_written_anew(copy: Store) -> None:
    versions = Versions(copy)
    base = versions.manifest("web", NIGHTS)
    versions.withdraw("web", NIGHTS, "a test")
    for ref in blocks(copy):
        copy.delete(ref.key)
    after = versions.manifest("web", NIGHTS - 1)
    tally = after.received + Tally.of_records([_input(NIGHTS)], [0])
    again = draft("web", "again", [_input(NIGHTS)], parent=after.ref, received=tally, kept=tally)
    done = versions.commit(again)
    assert done.version == NIGHTS + 1 and base.version == NIGHTS
    assert history.covered(blocks(copy, NIGHTS + 1)) == 296 and not versions.missing(done.attachments)


def test_a_commit_after_a_manifest_that_cannot_be_read_goes_on_without_its_history(copy: Store) -> None:
    versions = Versions(copy)
    base = versions.manifest("web", NIGHTS)
    for number in range(1, 9):
        copy.put(slot_key("web", number), b"")
    copy.put(slot_key("web", NIGHTS), encode(base.model_copy(update={"attachments": ()})))
    commit_night(versions, versions.manifest("web", NIGHTS))
    assert blocks(copy, NIGHTS + 1) == ()


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_history_that_is_lost_or_damaged_stops_no_commit_and_is_made_again(copy: Store, harm: str) -> None:
    versions = Versions(copy)
    base = versions.manifest("web", NIGHTS)
    for block in blocks(copy):
        if harm == "lost":
            copy.delete(block.key)
        else:
            toy.flip(copy, block.key)
    # Until the eight blocks of eight become one; as a version that extends another carries its attachments on.
    for _ in range(3 * history.BLOCK):
        base = commit_night(versions, base, attachments=base.attachments)
    assert [ref.records for ref in blocks(copy, base.version)][:5] == [64, 64, 64, 64, 64]
    history.read_block(copy, "web", blocks(copy, base.version)[4])
    assert [row.kept for row in list_versions(versions, "web")] == list(range(base.version, 0, -1))


def forge(store: Store, block: ObjectRef, change: Callable[[dict[str, Any]], None]) -> ObjectRef:
    """A block in the newest manifest in place of this one, with digests and seals that fit it."""
    data = json.loads(store.get(block.key))
    change(data)
    path = Path(store.uri).parent / "forged.json"
    path.write_bytes(json.dumps(data).encode())
    forged = put_file(store, history.KIND, path, block.records, first=block.first, last=block.last)
    newest = Versions(store).manifest("web", NIGHTS)
    attachments = tuple(forged if ref == block else ref for ref in newest.attachments)
    store.put(slot_key("web", NIGHTS), encode(newest.model_copy(update={"attachments": attachments})))
    return forged


def _of_another_dataset(data: dict[str, Any]) -> None:
    for row in data["versions"]:
        row["dataset"] = "other"


FORGERIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "without a format": lambda data: data.pop("format"),
    "of a later release": lambda data: data.update(format=history.FORMAT + 1),
    "without recipes": lambda data: data.update(made_by=[]),
    "no list": lambda data: data.update(versions=7),
    "with a row too few": lambda data: data["versions"].pop(),
    "of another dataset": _of_another_dataset,
    "with another count": lambda data: data["versions"][3].update(kept=1),
}


@pytest.mark.parametrize("deep", [False, True], ids=["", "deep"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_verify_names_a_forged_block_and_a_listing_without_it_is_right(copy: Store, forgery: str, deep: bool) -> None:
    forged = forge(copy, blocks(copy)[1], FORGERIES[forgery])
    assert forged.sha256 in {finding.where for finding in verify(copy, ["web@v300"], deep=deep)}
    if forgery == "with another count":  # what only `verify` can tell, which reads the manifests
        return
    warnings: list[str] = []
    rows = list_versions(Versions(copy, warnings.append), "web")
    assert [row.kept for row in rows] == list(range(NIGHTS, 0, -1))
    assert len(warnings) == 1 and forged.sha256[:12] in warnings[0]
    commit_night(Versions(copy), Versions(copy).manifest("web", NIGHTS))
