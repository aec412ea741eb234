"""Objects: a changed byte is an error that names the object, never other rows."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from lake.objects import DamagedObject, ObjectRef, iter_batches, put_table, read_table
from lake.store import Store

TABLE = pa.table({"id": [f"{i:032x}" for i in range(2000)], "text": [f"text {i * 7919}" for i in range(2000)]})


@pytest.mark.parametrize("read", [read_table, lambda store, ref: pa.Table.from_batches(iter_batches(store, ref))])
def test_a_flipped_bit_is_refused_by_every_read_or_changes_no_row(store, read: Callable[[Store, ObjectRef], pa.Table]):
    ref = put_table(store, "text", TABLE)
    good = store.get(ref.key)
    refused = same = 0
    for at in range(4, len(good) * 9 // 10, len(good) // 60):  # pages and their headers; the footer is at the end
        bad = bytearray(good)
        bad[at] ^= 0x10
        store.put(ref.key, bytes(bad))
        try:
            same += read(store, ref) == TABLE  # some bits of a header mean nothing
        except DamagedObject as error:
            assert ref.key in str(error) and "Delete it, and the same command makes it again" in str(error)
            refused += 1
    assert refused >= 45 and refused + same == len(range(4, len(good) * 9 // 10, len(good) // 60))


def test_an_error_that_is_not_the_bytes_fault_stays_what_it_is(store):
    ref = put_table(store, "text", TABLE)
    with pytest.raises(pa.ArrowInvalid, match="No match for FieldRef"):
        read_table(store, ref, ["none"], filters=[("none", "==", 1)])
