"""The boundary scan: every damage is one span, spans tile, and whole records around it have theirs."""

from __future__ import annotations

import gzip
import hashlib
import random

import pyarrow as pa
import pytest
from fastwarc.stream_io import ZstdWriter, zstd_train_dictionary_from_samples
from warc_files import (
    Trickle,
    errors,
    gz,
    http,
    members,
    page,
    plain,
    read_bytes,
    record,
    scan_bytes,
    zst,
)

from gristmill.stages.containers import Record, detect, scan
from gristmill.stages.containers.archives.warc_cut import WarcCut
from gristmill.stages.containers.span_table import check_tiles

PAGES = [page(n) for n in range(5)]


def bad(span_errors: list[str | None]) -> list[int]:
    return [n for n, error in enumerate(span_errors) if error]


def read_ids(data: bytes) -> list[str | None]:
    return [item.warc_id for item in read_bytes(data) if isinstance(item, Record)]


def ids(*numbers: int) -> list[str]:
    return [f"urn:uuid:{n}" for n in numbers]


@pytest.mark.parametrize("pack", [plain, gz, zst])
@pytest.mark.parametrize("whole", [True, False])
def test_good_files(pack, whole) -> None:
    data = pack(b"".join(PAGES)) if whole else members(PAGES, pack)
    result = scan_bytes(data)
    assert (result.sha256, result.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert result.spans["length"].to_pylist() == [len(page_data) for page_data in PAGES]
    assert bad(result.spans["error"].to_pylist()) == []
    if whole and pack is not plain:
        assert set(result.spans["c_start"].to_pylist()) == {0}
        assert result.spans["skip"].to_pylist() == result.spans["start"].to_pylist()
    else:
        assert set(result.spans["skip"].to_pylist()) == {0}
    assert read_ids(data) == ids(0, 1, 2, 3, 4)


@pytest.mark.parametrize("kind", ["warc", "jsonl"])
@pytest.mark.parametrize("data", [b"", gz(b""), zst(b"")])
def test_empty(kind, data) -> None:
    assert scan_bytes(data, kind).spans.num_rows == 0


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r\n\r\n\r\n\n"])
@pytest.mark.parametrize("pack", [plain, gz])
def test_newlines_between_records_may_lack_or_abound(end, pack) -> None:
    data = members([record(http(b"x"), number=n, end=end) for n in range(3)], pack)
    assert errors(data) == [None] * 3
    assert read_ids(data) == ids(0, 1, 2)


@pytest.mark.parametrize("length", ["", "abc", "-5", "1e3", "9" * 30])
@pytest.mark.parametrize("pack", [plain, gz])
def test_useless_content_length_costs_one_record(length, pack) -> None:
    data = members([PAGES[0], record(http(b"x"), length=length), PAGES[2]], pack)
    assert bad(errors(data)) == [1]
    assert read_ids(data) == ids(0, 2)


@pytest.mark.parametrize("by", [-20, -1, 40, 300, 100_000])
@pytest.mark.parametrize("pack", [plain, gz])
def test_wrong_content_length_costs_one_record(by, pack) -> None:
    block = http(b"y" * 400)
    data = members([PAGES[0], record(block, length=len(block) + by), PAGES[2], PAGES[3]], pack)
    assert bad(errors(data)) == [1]
    assert read_ids(data) == ids(0, 2, 3)


def test_missing_content_length() -> None:
    data = PAGES[0] + b"WARC/1.0\r\nWARC-Type: response\r\n\r\nabc\r\n\r\n" + PAGES[2]
    assert bad(errors(data)) == [1] and "no one Content-Length" in (errors(data)[1] or "")


def test_record_inside_a_record_is_not_counted() -> None:
    inside = record(http(b"<p>before</p>\n" + PAGES[1] + b"after"), number=9)
    assert read_ids(PAGES[0] + inside + PAGES[2]) == ids(0, 9, 2)


def test_record_cut_off_before_the_next_one() -> None:
    long = record(http(b"z" * 5000), number=7)
    data = PAGES[0] + long[:2000] + b"\n" + PAGES[1] + PAGES[2]
    assert bad(errors(data)) == [1]
    assert read_ids(data) == ids(0, 1, 2)


@pytest.mark.parametrize("pack", [plain, gz])
def test_garbage_between_and_behind(pack) -> None:
    data = pack(b"".join([b"garbage\n", PAGES[0], b"more garbage\n", PAGES[1], b"the end"]))
    assert bad(errors(data)) == [0, 2, 4]
    assert read_ids(data) == ids(0, 1)


def test_header_without_end_is_bounded() -> None:
    data = b"WARC/1.0\r\n" + b"X-A: b\r\n" * 20_000 + PAGES[1]
    assert bad(errors(data)) == [0] and read_ids(data) == ids(1)


@pytest.mark.parametrize("cut", [1, 9, 30, 200])
@pytest.mark.parametrize("pack", [plain, gz, zst])
def test_truncated_at_the_end(cut, pack) -> None:
    data = members([*PAGES, record(http(random.Random(1).randbytes(3000)))], pack)[:-cut]
    span_errors = errors(data)
    if pack is plain and cut <= 4:
        assert bad(span_errors) == []  # only closing newlines are missing
    else:
        assert bad(span_errors)[:1] in ([5], [6]) and len(bad(span_errors)) == 1
    assert read_ids(data)[:5] == ids(0, 1, 2, 3, 4)


def test_one_large_member_cut_off_keeps_whole_records() -> None:
    noise = random.Random(2)
    records = [record(http(noise.randbytes(30_000)), number=n) for n in range(8)]
    data = gz(b"".join(records))[:-40_000]
    span_errors = errors(data)
    assert bad(span_errors) == [len(span_errors) - 1] and len(span_errors) >= 6
    assert read_ids(data) == ids(*range(len(span_errors) - 1))


def test_bad_checksum_distrusts_the_whole_member() -> None:
    two = bytearray(gz(PAGES[1] + PAGES[2]))
    two[-6] ^= 1
    data = gz(PAGES[0]) + bytes(two) + gz(PAGES[3])
    assert bad(errors(data)) == [1, 2] and "incorrect data check" in (errors(data)[1] or "")
    assert read_ids(data) == ids(0, 3)


def test_corrupt_member_and_the_search_for_the_next() -> None:
    blocks = [gz(record(http(random.Random(n).randbytes(50_000)), number=n)) for n in range(4)]
    hurt = bytearray(blocks[1])
    hurt[10:60] = b"\xff" * 50
    data = blocks[0] + bytes(hurt) + blocks[2] + blocks[3]
    spans = scan_bytes(data).spans
    assert bad(spans["error"].to_pylist()) == [1]
    assert spans["c_start"][1].as_py() == len(blocks[0])
    assert f"compressed bytes {len(blocks[0])}-{len(blocks[0]) + len(hurt)}:" in spans["error"][1].as_py()
    assert read_ids(data) == ids(0, 2, 3)


def test_member_cut_in_the_middle_of_the_file() -> None:
    blocks = [gz(record(http(random.Random(n).randbytes(9000)), number=n)) for n in range(3)]
    data = blocks[0] + blocks[1][:5000] + blocks[2]
    assert len(bad(errors(data))) == 1
    assert read_ids(data) == ids(0, 2)


def test_cut_member_that_swallows_the_rest_of_the_file() -> None:
    stored = (
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\x01" + (5000).to_bytes(2, "little") + (0xFFFF - 5000).to_bytes(2, "little")
    )
    data = gz(b'{"text": "0"}\n') + stored + b'{"text": "1"}\n{"te' + gz(b'{"text": "2"}\n{"text": "3"}\n')
    items = read_bytes(data, "jsonl")
    assert [item.text for item in items if isinstance(item, Record)] == ["0", "1", "2", "3"]
    assert "cut off" in str([item.error for item in items if not isinstance(item, Record)])


@pytest.mark.parametrize("pack", [gz, zst])
def test_bytes_between_members(pack) -> None:
    data = pack(PAGES[0]) + b"no member" + pack(PAGES[1]) + b"neither"
    spans = scan_bytes(data).spans
    assert bad(spans["error"].to_pylist()) == [1, 3]
    assert spans["length"].to_pylist()[1::2] == [0, 0]
    assert read_ids(data) == ids(0, 1)


def test_zero_padding_at_the_end_is_no_damage() -> None:
    assert errors(gz(PAGES[0]) + bytes(5000)) == [None]
    assert bad(errors(gz(PAGES[0]) + bytes(50) + gz(PAGES[1]))) == [1]


def test_records_across_members() -> None:
    whole = b"".join(PAGES)
    data = members([whole[n : n + 100] for n in range(0, len(whole), 100)])
    assert errors(data) == [None] * 5 and read_ids(data) == ids(0, 1, 2, 3, 4)
    rows = scan_bytes(data).spans
    assert [i.warc_id for i in read_bytes(data, spans=rows.slice(3))] == ids(3, 4)


def test_zstd_dictionary() -> None:
    import io

    dictionary = zstd_train_dictionary_from_samples([page(n, f"sample {n * 7}") for n in range(2000)], 4000)
    out = io.BytesIO()
    writer = ZstdWriter(out, dictionary=dictionary)
    for page_data in PAGES:
        writer.write(page_data)
        writer.finish()
    writer.flush()
    data = out.getvalue()
    assert detect("x", data) == "warc"
    assert errors(data) == [None] * 5 and read_ids(data) == ids(0, 1, 2, 3, 4)
    assert [i.warc_id for i in read_bytes(data, spans=scan_bytes(data).spans.slice(2, 2))] == ids(2, 3)
    without = data[8 + int.from_bytes(data[4:8], "little") :]
    assert "needs a dictionary" in (errors(without)[0] or "")


@pytest.mark.parametrize("pack", [plain, gz, zst])
def test_jsonl_lines(pack) -> None:
    lines = [b"\n  \n", b'{"text":"a"}\n', b"\n\r\n", b'{"text":"b"}\r\n', b'{"text":"c"}']
    spans = scan_bytes(pack(b"".join(lines)), "jsonl").spans
    assert spans["length"].to_pylist() == [len(lines[0]) + len(lines[1]) + len(lines[2]), len(lines[3]), len(lines[4])]
    texts = [item.text for item in read_bytes(pack(b"".join(lines)), "jsonl") if isinstance(item, Record)]
    assert texts == ["a", "b", "c"]


def test_jsonl_only_blank_lines() -> None:
    assert bad(errors(b"\n\n", "jsonl")) == [0]


def test_jsonl_cut_off_gzip() -> None:
    text = "".join(f'{{"text":"{random.Random(n).random()}"}}\n' for n in range(20_000))
    data = gz(text.encode())[:-1000]
    span_errors = errors(data, "jsonl")
    assert bad(span_errors) == [len(span_errors) - 1] and len(span_errors) > 15_000
    assert "line is cut off" in (span_errors[-1] or "")


def test_how_the_stream_hands_out_bytes_changes_nothing() -> None:
    hurt = bytearray(gz(PAGES[1] * 50))
    hurt[40] ^= 255
    for data in (b"".join(PAGES), members(PAGES) + bytes(hurt) + members(PAGES), members(PAGES, zst)):
        expected = scan_bytes(data)
        for step in (1, 7, 1000):
            assert scan(Trickle(data, step), "warc") == expected


def test_check_tiles_finds_gaps() -> None:
    spans = scan_bytes(b"".join(PAGES)).spans
    length = sum(map(len, PAGES))
    check_tiles(spans, length)
    for wrong in (spans.slice(1), pa.concat_tables([spans.slice(0, 2), spans.slice(3)]), spans.slice(0, 4)):
        with pytest.raises(AssertionError):
            check_tiles(wrong, length)


def test_archive_inside_a_cut_archive_is_not_taken_for_its_rest() -> None:
    inner = gz(record(http(random.Random(3).randbytes(20_000)), number=8))  # does not compress: stands there as it is
    data = gz(PAGES[0]) + gzip.compress(record(http(inner), number=9), 0)[:-500]
    assert bad(errors(data)) == [1] and read_ids(data) == ids(0)


def test_member_edge_ends_a_record_without_newlines() -> None:
    data = gz(record(http(b"x"), number=1, end=b"")) + gz(b"garbage") + gz(PAGES[2])
    assert bad(errors(data)) == [1] and read_ids(data) == ids(1, 2)


@pytest.mark.parametrize("step", [1, 13, 200])
def test_cutting_does_not_depend_on_the_pieces(step) -> None:
    block = http(b"y" * 400)
    wrong = record(block, length=900), record(block, length=7), record(http(PAGES[4] + b"x"), length=2000)
    parts = PAGES[0], wrong[0], PAGES[1], b"garbage\n", PAGES[2], wrong[1], PAGES[3], wrong[2], PAGES[4]
    data = b"\r\n" + b"".join(parts) + record(block)[:-50]
    spans: dict[int, list[tuple[int, int, str | None]]] = {}
    for size in (step, len(data)):
        cut_spans = spans.setdefault(size, [])
        cut = WarcCut(lambda *span, cut_spans=cut_spans: cut_spans.append(span))
        for n in range(0, len(data), size):
            cut.feed(data[n : n + size])
        cut.close()
    assert spans[step] == spans[len(data)]
    assert bad([error for _, _, error in spans[step]]) == [1, 3, 5, 7, 9, 11]
