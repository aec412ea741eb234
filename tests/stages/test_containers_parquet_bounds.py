"""Parquet that claims more than it holds: rows, dictionaries and metadata end at their bounds."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from parquet_files import items_of, texts, written

from gristmill.stages.containers import ReadConfig, Record, Unreadable, scan
from gristmill.stages.containers.parquet import rows as parquet_rows
from gristmill.stages.containers.parquet.thrift import Thrift, ThriftError
from gristmill.stages.containers.parquet.values import row_bytes
from gristmill.stages.containers.span_table import RECORDS_ANYWAY


def with_rows(data: bytes, rows: int, fields: int = -1) -> bytes:
    """The file of one row group of 300, its footer claiming so many rows in the first `fields` places (-1: all)."""
    count = b"\x16\xd8\x04"  # the field num_rows of a row group, 300 as a zigzag number
    zigzag, number = bytearray(), rows * 2
    while number > 127:
        zigzag.append(number & 127 | 128)
        number >>= 7
    zigzag.append(number)
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8].replace(count, b"\x16" + bytes(zigzag), fields)
    return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def test_rows_that_are_not_there_are_not_believed() -> None:
    data = with_rows(written(texts(300)), 2**40)
    (item,) = items_of(data)
    assert isinstance(item, Unreadable) and "values for 1099511627776 rows" in item.error
    (item,) = items_of(with_rows(written(texts(300)), 2**40, fields=1))
    assert isinstance(item, Unreadable) and "row groups" in item.error


def test_more_rows_than_bytes_end_as_one_stretch_of_damage() -> None:
    n = RECORDS_ANYWAY + 200_000
    data = written(pa.table({"text": pa.array(["a"] * 2_000_000).dictionary_encode().cast(pa.string())}), n)
    spans = scan(io.BytesIO(data), "parquet").spans
    assert spans.num_rows < n and "rows in" in spans["error"][-1].as_py()


def test_a_dictionary_that_stands_for_gigabytes_is_read_no_further_than_its_bound() -> None:
    text = "x" * 900_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), [text])
    data = written(pa.table({"text": column}), 3000, store_schema=False)
    assert len(data) < 200_000
    items = items_of(data)
    good = [item for item in items if isinstance(item, Record)]
    assert 1 <= len(good) <= 30 and "expand more than 20 times" in items[-1].error


def test_rows_are_measured_once_a_batch_and_places_are_passed_once(monkeypatch) -> None:
    """Measured by itself, each row would cost a look at the whole dictionary of its batch; and a look at every place
    for every batch is quadratic where batches are small."""
    data, looks = written(texts(300)), {"rows": 0, "measured": 0}

    class Place(parquet_rows._Place):
        @property
        def row(self) -> int:
            looks["rows"] += 1
            return self[2]

    def measured(column: pa.Array) -> np.ndarray:
        looks["measured"] += 1
        return row_bytes(column)

    monkeypatch.setattr(parquet_rows, "BATCH_ROWS", 3)
    monkeypatch.setattr(parquet_rows, "_Place", Place)
    monkeypatch.setattr(parquet_rows, "row_bytes", measured)
    assert all(isinstance(item, Record) for item in items_of(data))
    assert looks["measured"] == 100 * len(("text", "url", "id", "date"))  # batches, and columns that are wanted
    assert 300 <= looks["rows"] <= 3 * 300


def test_a_row_is_measured_before_it_is_taken_out() -> None:
    table = pa.table({"text": ["a", "b"], "list": [[1], list(range(50_000))]})
    good, bad = items_of(written(table), ReadConfig(max_record_bytes=100_000), rows=True)
    assert isinstance(good, Record) and isinstance(bad, Unreadable) and "max_record_bytes=100000" in bad.error


@pytest.mark.parametrize("build", [
    lambda n: b"\x19" * n, lambda n: b"\x1c" * n, lambda n: b"\x19\xfc\xff\xff\xff\x0f" + bytes(n),
    lambda n: b"\xff" * n,
    lambda n: b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", lambda n: b"\x1b" * n,
])  # fmt: skip
def test_hostile_metadata_end_at_once(build) -> None:
    for n in (1000, 100_000):
        thrift = Thrift(build(n))
        with pytest.raises(ThriftError):
            for _, kind in thrift.fields():
                thrift.skip(kind)
