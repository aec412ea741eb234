"""Files and bodies that expand without end, or are half damaged: what is given out of them is bounded, and no less."""

from __future__ import annotations

import gzip
import io
import random
from types import ModuleType

import brotli
import pytest
import zstandard
from warc_files import gz, http, line, page, read_all, record

from gristmill.stages.containers import Unreadable, scan
from gristmill.stages.containers.span_table import EXPANSION, RECORDS_ANYWAY


@pytest.mark.parametrize("size", [30, 3000, 90_000])
def test_a_file_in_which_every_second_member_is_damaged_loses_those_and_no_other(size) -> None:
    draw = random.Random(size)
    pages = [page(i, draw.randbytes(size // 2).hex()) for i in range(2_000_000 // (size + 300))]
    packed = [gz(data) for data in pages]
    packed[1::2] = [data[:-7] + bytes(7) for data in packed[1::2]]
    items = read_all(b"".join(packed), "warc")
    assert [item.warc_id for item in items[::2]] == [f"urn:uuid:{i}" for i in range(0, len(pages), 2)]
    assert all(isinstance(item, Unreadable) for item in items[1::2])


def test_a_bomb_of_records_ends_as_one_stretch_of_damage() -> None:
    data = gzip.compress(b"{}\n" * (RECORDS_ANYWAY + 300_000))
    spans = scan(io.BytesIO(data), "jsonl").spans
    assert RECORDS_ANYWAY < spans.num_rows < RECORDS_ANYWAY + 200_000
    assert "more than" in spans["error"][-1].as_py() and "records: the rest is not read" in spans["error"][-1].as_py()
    assert spans["error"].null_count == spans.num_rows - 1


def test_a_bomb_of_bytes_ends_as_one_stretch_of_damage() -> None:
    packer = zstandard.ZstdCompressor()
    data = packer.compress(b'{"text": "a"}\n') + packer.compress(b" " * (200 << 20))
    assert len(data) * EXPANSION < 200 << 20
    result = scan(io.BytesIO(data), "jsonl")
    assert result.size == len(data)
    assert result.spans.num_rows == 2 and f"more than {EXPANSION} times" in result.spans["error"][1].as_py()


@pytest.mark.parametrize("kind", ["warc", "jsonl"])
def test_what_real_files_have_is_no_bomb(kind) -> None:
    rows = [page(i) if kind == "warc" else line(text=f"line {i}") for i in range(60_000)]
    spans = scan(io.BytesIO(gzip.compress(b"".join(rows))), kind).spans
    assert spans.num_rows == 60_000 and spans["error"].null_count == 60_000


@pytest.mark.parametrize("pack", [brotli.Compressor(quality=1), zstandard.ZstdCompressor(), gzip])
def test_a_body_is_decoded_no_further_than_its_limit(pack) -> None:
    zeros, name = bytes(30 << 20), {brotli.Compressor: "br", ModuleType: "gzip"}.get(type(pack), "zstd")
    body = pack.process(zeros) + pack.finish() if name == "br" else pack.compress(zeros)
    data = record(http(body, f"Content-Encoding: {name}"))
    (item,) = read_all(data, "warc")
    assert isinstance(item, Unreadable) and "more than max_record_bytes" in item.error


def test_codings_over_one_another_are_bounded() -> None:
    body = b"<p>x</p>"
    for _ in range(9):
        body = gzip.compress(body)
    (item,) = read_all(record(http(body, "Content-Encoding: " + ", ".join(["gzip"] * 9))), "warc")
    assert isinstance(item, Unreadable) and "9 content codings" in item.error
