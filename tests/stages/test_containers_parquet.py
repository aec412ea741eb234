"""Parquet: rows as JSON lines have them, spans that no decoder had a hand in, and no row without a fate."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.stages.containers import Item, ReadConfig, Record, Unreadable, detect, read, scan
from gristmill.stages.containers.parquet import rows as parquet_rows
from gristmill.stages.containers.parquet.footer import MAX_COLUMNS
from gristmill.stages.containers.parquet.thrift import Thrift, ThriftError
from gristmill.stages.containers.parquet.values import row_bytes
from gristmill.stages.containers.span_table import RECORDS_ANYWAY, check_tiles

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WRITERS = [
    {},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_version": "2.0", "write_page_checksum": True},
    {"compression": "gzip", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}, "write_page_index": True},
]


def written(table: pa.Table, rows: int = 300, **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=rows, **options)
    return stream.getvalue()


def texts(n: int) -> pa.Table:
    draw = random.Random(n)
    return pa.table(
        {
            "text": [f"{i} " + draw.randbytes(draw.randrange(40)).hex() for i in range(n)],
            "url": [f"http://a.example/{i}" if i % 3 else None for i in range(n)],
            "id": list(range(n)),
            "date": [datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)] * n,
            "other": [[{"x": i}] for i in range(n)],
        }
    )


def items_of(
    data: bytes, config: ReadConfig | None = None, rows: bool = False, spans: pa.Table | None = None
) -> list[Item]:
    if spans is None:
        spans = scan(io.BytesIO(data), "parquet").spans
        check_tiles(spans, sum(spans["length"].to_pylist()), empty_records=True)
    items = list(read(lambda offset: io.BytesIO(data[offset:]), spans, "parquet", config or ReadConfig(), rows=rows))
    assert [item.ordinal for item in items] == spans["ordinal"].to_pylist()
    return items


@pytest.mark.parametrize("options", WRITERS)
def test_every_row_is_a_record_and_any_slice_gives_the_same(options) -> None:
    table = texts(1000)
    data = written(table, **options)
    assert detect("a", data[:4096]) == "parquet" and detect("a.parquet", b"") == "parquet"
    result = scan(io.BytesIO(data), "parquet")
    assert (result.sha256, result.size) == (hashlib.sha256(data).hexdigest(), len(data))
    items = items_of(data)
    assert [item.text for item in items] == table["text"].to_pylist()
    assert (items[1].url, items[1].id, items[1].date) == ("http://a.example/1", "1", "2024-05-06T07:08:09Z")
    assert items[0].url is None and items[0].record_type == "parquet" and items[0].row is None
    for first, n in ((0, 10), (299, 2), (450, 300), (999, 1)):
        assert items_of(data, spans=result.spans.slice(first, n)) == items[first : first + n]


def test_whole_rows_are_those_of_json_lines() -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}], "n": 1},
        {"messages": [], "day": datetime.date(2024, 5, 6), "f": 0.5},
    ]
    items = items_of(written(pa.Table.from_pylist(rows, schema=pa.schema([
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.int64())]))),
        ("n", pa.int64()), ("day", pa.date32()), ("f", pa.float64()),
    ]))), rows=True)  # fmt: skip
    expected = json.loads(json.dumps(rows, default=str))
    assert [item.row for item in items] == expected


def test_media_are_handed_over_with_their_digests() -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "image": [{"bytes": PNG, "path": "a.png"}, None],
            "clips": [[{"bytes": b"fLaC" + bytes(9), "path": None}, {"bytes": b"OggS", "path": None}], []],
            "raw": [PNG, b"plain"],
        }
    )
    first, second = items_of(written(table), rows=True)
    assert [(m.kind, m.url) for m in first.media] == [
        ("image", "a.png"),
        ("audio", None),
        ("audio", None),
        ("image", None),
    ]
    assert first.media[0].sha256 == hashlib.sha256(PNG).hexdigest() and first.media[0].data == PNG
    assert first.row == {"text": "a", "image": 1, "clips": [2, 3], "raw": 4}
    assert second.row == {"text": "b", "clips": [], "raw": "plain"} and not second.media
    assert [len(item.media) for item in items_of(written(table))] == [3, 0]  # a text's images are its own
    (bad,) = items_of(written(pa.table({"text": ["a"], "image": [{"bytes": b"??", "path": None}]})))
    assert isinstance(bad, Unreadable) and "'image' holds bytes that are no image" in bad.error


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": [1]}, "field 'text' (the text) is a int"),
        ({"other": ["a"]}, "field 'text' (the text) is missing"),
        ({"text": pa.array([b"\xff"], pa.binary()).view(pa.string())}, "field 'text' is not UTF-8"),
        ({"text": ["a"], "url": [7]}, "field 'url' is a int"),
    ],
)
def test_a_row_at_fault_is_named_without_its_text(columns, words) -> None:
    (item,) = items_of(written(pa.table(columns)))
    assert isinstance(item, Unreadable) and words in item.error


def test_text_in_a_column_of_bytes_is_text() -> None:
    assert items_of(written(pa.table({"text": pa.array([b"abc"], pa.binary())})))[0].text == "abc"


# Damage


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (lambda data: data[:-9], "it may be cut off"),
        (lambda data: data[:5], "it may be cut off"),
        (lambda data: data[:-4] + b"PARE", "encrypted"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "footer of"),
        (lambda data: b"PAR1PAR1", "footer of"),
        (lambda data: data[: len(data) // 2] + data[-8:], "no Parquet file"),
    ],
)
def test_a_file_without_its_footer_is_one_stretch_of_damage(damaged, words) -> None:
    (item,) = items_of(damaged(written(texts(50))))
    assert isinstance(item, Unreadable) and words in item.error


def varint(number: int) -> bytes:
    """As Thrift's compact protocol has it."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def many(items: int) -> bytes:
    """A list of so many structs without a field: a byte each."""
    return b"\xfc" + varint(items) + bytes(items)


@pytest.mark.parametrize(
    "groups",
    [
        many(MAX_COLUMNS + 1),  # row groups
        b"\x1c" + b"\x19" + many(MAX_COLUMNS + 1) + b"\0",  # columns of one
        b"\x3c" + 3 * (b"\x19" + many(MAX_COLUMNS // 3) + b"\0"),  # of three
    ],
    ids=["groups", "columns", "columns of several groups"],
)
def test_a_footer_of_a_million_columns_is_refused_and_never_shown_to_arrow(groups, monkeypatch) -> None:
    """Arrow makes an object of 600 bytes of each column before it looks at one, which can have a single byte."""
    monkeypatch.setattr(pq, "read_metadata", lambda source: pytest.fail("Arrow was shown it"))
    footer = b"\x36\x00" + b"\x19" + groups + b"\0"  # no rows; the groups
    (item,) = items_of(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert isinstance(item, Unreadable) and re.search(r"a list of \d+ items, more than \d+", item.error)


def test_a_file_without_rows_has_no_span() -> None:
    assert items_of(written(texts(0))) == []


def test_a_damaged_group_loses_no_other() -> None:
    data = bytearray(written(texts(900), compression="none"))
    second = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0)
    start = second.dictionary_page_offset or second.data_page_offset
    data[start : start + 40] = bytes(40)
    items = items_of(bytes(data))
    assert [isinstance(item, Unreadable) for item in items] == [False] * 300 + [True] + [False] * 300
    assert "row group 1 of 300 rows" in items[300].error


def test_a_page_with_a_wrong_checksum_costs_its_rows() -> None:
    data = bytearray(written(texts(900), compression="none", write_page_checksum=True, use_dictionary=False))
    at = data.index(b"450 ")  # in the text of a row of the second group
    data[at] ^= 1
    items = items_of(bytes(data))
    assert [isinstance(item, Unreadable) for item in items] == [300 <= n < 600 for n in range(900)]
    assert "Arrow cannot decode its pages" in items[300].error


def test_a_store_that_fails_is_no_damage() -> None:
    data = written(texts(50))
    spans = scan(io.BytesIO(data), "parquet").spans

    class Away(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionError("the store is away")

    with pytest.raises(ConnectionError):
        list(read(lambda _: Away(data), spans, "parquet", ReadConfig()))


@settings(max_examples=100, deadline=None)
@example(0, [(2577, b"!")])  # an index into a dictionary that has fewer values
@example(0, [(2567, b"\x02")])
@given(st.integers(0, 4), st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=9)), max_size=5))
def test_any_damage_keeps_the_balance(options, changes) -> None:
    data = bytearray(written(texts(120), 50, **WRITERS[options]))
    for at, noise in changes:
        at %= len(data)
        data[at : at + len(noise)] = noise
    items = items_of(bytes(data))
    assert len(items) == scan(io.BytesIO(data), "parquet").spans.num_rows
    if not changes:
        assert all(isinstance(item, Record) for item in items)


def test_a_dictionary_is_asked_for_no_value_that_it_has_not() -> None:
    for index in (-1, 2, 64):
        column = pa.DictionaryArray.from_arrays(pa.array([0, index, None], pa.int32()), ["a", "bcd"], safe=False)
        with pytest.raises(ValueError, match="dictionary of 2 values"):
            row_bytes(column)
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), ["a", "bcd"])
    assert row_bytes(column).tolist() == [9, 11, 0]


# Bounds


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
