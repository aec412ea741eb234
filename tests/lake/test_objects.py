"""Objects: a changed byte is an error that names the object, never other rows, whatever part of it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import toy

from gristmill.lake.store import checked, objects
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import (
    DamagedObject,
    ObjectRef,
    copy_object,
    is_table,
    iter_batches,
    put_refs,
    put_table,
    read_object,
    read_refs,
    read_table,
    rows_between,
)
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import plan_gc, run_gc

TABLE = pa.table({"id": [f"{i:032x}" for i in range(2000)], "text": [f"text {i * 7919}" for i in range(2000)]})
READS: dict[str, Callable[[Store, ObjectRef], Any]] = {
    "table": read_table,
    "batches": lambda store, ref: pa.Table.from_batches(iter_batches(store, ref)),
    "rows": lambda store, ref: rows_between(store, ref, "id", f"{0:032x}", f"{9999:032x}"),
}


@pytest.fixture(params=["whole", "blocks"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Objects as a store of large ones has them: read whole, or in blocks of which a table has some dozens."""
    if request.param == "blocks":
        monkeypatch.setattr(objects, "WHOLE_BYTES", 100)
        for module in (objects, checked):
            monkeypatch.setattr(module, "BLOCK", 256)
    return str(request.param)


@pytest.mark.parametrize("read", READS)
def test_a_flipped_bit_is_refused_by_every_read(store: Store, small_blocks: str, read: str) -> None:
    ref = put_table(store, "text", TABLE, sorted_by="id")
    assert bool(ref.sums) == (small_blocks == "blocks")
    good = store.get(ref.key)
    assert READS[read](store, ref) == TABLE
    for at in [*range(4, len(good), len(good) // 60), len(good) - 5, len(good) - 9]:  # pages, headers, the footer
        bad = bytearray(good)
        bad[at] ^= 0x10
        store.put(ref.key, bytes(bad))
        with pytest.raises(DamagedObject, match="Copy it from another lake; or delete it") as error:
            READS[read](store, ref)
        assert ref.key in str(error.value)


def test_a_shorter_file_and_another_table_of_its_size_are_refused(store: Store, small_blocks: str) -> None:
    ref = put_table(store, "text", TABLE)
    data = store.get(ref.key)
    for bad in (data[:-1], data + b"\0", b"", data[::-1]):
        store.put(ref.key, bad)
        with pytest.raises(DamagedObject):
            read_table(store, ref)


def test_of_a_large_table_only_blocks_that_are_needed_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WHOLE_BYTES", 100)
    for module in (objects, checked):
        monkeypatch.setattr(module, "BLOCK", 256)
    noise = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(6000)]  # pyarrow reads 64 KiB to find a footer
    ref = put_table(store, "text", pa.table({"noise": noise, "number": range(6000)}))
    toy.flip(store, ref.key, 10_000)
    assert read_table(store, ref, ["number"]).num_rows == 6000
    with pytest.raises(DamagedObject, match="bytes from 9984 on"):
        read_table(store, ref, ["noise"])


def test_a_large_table_without_sums_is_hashed_whole_once_a_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "WHOLE_BYTES", 100)
    ref = put_table(store, "text", TABLE)
    store.delete(objects.object_key(ref.sums))
    for pointer in (ref, ref.model_copy(update={"sums": ""})):  # lost; a release that wrote none
        monkeypatch.setattr(objects, "_hashed", set())
        toy.flip(store, ref.key)
        with pytest.raises(DamagedObject):
            read_table(store, pointer)
        toy.flip(store, ref.key)
        assert read_table(store, pointer) == read_table(store, pointer) == TABLE


def test_changed_sums_are_damage_of_their_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WHOLE_BYTES", 100)
    ref = put_table(store, "text", TABLE)
    toy.flip(store, objects.object_key(ref.sums))
    with pytest.raises(DamagedObject, match=ref.sums):
        read_table(store, ref)


def test_gc_keeps_the_sums_of_what_a_version_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WHOLE_BYTES", 100)
    manifest = toy.commit(store, "web", range(40))
    sums = {objects.object_key(ref.sums) for ref in manifest.objects() if ref.sums}
    toy.age(store, 2 * toy.DAY)
    run_gc(store, plan_gc(store))
    assert sums and sums <= toy.keys(store, "objects/")


def test_every_reader_of_other_objects_hashes_them(store: Store, tmp_path: Path) -> None:
    blob = toy.put_text(store, '{"a": 1}', "tokenizer")
    listed = put_refs(store, [blob])
    assert read_object(store, blob) == b'{"a": 1}' and read_refs(store, listed) == [blob]
    copy_object(store, blob, tmp_path / "copy")
    for ref in (blob, listed):
        toy.flip(store, ref.key)
    readers = [
        lambda: read_object(store, blob),
        lambda: read_refs(store, listed),
        lambda: copy_object(store, blob, tmp_path / "again"),
        lambda: is_table(store, blob),
    ]
    for reader in readers:
        with pytest.raises(DamagedObject, match="is damaged"):
            reader()
    assert not (tmp_path / "again").exists()


def test_a_pointer_without_sums_is_written_as_before(store: Store) -> None:
    assert "sums" not in put_table(store, "text", TABLE).model_dump()


def test_on_s3(s3_lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WHOLE_BYTES", 100)
    store = open_store(s3_lake)
    ref = put_table(store, "text", TABLE)
    assert read_table(store, ref, filters=pc.field("id") < f"{9:032x}").num_rows == 9
    toy.flip(store, ref.key)
    with pytest.raises(DamagedObject):
        read_table(store, ref)


def test_an_error_that_is_not_the_bytes_fault_stays_what_it_is(store: Store) -> None:
    ref = put_table(store, "text", TABLE)
    with pytest.raises(pa.ArrowInvalid, match="No match for FieldRef"):
        read_table(store, ref, ["none"], filters=[("none", "==", 1)])
