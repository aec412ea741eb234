"""Inflating members by feeds: the bytes, the fault and the message of zlib fed byte by byte, whatever is damaged."""

from __future__ import annotations

import random
import zlib

import pytest

from gristmill.stages.containers.bytes.raw import COPY_AFTER, FEED, MemberError, Raw, deflated

TEXT = b"".join(b"%d bottles of beer on the wall, %x\n" % (n, n * n * 7919) for n in range(4000))


def by_feeds(data: bytes, window: int = 31) -> tuple[bytes, str, int]:
    """What comes out, what is wrong, and how far it was read where nothing is."""
    raw, out = Raw.of_bytes(data), bytearray()
    try:
        for piece in deflated(raw, window):
            out += piece
    except MemberError as error:
        return bytes(out), str(error), 0
    return bytes(out), "", raw.pos


def by_bytes(data: bytes, window: int = 31) -> tuple[bytes, str, int]:
    """The same of zlib itself."""
    inflater, out = zlib.decompressobj(window), bytearray()
    what = "gzip member" if window == 31 else "deflate stream"
    for at in range(len(data)):
        try:
            out += inflater.decompress(data[at : at + 1])
        except zlib.error as error:
            return bytes(out), f"{what} at 0: {error}", 0
        if inflater.eof:
            return bytes(out), "", at + 1
    return bytes(out), f"{what} at 0 is cut off by the end of the file", 0


def damaged(data: bytes, rng: random.Random) -> bytes:
    """With flipped bits, bytes too many, or an end that is missing."""
    how, broken = rng.randrange(4), bytearray(data)
    if how == 0:
        del broken[rng.randrange(len(broken)) :]
    elif how == 1:
        at = rng.randrange(len(broken))
        broken[at:at] = rng.randbytes(rng.choice((1, 40)))
    else:  # where the header and the tables of codes stand, as often as anywhere
        reach = len(broken) if how == 2 else min(len(broken), 100)
        for _ in range(rng.choice((1, 1, 4))):
            broken[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(broken)


def member(rng: random.Random, window: int) -> bytes:
    """Compressed in one of the ways that writers have."""
    start, size = rng.randrange(len(TEXT) // 2), rng.choice((0, 1, 100, 5000, 60_000))
    body = rng.choice((TEXT[start : start + size], rng.randbytes(size), b"ab" * (size // 2)))
    strategy = rng.choice((zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED))
    packer = zlib.compressobj(rng.choice((0, 1, 6, 9)), zlib.DEFLATED, window, rng.choice((1, 9)), strategy)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize("window", [31, 15, -15])
def test_what_is_damaged_gives_what_zlib_gives_of_it(window: int) -> None:
    rng, faults = random.Random(window), set()
    for _ in range(60):
        whole = member(rng, window)
        assert by_feeds(whole + b"next", window) == by_bytes(whole, window)
        for _ in range(5):
            broken = damaged(whole, rng)
            got = by_feeds(broken, window)
            assert got == by_bytes(broken, window)
            faults.add(got[1].partition(": ")[2])
    assert len(faults) > 8, "of most kinds that there are"


@pytest.mark.parametrize("feeds", [1, COPY_AFTER - 2, COPY_AFTER + 2, 2 * COPY_AFTER + 7])
def test_a_fault_far_in_a_member_costs_nothing_that_came_before_it(feeds: int) -> None:
    body = random.Random(3).randbytes(feeds * FEED)  # takes as many bytes compressed
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    broken = packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH) + b"\x07"  # a block of the type that is none
    out, error, _ = by_feeds(broken + bytes(100))
    assert out == body and error.endswith("invalid block type")
