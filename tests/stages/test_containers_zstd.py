"""Dictionaries of .warc.zst: compressed or not, damaged, or bombs; each costs at most the frames that need it."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable

import pytest
import zstandard
from warc_files import opener, page

from gristmill.stages.containers import ReadConfig, Record, Unreadable, read, scan
from gristmill.stages.containers.bytes import zstd


def read_all(data: bytes) -> list[Record | Unreadable]:
    spans = scan(io.BytesIO(data), "warc").spans
    items = list(read(opener(data), spans, "warc", ReadConfig()))
    assert len(items) == spans.num_rows
    return items


def with_dictionary(change: Callable[[bytearray], object], packed: bool = False) -> bytes:
    words = [b"WARC/1.0\r\nWARC-Type: response %d\r\n" % i * 9 + random.Random(i).randbytes(30) for i in range(400)]
    trained = zstandard.train_dictionary(2048, words)
    content = bytearray(trained.as_bytes())
    change(content)
    stored_form = zstandard.ZstdCompressor().compress(bytes(content)) if packed else bytes(content)
    frames = [zstandard.ZstdCompressor(dict_data=trained, write_checksum=True).compress(page(i)) for i in range(3)]
    frames.append(zstandard.ZstdCompressor().compress(page(3)))  # one that needs none
    return b"\x5d\x2a\x4d\x18" + struct.pack("<I", len(stored_form)) + stored_form + b"".join(frames)


@pytest.mark.parametrize("packed", [False, True])
def test_a_dictionary_may_be_compressed(packed) -> None:
    assert [item.warc_id for item in read_all(with_dictionary(len, packed))] == [f"urn:uuid:{i}" for i in range(4)]


def test_a_damaged_dictionary_costs_what_needs_it_and_nothing_else() -> None:
    def spoil(content: bytearray) -> None:
        content[8:40] = bytes(32)

    items = read_all(with_dictionary(spoil))
    assert (
        isinstance(items[0], Unreadable) and "needs a dictionary: the dictionary of the file, which" in items[0].error
    )
    assert [item.warc_id for item in items if not isinstance(item, Unreadable)] == ["urn:uuid:3"]


def test_no_byte_of_a_dictionary_ends_the_scan() -> None:
    whole = with_dictionary(len)
    draw = random.Random(3)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(8, 400)] = draw.randrange(256)
        assert read_all(bytes(data))


def test_a_dictionary_that_inflates_without_end_is_not_inflated() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    data = b"\x5d\x2a\x4d\x18" + struct.pack("<I", len(bomb)) + bomb + with_dictionary(len)[-400:]
    frames = zstandard.train_dictionary(2048, [json.dumps([i] * 40).encode() for i in range(300)])
    data += zstandard.ZstdCompressor(dict_data=frames).compress(page(1))
    items = read_all(data)
    assert any(isinstance(i, Unreadable) and f"inflates to more than {zstd.MAX_DICTIONARY}" in i.error for i in items)
