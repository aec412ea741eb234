"""Takedown in tars of one group a record: the group goes, every other byte stays."""

from __future__ import annotations

import pyarrow as pa
import pytest
from forget_lake import do, erase, sound
from tar_lake import asked, groups, holders, image_id, pictures, secret

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.query.sampling import sample
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import DamagedObject, put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import plan_forget
from gristmill.lake.upkeep.gc import plan_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
def images(store: Store) -> Manifest:
    return pictures(store, [["a"], ["b"], ["c"]], [["d"], ["e"]])


def test_a_tar_of_images_is_written_anew_without_the_record_and_no_byte_of_it_stays(store, images):
    before = groups(store, images)
    assert holders(store, secret("b"))
    report = do(store, asked("b"))
    clean = Versions(store).resolve("pictures")
    assert report.made == (("pictures@v1", "pictures@v2"),) and report.withdrawn == ("pictures@v1",)
    assert groups(store, clean) == {
        name: data for name, data in before.items() if secret("b") not in data and not name.startswith("000000-000001")
    }
    assert clean.shards[2:] == images.shards[2:] and clean.ledgers[2:] == images.ledgers[2:]  # d and e: by reference
    assert (clean.form, clean.kept.count, clean.dropped.count, clean.received) == ("images", 4, 1, images.received)
    assert clean.statistics == {"documents": 4, "pixels": 7}
    assert clean.digest == clean.content_digest != images.digest
    sound(store)
    erase(store)
    sound(store)
    assert holders(store, secret("b")) == [] and all(holders(store, secret(name)) for name in "acde")
    fates = {row["id"]: row["reason"] for row in Dataset(store, clean).ledger().to_pylist() if row["fate"] != "kept"}
    assert fates == {image_id("b"): "forget.requested"}


def test_the_same_request_gives_the_same_bytes_wherever_it_is_made(store, images, tmp_path):
    do(store, asked("c", "d"))
    other = open_store(str(tmp_path / "other"))
    pictures(other, [["a"], ["b"], ["c"]], [["d"], ["e"]])
    do(other, asked("d", "c"), "for another reason")
    clean, again = Versions(store).resolve("pictures"), Versions(other).resolve("pictures")
    assert clean.digest == again.digest and clean.shards == again.shards and len(clean.shards) == 4
    # a tar that never had them is the same tar, but for the keys of groups, which keep their numbers
    assert list(groups(store, clean)) == [
        "000000-000000.image.jpg",
        "000000-000000.json",
        "000000-000001.image.jpg",
        "000000-000001.json",
        "000001-000001.image.jpg",
        "000001-000001.json",
    ]


def test_a_second_request_takes_from_what_the_first_left_and_an_empty_tar_goes(store, images):
    do(store, asked("a", "d"))
    do(store, asked("e", "c"))
    clean = Versions(store).resolve("pictures")
    assert clean.version == 3 and len(clean.shards) == 2 and len(clean.members) == 1
    assert read_table(store, clean.members[0])["member"].to_pylist() == [image_id("b")]
    assert clean.funnel[-1].dropped == {"forget.requested": 4} and clean.statistics["documents"] == 1
    sound(store)
    assert plan_forget(Versions(store), asked("a", "e")).nothing


def test_where_nothing_would_be_left_the_version_is_withdrawn(store, images):
    report = do(store, asked(*NAMES))
    assert report.made == () and report.withdrawn == ("pictures@v1",)
    assert "nothing would be left" in report.without_successor["pictures@v1"]


def test_a_group_that_others_share_is_not_parted(store):
    pictures(store, [["a", "b"], ["c"]])
    report = do(store, asked("b"))
    assert report.made == () and report.withdrawn == ("pictures@v1",)
    assert "holds 1 other records, and cannot be parted" in report.without_successor["pictures@v1"]
    other = pictures(store, [["a", "b"], ["c"]], dataset="pairs")
    do(store, asked("a", "b"))  # all of the group goes
    clean = Versions(store).resolve("pairs")
    assert clean.parent.digest == other.digest and read_table(store, clean.members[0]).num_rows == 1


@pytest.mark.parametrize(
    ("packs", "message"),
    [
        (["000000-000000", "000000-000007"], "do not say whose group '000000-000001'"),  # nor is there a group 7
        (["000000-000000", "000000-000000"], "holds 1 other records, and cannot be parted"),
        (["000000-000000", "000000-000001", "000000-000007"], "'000000-000007', which is in no tar"),
    ],
)
def test_members_that_do_not_fit_their_tar_give_no_version_that_lies(store, packs, message):
    images = pictures(store, [["a"], ["b"]])
    table = read_table(store, images.members[0])
    table = pa.concat_tables([table, table.slice(1)]).slice(0, len(packs)).combine_chunks()
    wrong = put_table(store, "members", table.set_column(0, "pack", pa.array(packs)))
    fields = {name: getattr(images, name) for name in Draft.model_fields}
    Versions(store).commit(Draft(**fields | {"ledgers": (*images.fates, wrong), "run_key": "2"}))
    report = do(store, asked("b"))
    assert report.made == () and set(report.withdrawn) == {"pictures@v1", "pictures@v2"}
    assert message in report.without_successor["pictures@v2"]


def test_a_version_that_lost_its_members_is_named_and_withdrawn_only_if_found(store, images):
    fields = {name: getattr(images, name) for name in Draft.model_fields}
    blind = fields | {"dataset": "blind", "ledgers": images.fates, "run_key": "2"}
    Versions(store).commit(Draft(**blind))
    plan = plan_forget(Versions(store), asked("b"))
    assert plan.unsearched == ("blind@v1",) and [dataset.dataset for dataset in plan.affected] == ["pictures"]


@pytest.mark.parametrize("at", [700, -3])
def test_a_damaged_tar_is_an_error_and_nothing_is_withdrawn(store, images, at):
    tar = images.shards[0]
    data = bytearray(store.get(tar.key))
    data[at] ^= 1
    store.put(tar.key, bytes(data))
    with pytest.raises(DamagedObject, match="is damaged"):
        do(store, asked("b"))
    assert Versions(store).withdrawn("pictures") == {} and Versions(store).numbers("pictures") == [1]


def test_verify_compares_what_lies_in_tars_with_the_ledger(store, images):
    table = read_table(store, images.members[0])
    short = put_table(store, "members", table.slice(1))
    fields = {name: getattr(images, name) for name in Draft.model_fields}
    Versions(store).commit(Draft(**fields | {"ledgers": (*images.fates, short, images.members[1]), "run_key": "2"}))
    (finding,) = verify(store, deep=True)
    assert finding.harmed == ("pictures@v2",) and f"{image_id('a')} is kept but in no shard" in finding.message


def test_gc_needs_nothing_of_a_tar_that_was_replaced(store, images):
    do(store, asked("b"))
    doomed = {thing.key for thing in plan_gc(store, grace_seconds=0).doomed if thing.kind == "object"}
    clean = Versions(store).resolve("pictures")
    assert images.shards[0].key in doomed and not doomed & {ref.key for ref in clean.objects()}


def test_what_is_no_table_is_not_read_as_one(store, images):
    with pytest.raises(TypeError, match="pictures@v1 holds tars: `grist checkout"):
        Dataset(store, images).to_arrow()
    drawn = sample(Versions(store), images, data=True).samples
    assert {record.id: record.fields["media"][0]["data"] for record in drawn}[image_id("a")].startswith(secret("a"))
    assert sample(Versions(store), images, fate="dropped").population == 0
