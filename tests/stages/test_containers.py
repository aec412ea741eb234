"""What a container is, the real ones, and the balance between scan and reader under any damage."""

from __future__ import annotations

import random

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st
from warc_files import (
    arc_record,
    file_opener,
    gz,
    http,
    line,
    members,
    page,
    plain,
    read_bytes,
    record,
    scan_bytes,
    tar_member,
    zst,
)

from gristmill.stages.containers import ReadConfig, Record, UnsupportedContainer, detect, read, scan
from gristmill.stages.containers.span_table import check_tiles


def test_detect() -> None:
    assert detect("a.jsonl", page(0)) == "warc"  # content first
    assert detect("a.warc", b'{"text": 1}') == "jsonl"
    assert detect("a", gz(page(0))) == detect("a", zst(page(0))) == "warc"
    assert detect("a.warc.gz", b"\x1f\x8b\x08damaged") == "warc"
    assert detect("a", gz(b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain 1300\n")) == "arc"
    assert detect("a.ARC.gz", b"") == detect("a", b"http://a b/ 1.1.1.1 20080430204825 text/html 3\nabc\n") == "arc"
    assert detect("a.wet.gz", b"") == "warc" and detect("A.JSONL", b"") == "jsonl"


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("a.parquet.gz", gz(b"PAR1"), "decompress it"),
        ("a.jsonl.bz2", b"BZh91AY", "bzip2"),
        ("a.json", b' [{"text": ""}]', "jq"),
        ("a.txt", b"hello", "allowed: WARC"),
    ],
)
def test_detect_refuses(name, head, words) -> None:
    with pytest.raises(UnsupportedContainer, match=words):
        detect(name, head)


REAL = {  # file: (records that can be read, unreadable)
    "aut__badexample.arc.gz": (3, 3),
    "aut__example.warc.gz": (822, 0),
    "aut__issue-493.warc": (32, 0),
    "chatnoir-resiliparse__clipped.warc.gz": (0, 1),
    "chatnoir-resiliparse__warcfile.warc.gz": (50, 0),
    "dolma__sample-0000.warc.gz": (48, 0),
    "jwarc__cc.warc.gz": (1, 0),
    "warcio__bad.arc": (1, 2),
    "warcio__example.arc.gz": (2, 0),
    "warcio__example-bad-non-chunked.warc.gz": (6, 0),
    "warcio__example-iana.org-chunked.warc": (3, 0),
    "warcio__example-trunc.warc": (3, 1),
    "warcio__example-wrong-chunks.warc.gz": (2, 0),
    "warcio__example.warc.gz": (6, 0),
    "webarchive-commons__IAH-urls-wget.warc.gz": (36, 0),
    "whirlwind-python__whirlwind.warc.gz": (4, 0),
    "whirlwind-python__whirlwind.warc.wat.gz": (2, 0),
    "whirlwind-python__whirlwind.warc.wet.gz": (2, 0),
}


def test_real_files(shared_data) -> None:
    folder = shared_data / "1_crawl" / "real"
    for path in sorted(folder.iterdir()):
        head = path.read_bytes()[:4096]
        if path.name not in REAL:
            with pytest.raises(UnsupportedContainer):
                detect(path.name, head)
            continue
        kind = detect(path.name, head)
        with path.open("rb") as stream:
            spans = scan(stream, kind).spans
        items = list(read(file_opener(path), spans, kind, ReadConfig()))
        good = [item.warc_id for item in items if isinstance(item, Record)]
        assert (len(good), len(items) - len(good)) == REAL[path.name], path.name
        if len(good) == len(items) and kind == "warc":
            with path.open("rb") as stream:
                expected = [entry.record_id.strip("<>") for entry in ArchiveIterator(stream, parse_http=False)]
            assert good == expected, path.name


def test_real_files_that_are_cut_off_or_damaged_keep_the_balance(shared_data) -> None:
    choice = random.Random(19)
    for path in sorted((shared_data / "1_crawl" / "real").iterdir()):
        data = path.read_bytes()
        if path.name not in REAL or len(data) > 300_000:
            continue
        kind = detect(path.name, data[:4096])
        for number in range(8):
            changed = bytearray(data)
            if number % 2:
                del changed[choice.randrange(len(data)) :]
            for _ in range(4 * (number % 2 == 0)):
                changed[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
            spans = scan_bytes(bytes(changed), kind).spans
            check_tiles(spans, sum(spans["length"].to_pylist()))
            assert len(read_bytes(bytes(changed), kind, spans=spans)) == spans.num_rows, (path.name, number)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    kind = draw(st.sampled_from(["warc", "arc", "jsonl", "tar"]))
    blocks = draw(st.lists(st.binary(max_size=200), max_size=8))
    if kind == "warc":
        records = [
            record(http(block), number=n, end=draw(st.sampled_from([b"\r\n\r\n", b"\n", b""])))
            for n, block in enumerate(blocks)
        ]
    elif kind == "arc":
        records = [arc_record(http(block), number=n) for n, block in enumerate(blocks)]
    elif kind == "tar":
        records = [tar_member(f"{n // 2}.{n % 2}", block) for n, block in enumerate(blocks)]
    else:
        records = [line(text=block.hex()) + draw(st.sampled_from([b"", b"\n", b" \n"])) for block in blocks]
    pack = draw(st.sampled_from([plain, gz, zst]))
    data = bytearray(pack(b"".join(records)) if draw(st.booleans()) else members(records, pack))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            at = draw(st.integers(0, len(data) - 1))
            how = draw(st.sampled_from(["flip", "cut", "insert", "delete"]))
            if how == "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            elif how == "insert":
                data[at:at] = draw(st.sampled_from([b"\0", b"\n", b"WARC/1.0\r\n", b"http:", b"\x1f\x8b\x08", b"xyz"]))
            else:
                del data[at : at + (len(data) if how == "cut" else draw(st.integers(1, 40)))]
    return bytes(data), kind


@settings(max_examples=300, deadline=None)
@given(damaged(), st.integers(0, 10), st.integers(0, 10))
def test_any_damage_keeps_the_balance(case, first, rows) -> None:
    data, kind = case
    result = scan_bytes(data, kind)
    check_tiles(result.spans, sum(result.spans["length"].to_pylist()))
    assert scan_bytes(data, kind) == result
    items = read_bytes(data, kind, spans=result.spans)
    assert [(i.ordinal, i.start, i.length) for i in items] == list(
        zip(*(result.spans[name].to_pylist() for name in ("ordinal", "start", "length")), strict=True)
    )
    assert read_bytes(data, kind, spans=result.spans.slice(first, rows)) == items[first : first + rows]
