"""One pass over a file gives what two give: the spans of the scan, and the items of the reader, whatever is damaged."""

from __future__ import annotations

import gc
import gzip
import io
import random
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warc_files import Trickle, arc_record, gz, http, line, members, page, plain, read_bytes, record, scan_bytes, zst

from gristmill.stages.containers import (
    CONTAINERS,
    Item,
    ReadConfig,
    ScanResult,
    Settled,
    Window,
    read,
    reads_along,
    scan_along,
)
from gristmill.stages.containers import window as windows

NOISE = random.Random(5)
TEXTS = [NOISE.randbytes(NOISE.randrange(3, 900)).hex() for _ in range(60)]  # does not compress away
RECORDS = {
    "warc": [page(n, text) if n % 7 else record(text.encode(), kind="metadata") for n, text in enumerate(TEXTS)],
    "arc": [arc_record(http(text.encode()), number=n) for n, text in enumerate(TEXTS)],
    "jsonl": [line(text=text, url=f"http://a.example/{n}") for n, text in enumerate(TEXTS)],
}


def sliced(records: list[bytes]) -> bytes:
    """Members that begin and end anywhere in records."""
    whole = b"".join(records)
    return members([whole[at : at + 700] for at in range(0, len(whole), 700)])


FORMS: dict[str, Callable[[list[bytes]], bytes]] = {
    "plain": lambda records: plain(b"".join(records)),
    "gzip, a member a record": members,
    "zstd, a frame a record": lambda records: members(records, zst),
    "one gzip member": lambda records: gz(b"".join(records)),
    "gzip, members across records": sliced,
    "gzip, stored": lambda records: members(records, lambda data: gzip.compress(data, 0, mtime=0)),
    "gzip, then a cut member": lambda records: members(records[:-1]) + gz(records[-1])[:-40],
}


def along(data: bytes, kind: str, window: Window) -> tuple[list[Item], ScanResult]:
    """What a reader makes of the spans that it is handed, and the scan."""
    items: list[Item] = []
    for part in scan_along(io.BytesIO(data), kind, window):
        if isinstance(part, ScanResult):
            return items, part
        assert isinstance(part, Settled)
        items += read(part.open_at, part.spans, kind, ReadConfig())
    raise AssertionError("the scan has no result")


def check(data: bytes, kind: str, window: Window) -> int:
    """How many items there are; each has to be that of two passes."""
    items, result = along(data, kind, window)
    alone = scan_bytes(data, kind)
    assert result == alone and result.spans.schema.metadata == alone.spans.schema.metadata
    assert items == read_bytes(data, kind)[: len(items)]
    return len(items)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "BATCH", 3000)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", RECORDS)
def test_all_of_a_file_is_read_along(kind, form) -> None:
    data = FORMS[form](RECORDS[kind])
    assert check(data, kind, Window()) == scan_bytes(data, kind).spans.num_rows >= len(TEXTS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=9), st.integers(0, 30)), min_size=1, max_size=6),
    st.integers(0, 2**31),
    st.sampled_from([windows.WINDOW, 5000]),
)
def test_any_damage_gives_the_spans_and_items_of_two_passes(kind, form, changes, shorter, size) -> None:
    data = bytearray(FORMS[form](RECORDS[kind]))
    for at, noise, lost in changes:
        at %= len(data)
        data[at : at + lost] = noise
    del data[len(data) - shorter % 4000 * (shorter % 3 == 0) :]  # a third of them is cut off
    read_along = check(bytes(data), kind, Window(size))
    if size == windows.WINDOW:
        assert read_along == scan_bytes(bytes(data), kind).spans.num_rows


def test_a_span_is_handed_out_only_when_no_damage_can_blame_it() -> None:
    """The last member is corrupt at its end: what was cut out of it before that was known must not have been given."""
    good, bad = RECORDS["warc"][:5], RECORDS["warc"][5:]
    member = bytearray(gz(b"".join(bad)))
    member[-8] ^= 1  # its checksum
    data = members(good) + bytes(member)
    given_out = [
        row
        for part in scan_along(io.BytesIO(data), "warc", Window())
        if isinstance(part, Settled)
        for row in part.spans.to_pylist()
    ]
    assert [row["error"] is None for row in given_out] == [True] * 5 + [False] * len(bad)


def test_the_order_is_that_of_the_file_and_each_part_comes_as_soon_as_it_can() -> None:
    """A reader that waits for the end would hold the whole file."""
    stream = Trickle(members(RECORDS["warc"]), 1000)
    taken = stream._inner
    first = next(part for part in scan_along(stream, "warc", Window()) if isinstance(part, Settled))
    assert first.spans["ordinal"].to_pylist() == list(range(first.spans.num_rows))
    assert taken.tell() < len(taken.getvalue()) / 2


def test_a_window_that_is_too_small_ends_reading_along_and_not_the_scan() -> None:
    records = [*RECORDS["warc"][:8], page(99, "x" * 20_000), *RECORDS["warc"][8:]]
    assert check(members(records), "warc", Window(10_000)) == 8
    assert check(gz(b"".join(records)), "warc", Window(10_000)) == 0
    records[8] = page(99, "x" * 600_000)  # longer than the pieces of a plain file
    assert check(b"".join(records), "warc", Window(10_000)) == 8
    assert check(b"".join(records), "warc", Window(1_000_000)) == len(records)


def test_a_window_that_is_closed_holds_and_hands_out_nothing() -> None:
    window = Window()
    parts = scan_along(io.BytesIO(members(RECORDS["warc"])), "warc", window)
    assert isinstance(next(parts), Settled)
    window.close()
    rest = list(parts)
    assert rest == [scan_bytes(members(RECORDS["warc"]))] and not window._bytes


def test_a_record_that_is_too_long_is_no_less_unreadable() -> None:
    data = members([page(1), page(2, "long" * 500), page(3)])
    config = ReadConfig(max_record_bytes=1000)
    items = [
        item
        for part in scan_along(io.BytesIO(data), "warc", Window())
        if isinstance(part, Settled)
        for item in read(part.open_at, part.spans, "warc", config)
    ]
    assert items == read_bytes(data, config=config) and "is longer than" in items[1].error


@pytest.mark.parametrize("form", ["plain", "gzip, a member a record"])
def test_what_was_read_is_let_go_at_once(form) -> None:
    """A collector of circles comes by after thousands of records, which are hundreds of MB."""
    data, streams = FORMS[form](RECORDS["warc"]), []

    def open_at(address: int) -> io.BytesIO:
        stream = io.BytesIO(data[address:])
        streams.append(weakref.ref(stream))
        return stream

    gc.disable()
    try:
        assert len(list(read(open_at, scan_bytes(data).spans, "warc", ReadConfig()))) == len(TEXTS)
        assert streams and not any(stream() for stream in streams)
    finally:
        gc.enable()


def test_a_format_whose_records_need_more_than_their_bytes_is_not_read_along() -> None:
    assert [kind for kind in CONTAINERS if reads_along(kind)] == ["warc", "arc", "jsonl"]
    for kind in ("parquet", "tar"):
        with pytest.raises(ValueError, match=f"kind='{kind}'"):
            next(scan_along(io.BytesIO(b""), kind, Window()))
