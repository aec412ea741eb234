"""Broken records, made from good ones. Notable choices:

- each function breaks one thing, the way disks, crawlers and copies break it;
- what is broken is checked to be broken: a flipped byte must change what inflates.
"""

import re
import zlib

from gristmill.synth.draw import Draw

_LENGTH = re.compile(rb"(?<=\r\n)Content-Length: (\d+)(?=\r\n)")


def flip_byte(member: bytes, draw: Draw) -> bytes:
    """A gzip member with one byte of its deflate data changed: it no longer inflates to its checksum."""
    for _ in range(100):
        at = draw.between(len(member) // 3, 2 * len(member) // 3)
        broken = member[:at] + bytes([member[at] ^ 0x55]) + member[at + 1 :]
        try:
            zlib.decompress(broken, 31)
        except zlib.error:
            return broken
    raise AssertionError("100 flips left the member intact: it is no gzip member with data")


def truncate(member: bytes) -> bytes:
    """The first half of a gzip member."""
    return member[: len(member) // 2]


def wrong_length(record: bytes, delta: int) -> bytes:
    """A WARC record whose Content-Length is off by `delta` bytes."""

    def shift(match: re.Match[bytes]) -> bytes:
        return b"Content-Length: %d" % (int(match[1]) + delta)

    head, gap, block = record.partition(b"\r\n\r\n")
    return _LENGTH.sub(shift, head + b"\r\n", count=1)[:-2] + gap + block


def garbage(draw: Draw, size: int = 700) -> bytes:
    """Bytes that are neither a gzip member nor text."""
    noise = bytes(draw.below(256) for _ in range(size))
    return b"\x00" + noise.replace(b"\x1f\x8b", b"\x1f\x00")
