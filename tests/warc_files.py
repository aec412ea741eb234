"""WARC and ARC records, members of tars and compressed members written by hand, so that tests own every byte."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from gristmill.stages.containers import ReadConfig, Record, ScanResult, Unreadable, read, scan


def record(
    block: bytes,
    *,
    kind: str = "response",
    number: int = 0,
    length: int | str | None = None,
    url: str = "http://a.example/",
    content_type: str = "application/http; msgtype=response",
    end: bytes = b"\r\n\r\n",
    extra: str = "",
) -> bytes:
    """A WARC record; `length` overrides what the header says of it."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Date: 2024-05-06T07:08:09Z\r\nContent-Type: {content_type}\r\n{extra}"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + end


def http(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    """An HTTP answer."""
    lines = [status, "Content-Type: text/html; charset=utf-8", *headers]
    return "\r\n".join(line for line in lines if line).encode() + b"\r\n\r\n" + body


def page(number: int, text: str = "hello") -> bytes:
    """A record of an HTML page."""
    return record(http(f"<p>{text} {number}</p>".encode()), number=number, url=f"http://a.example/{number}")


def arc_record(block: bytes, *, number: int = 0, length: int | str | None = None, end: bytes = b"\n") -> bytes:
    """A record of an ARC file."""
    size = len(block) if length is None else length
    return f"http://a.example/{number} 10.0.0.1 20080430204825 text/html {size}\n".encode() + block + end


def tar_member(name: str, data: bytes) -> bytes:
    """A member of a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member.tobuf() + data + bytes(-len(data) % 512)


def line(**row: object) -> bytes:
    """A JSON line."""
    return json.dumps(row).encode() + b"\n"


def gz(data: bytes) -> bytes:
    """A gzip member."""
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    """A zstd frame."""
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def plain(data: bytes) -> bytes:
    """Uncompressed."""
    return data


def members(records: Iterable[bytes], pack: Callable[[bytes], bytes] = gz) -> bytes:
    """Records, each a member of its own."""
    return b"".join(pack(record) for record in records)


class Trickle(io.RawIOBase):
    """A stream that cannot seek and hands out few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._inner, self._step = io.BytesIO(data), step

    def read(self, size: int = -1) -> bytes:
        """At most `step` bytes, whatever was asked for."""
        return self._inner.read(self._step)


def scan_bytes(data: bytes, kind: str = "warc") -> ScanResult:
    """The boundary scan of these bytes."""
    return scan(io.BytesIO(data), kind)


def opener(data: bytes) -> Callable[[int], BinaryIO]:
    """Opens these bytes at an offset."""
    return lambda offset: io.BytesIO(data[offset:])


def file_opener(path: Path) -> Callable[[int], BinaryIO]:
    """Opens a file at an offset."""

    def open_at(offset: int) -> BinaryIO:
        stream = path.open("rb")
        stream.seek(offset)
        return stream

    return open_at


def read_bytes(
    data: bytes, kind: str = "warc", config: ReadConfig | None = None, spans: pa.Table | None = None
) -> list[Record | Unreadable]:
    """The items of the reader along the spans of these bytes."""
    spans = scan_bytes(data, kind).spans if spans is None else spans
    return list(read(opener(data), spans, kind, config or ReadConfig()))


def read_all(data: bytes, kind: str) -> list[Record | Unreadable]:
    """The same, and there is one item for each span, whatever the bytes are."""
    spans = scan_bytes(data, kind).spans
    items = read_bytes(data, kind, spans=spans)
    assert len(items) == spans.num_rows
    return items


def read_record(data: bytes, kind: str = "warc", config: ReadConfig | None = None) -> Record:
    """The only item, which has to be readable."""
    (item,) = read_bytes(data, kind, config)
    assert isinstance(item, Record), item
    return item


def read_fault(data: bytes, kind: str = "warc", config: ReadConfig | None = None) -> Unreadable:
    """The only item, which has to be unreadable."""
    (item,) = read_bytes(data, kind, config)
    assert isinstance(item, Unreadable), item
    return item


def errors(data: bytes, kind: str = "warc") -> list[str | None]:
    """The error of each span."""
    return scan_bytes(data, kind).spans["error"].to_pylist()
