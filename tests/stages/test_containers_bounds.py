"""Whatever stands in a file, reading it costs time in proportion to its size, and its output is bounded.

Counted, not timed: lines of Python run under stages/containers, bytes handed to inflaters, bytes handed out by the raw
stream, at 1x, 2x and 4x of each hostile input. What regular expressions cost is C and is not counted there: their form
is checked instead.
"""

from __future__ import annotations

import ast
import gzip
import io
import random
import struct
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from warc_files import arc_record, gz, http, page, read_all, record, tar_member
from zlib_ng import zlib_ng

import gristmill.stages.containers
from gristmill.stages.containers import media
from gristmill.stages.containers.bytes import raw, zstd
from gristmill.stages.containers.bytes.raw import Raw

HERE = str(Path(gristmill.stages.containers.__file__).parent)
N = 12_000  # bytes, about, of the smallest input


class Inflater:
    """zlib-ng's, counting what it is given."""

    def __init__(self, inner: Any, cost: list[int]) -> None:
        self._inner, self._cost = inner, cost

    def decompress(self, data: bytes, *limit: int) -> bytes:
        self._cost[0] += len(data)
        return self._inner.decompress(data, *limit)

    def copy(self) -> Inflater:
        return Inflater(self._inner.copy(), self._cost)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """What a call costs: lines run in files of stages/containers, bytes handed to inflaters and handed out by Raw."""
    count = [0]

    class Zlib:
        error = zlib_ng.error

        @staticmethod
        def decompressobj(window: int) -> Inflater:
            return Inflater(zlib_ng.decompressobj(window), count)

    def counted(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(self: Any, *args: int) -> bytes:
            data = original(self, *args)
            count[0] += len(data)
            return data

        monkeypatch.setattr(owner, name, call)

    monkeypatch.setattr(raw, "zlib_ng", Zlib)
    counted(Raw, "peek")
    counted(Raw, "bytes_at")
    counted(zstd._Frame, "read")

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        if event == "line":
            count[0] += 1
        return trace

    def measure(function: Callable[[], object]) -> int:
        count[0], before = 0, sys.gettrace()
        sys.settrace(trace)
        try:
            function()
        finally:
            sys.settrace(before)
        return count[0]

    return measure


def stored(data: bytes) -> bytes:
    """A gzip member that is not compressed and has no end: what is in it stands there byte for byte."""
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + struct.pack("<BHH", 0, len(data), len(data) ^ 0xFFFF) + data


def nested(n: int) -> bytes:
    """Members whose starts are good, each of which runs over all that follow and fails at the end."""
    start = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x00" + struct.pack("<HH", 40, 40 ^ 0xFFFF)
    return (start + b"WARC/1.0\r\n" + b"a: b\r\n" * 5) * (n // 55)


def tiny_members(text: bytes) -> bytes:
    return b"".join(gz(text[i : i + 1]) for i in range(len(text)))


def dictionary_frames(n: int) -> bytes:
    """A .warc.zst whose dictionary is damaged: no frame can be read."""
    words = [b"WARC/1.0\r\nWARC-Type: response %d\r\n" % i * 9 + random.Random(i).randbytes(30) for i in range(400)]
    good = zstandard.train_dictionary(2048, words)
    packer = zstandard.ZstdCompressor(dict_data=good)
    bad = bytearray(good.as_bytes())
    bad[8:40] = bytes(32)
    frames = b"".join(packer.compress(page(i)) for i in range(n // 60))
    return b"\x5d\x2a\x4d\x18" + struct.pack("<I", len(bad)) + bytes(bad) + frames


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "a cut member full of magics": lambda n: gz(page(1))[:60] + b"\x1f\x8b\x08\x00" * (n // 4),
    "magics with flags": lambda n: gz(page(1))[:60] + b"\x1f\x8b\x08" * (n // 3),
    "magics that end nowhere": lambda n: b"x" + b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\x03\xff\x7f" * (n // 12),
    "members in members": nested,
    "members in a cut member": lambda n: stored(nested(n)[:60000]) if n < 60000 else nested(n),
    "empty members": lambda n: gz(b"") * (n // 20),
    "members of one byte": lambda n: tiny_members(record(b"x" * (n // 20))),
    "members of one newline": lambda n: gz(b"\n") * (n // 20),
    "a header in members of one byte": lambda n: tiny_members(b"WARC/1.0\r\n" + b"a: b\r\n" * (n // 120)),
    "damaged members": lambda n: b"".join(gz(page(i))[:-6] + b"zzzzzz" for i in range(n // 200)),
    "magics of zstd": lambda n: zstandard.ZstdCompressor().compress(page(1))[:50] + b"\x28\xb5\x2f\xfd" * (n // 4),
    "a damaged dictionary": dictionary_frames,
    "newlines": lambda n: b"WARC/1.0\r\n" + b"\n" * n,
    "a header without end": lambda n: b"WARC/1.0\r\n" + b"a: b\r\n" * (n // 6),
    "a length of blanks": lambda n: b"WARC/1.0\r\nContent-Length: 5" + b" " * n + b"x\r\n\r\nhello",
    "starts of records": lambda n: b"\nWARC/1.0\n" * (n // 10),
    "records in a record": lambda n: record(b"", length=10**9, end=b"") + b"".join(page(i) for i in range(n // 300)),
    "records that run over": lambda n: b"".join(record(b"x", length=10**9) for _ in range(n // 250)),
    "a body of members": lambda n: record(http(gz(b"") * (n // 20), "Content-Encoding: gzip")),
    "a body of members of one byte": lambda n: record(http(gz(b"a") * (n // 21), "Content-Encoding: gzip")),
    "chunks of one byte": lambda n: record(http(b"1\r\nx\r\n" * (n // 6), "Transfer-Encoding: chunked")),
    "a head of many lines": lambda n: record(b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * (n // 5) + b"\r\n"),
    "a head of one long field": lambda n: record(b"HTTP/1.1 200 OK\r\na:\r\n" + b" b\r\n" * (n // 4) + b"\r\n"),
    "a charset of blanks": lambda n: record(http(b"x", "Content-Type: a/b; charset=" + " " * n + ";")),
    "codings": lambda n: record(http(gz(b"x"), "Content-Encoding: " + "gzip," * (n // 5))),
}
LINES: dict[str, Callable[[int], bytes]] = {
    "blank lines": lambda n: b" \n" * (n // 2),
    "blanks": lambda n: b" " * n + b"{}",
    "empty objects": lambda n: gzip.compress(b"{}\n" * (n // 3)),
    "lists in lists": lambda n: b'{"text": ' + b"[" * n + b"\n",
    "whole numbers": lambda n: b'{"text": "a", "id": ' + b"9" * n + b"}\n",
    "members of one line": lambda n: gz(b"{}\n") * (n // 23),
}


ARCS: dict[str, Callable[[int], bytes]] = {
    "lines without a length": lambda n: b"http://a/ 1.1.1.1 20080430204825 text/html x\n" * (n // 45),
    "a header without end": lambda n: b"http://a/" + b" 1.1.1.1 20080430204825 " * (n // 24),
    "addresses": lambda n: (b"http://a/" + b" 1.1.1.1 20080430204825" * 40 + b"\n") * (n // 930),
    "schemes": lambda n: b"http:" * (n // 5),
    "newlines": lambda n: arc_record(b"x") + b"\n" * n,
    "members of one byte": lambda n: tiny_members(arc_record(b"x" * (n // 20))),
    "records in a record": lambda n: arc_record(b"", length=10**9) + arc_record(b"x") * (n // 60),
    "records that run over": lambda n: arc_record(b"x", length=10**9) * (n // 60),
}
TARS: dict[str, Callable[[int], bytes]] = {
    "magics": lambda n: bytes(600) + b"ustar" * (n // 5),
    "damaged headers": lambda n: (b"x" + tar_member("a.txt", b"")[1:]) * (n // 512),
    "members of one sample": lambda n: b"".join(tar_member(f"a.{i}", b"") for i in range(n // 512)),
    "empty blocks": lambda n: tar_member("a.txt", b"x") + bytes(n),
    "members of one byte": lambda n: tiny_members(tar_member("a.txt", b"x" * (n // 20))),
    "long names": lambda n: tar_meta(b"L", b"a" * 1000) * (n // 1536),
    "a long name": lambda n: tar_meta(b"L", b"a" * n) + tar_member("b.txt", b"x"),
    "pax headers": lambda n: (tar_meta(b"x", b"1 a" * 300) + tar_member("b.txt", b"x")) * (n // 2560),
}


def tar_meta(flag: bytes, data: bytes) -> bytes:
    """A header for the next member: a long name (L), or pax records (x)."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = flag, len(data)
    return member.tobuf() + data + bytes(-len(data) % 512)


def columns(n: int, texts: list[str], **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": texts * (n // 50)}), stream, **options)
    return stream.getvalue()


PARQUETS: dict[str, Callable[[int], bytes]] = {
    "pages of one row": lambda n: columns(n, ["a"], data_page_size=1, write_batch_size=1, use_dictionary=False),
    "row groups of one row": lambda n: columns(n // 4, ["a"], row_group_size=1),
    "a dictionary": lambda n: columns(n, ["a" * 1000]),
    "no footer": lambda n: b"PAR1" + bytes(n),
    "a footer of empty structs": lambda n: (
        b"PAR1\x49\xfc" + varint(n) + bytes(n) + (n + 9).to_bytes(4, "little") + b"PAR1"
    ),
}


def varint(number: int) -> bytes:
    """Of five bytes, with zeros before it."""
    return bytes(number >> shift & 127 | 128 for shift in (0, 7, 14, 21)) + bytes([number >> 28])


BY_KIND = {"warc": HOSTILE, "jsonl": LINES, "arc": ARCS, "tar": TARS, "parquet": PARQUETS}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, builds in BY_KIND.items() for name in builds])
def test_cost_grows_no_faster_than_the_input(kind, name, cost) -> None:
    build = BY_KIND[kind][name]
    costs = [cost(partial(read_all, build(n), kind)) for n in (2 * N, 4 * N, 8 * N)]
    assert costs[1] <= 2.4 * costs[0] and costs[2] <= 2.4 * costs[1], costs


def _repeats(pattern: Any, last: bool) -> list[str]:
    """Repeats without an upper bound that something follows."""
    faults = []
    items = list(pattern)
    for number, (op, argument) in enumerate(items):
        at_end = last and number == len(items) - 1
        if str(op) in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            _, most, inner = argument
            if most == _parser.MAXREPEAT and not at_end:
                faults.append(str(inner))
            faults += _repeats(inner, False)
        elif str(op) == "SUBPATTERN":
            faults += _repeats(argument[3], at_end)
        elif str(op) == "BRANCH":
            faults += [fault for branch in argument[1] for fault in _repeats(branch, at_end)]
    return faults


def _patterns(path: Path) -> Iterator[Any]:
    """The regular expressions in a file: what is written out in a call of `re`."""
    for node in ast.walk(ast.parse(path.read_text())):
        is_call = isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.")
        if is_call and isinstance(node.args[0], ast.Constant):
            yield ast.literal_eval(node.args[0])


def test_no_pattern_repeats_without_bound_before_something_else() -> None:
    """Such a pattern is quadratic or worse in what it repeats; at the end of a pattern it is linear."""
    patterns = [pattern for path in sorted(Path(HERE).rglob("*.py")) for pattern in _patterns(path)]
    patterns += media._IMAGES  # joined into one
    assert len(patterns) > 25
    for pattern in patterns:
        assert not _repeats(_parser.parse(pattern), True), f"{pattern!r} repeats without bound"
    assert _repeats(_parser.parse(r"[ \t]*\n"), True) and not _repeats(_parser.parse(r"a[ \t]{0,9}\n+"), True)
