"""Takedown in tars: one group a record (images), and windows, in which a record is a stretch among others."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from forget_lake import do, doc_id, erase, sound

from lake import ledger
from lake.dataset import Dataset
from lake.fan import MEMBERS
from lake.forget import plan_forget
from lake.gc import plan_gc
from lake.identity import digest_of
from lake.manifest import Draft, FunnelRow, Manifest
from lake.objects import DamagedObject, ObjectRef, put_file, put_table, read_object, read_table
from lake.receipt import StageId
from lake.scratch import scratch
from lake.store import Store, open_store
from lake.suppress import Suppression
from lake.verify import verify
from lake.versions import Versions
from model.shards import ShardFile, ShardReader, ShardWriter

NAMES = ("a", "b", "c", "d", "e")


def secret(name: str) -> bytes:
    """What only this record's picture has."""
    return hashlib.sha256(name.encode()).hexdigest().encode()


def image_id(name: str) -> str:
    return doc_id(f"https://pictures.example/{name}")


def asked(*names: str) -> Suppression:
    return Suppression.of(ids=[image_id(name) for name in names])


def put_tar(store: Store, names: Sequence[Sequence[str]], number: int) -> tuple[ObjectRef, ObjectRef, ObjectRef]:
    """A tar of one group for each of `names` (more than one name: a group that records share), index and members."""
    rows: list[dict[str, Any]] = []
    with scratch() as folder:
        with ShardWriter(folder / "tar", folder / "index") as writer:
            for at, group in enumerate(names):
                key = f"{number:06d}-{at:06d}"
                picture = b"".join(secret(name) for name in group)
                writer.write(key, {"format": 1, "ids": [image_id(name) for name in group]}, {}, {"image.jpg": picture})
                rows += [
                    {"pack": key, "position": n, "source": "pictures", "member": image_id(name), "epoch": 0}
                    | {"start": 0, "length": 1}
                    for n, name in enumerate(group)
                ]
        tar, index = (put_file(store, kind, folder / kind, len(names)) for kind in ("tar", "index"))
    return tar, index, put_table(store, "members", pa.Table.from_pylist(rows, schema=MEMBERS))


def pictures(store: Store, *tars: Sequence[Sequence[str]], dataset: str = "pictures") -> Manifest:
    """A version of images: each tar with the groups named."""
    written = [put_tar(store, groups, number) for number, groups in enumerate(tars)]
    names = [name for groups in tars for group in groups for name in group]
    digest = digest_of(dataset, *names)
    table = ledger.sort(pa.Table.from_pylist([_fate(name, digest, n) for n, name in enumerate(names)], ledger.SCHEMA))
    tally, none = ledger.tally(table), ledger.tally(ledger.empty())
    draft = Draft(
        dataset=dataset,
        form="images",
        run_key=digest,
        recipe={},
        stages=(StageId(name="toy", version=1, config={}),),
        shards=tuple(ref for tar, index, _ in written for ref in (tar, index)),
        ledgers=(put_table(store, "ledger", table, sorted_by="id"), *(members for _, _, members in written)),
        came_in=tally,
        kept=tally,
        dropped=none,
        quarantined=none,
        funnel=(FunnelRow(stage="toy", came_in=len(names), passed=len(names)),),
        statistics={"documents": len(names), "pixels": 7},
    )
    return Versions(store).commit(draft)


def _fate(name: str, digest: str, ordinal: int) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(ledger.SCHEMA.names)
    place = {"id": image_id(name), "input": digest, "ordinal": ordinal, "start": ordinal, "length": 1}
    return row | place | {"fate": "kept", "stage": "toy"}


def groups(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """Each file of each tar, as any reader of tars finds it; the index fits each tar."""
    found: dict[str, bytes] = {}
    tars = [ref for ref in manifest.shards if ref.kind in ("tar", "pack")]
    indices = [ref for ref in manifest.shards if ref.kind == "index"]
    for tar, index in zip(tars, indices, strict=True):
        file = ShardFile(tar.key, index.key, tar.records, tar.bytes, tar.sha256)
        reader = ShardReader([file], lambda key: io.BytesIO(store.get(key)))
        reader.check()
        for number in range(len(reader)):
            reader.sample(number)
        with tarfile.open(fileobj=io.BytesIO(read_object(store, tar))) as files:
            for info in files:
                assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
                found[info.name] = files.extractfile(info).read()
    return found


def holders(store: Store, needle: bytes) -> list[str]:
    """Files of a local lake with these bytes."""
    return [str(path) for path in Path(store.uri).rglob("*") if path.is_file() and needle in path.read_bytes()]


# one group a record


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
    assert (clean.form, clean.kept.count, clean.dropped.count, clean.came_in) == ("images", 4, 1, images.came_in)
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


def test_members_of_a_group_that_no_tar_has_give_no_version_that_lies(store):
    images = pictures(store, [["a"], ["b"]])
    table = read_table(store, images.members[0])
    moved = table.set_column(0, "pack", pa.array(["000000-000000", "000000-000007"]))
    wrong = put_table(store, "members", moved)
    fields = {name: getattr(images, name) for name in Draft.model_fields}
    Versions(store).commit(Draft(**fields | {"ledgers": (*images.fates, wrong), "run_key": "2"}))
    report = do(store, asked("b"))
    assert report.made == () and set(report.withdrawn) == {"pictures@v1", "pictures@v2"}
    assert "000000-000007" in report.without_successor["pictures@v2"]


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
