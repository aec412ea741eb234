"""Parquet: rows as JSON lines have them, spans that no decoder had a hand in, and no row without a fate."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from parquet_files import items_of, texts, written

from gristmill.stages.containers import ReadConfig, Record, Unreadable, detect, read, scan
from gristmill.stages.containers.parquet.footer import MAX_COLUMNS
from gristmill.stages.containers.parquet.values import row_bytes

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WRITERS = [
    {},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_version": "2.0", "write_page_checksum": True},
    {"compression": "gzip", "use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}, "write_page_index": True},
]


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
@example(1, [(12976, b"&")])  # over the histogram of a column in the footer, Arrow ends the process if asked for it
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
