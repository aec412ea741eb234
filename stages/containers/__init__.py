"""Containers: the files that records come in, one row a format; `detect`, `scan` and `read` are asked here.

What a file is, its content says first and its name second: crawls are full of misnamed and damaged files.
The contract of a row is `container.Container`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from gristmill.stages.containers.archives.arc import ARC
from gristmill.stages.containers.archives.warc import WARC
from gristmill.stages.containers.bytes.compressed import compression
from gristmill.stages.containers.bytes.raw import Raw
from gristmill.stages.containers.bytes.zstd import zstd_head
from gristmill.stages.containers.container import Container
from gristmill.stages.containers.jsonl import JSONL
from gristmill.stages.containers.parquet.rows import PARQUET
from gristmill.stages.containers.record import WHOLE_FILE, Item, ReadConfig, ReadDeclared, Record, Unreadable
from gristmill.stages.containers.sequential import Sequential
from gristmill.stages.containers.span_table import OpenAt, ScanResult
from gristmill.stages.containers.tar import TAR
from gristmill.stages.containers.window import Settled, Window

__all__ = [
    "CONTAINERS",
    "UNREADABLE",
    "Container",
    "Item",
    "OpenAt",
    "ReadConfig",
    "ReadDeclared",
    "Record",
    "ScanResult",
    "Settled",
    "Unreadable",
    "UnsupportedContainer",
    "Window",
    "detect",
    "read",
    "reads_along",
    "scan",
    "scan_along",
]

CONTAINERS: dict[str, Container] = {
    container.name: container
    for container in (
        WARC,
        ARC,
        PARQUET,
        TAR,
        JSONL,
    )
}

UNREADABLE = "unreadable"
"""The kind of a file that is of no format: its one span is the whole file, which no container reads."""
HEAD = 512
"""Plain bytes by which a format is recognised: a tar has its magic at 257."""
ALLOWED = (
    "allowed: WARC (.warc, .wet, .wat), ARC (.arc), JSON lines (.jsonl, .ndjson) and tar (.tar), plain, .gz or .zst;"
    " Parquet (.parquet)"
)
_OTHER_COMPRESSION = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
_COMPRESSED_NAME = re.compile(r"(\.gz|\.zst|\.open){1,4}$")


class UnsupportedContainer(ValueError):
    """This file is nothing that can be read here; the message says what is allowed and what to do.

    `fault`: why, in words that neither name the file nor quote it: its row in a ledger has them.
    """

    def __init__(self, message: str, fault: str = "") -> None:
        super().__init__(message)
        self.fault = fault or message


def detect(name: str, head: bytes) -> str:
    """The name of the container of the file `name` whose first bytes (as stored, a few thousand) are `head`.

    Raises UnsupportedContainer for other compressions, JSON arrays and whatever neither content nor name tell.
    """
    for magic, tool in _OTHER_COMPRESSION.items():
        if head.startswith(magic):
            raise _unsupported(name, f"is {tool}: recompress it with gzip or zstd")
    plain, packed = _plain_head(head), compression(head)
    if plain.startswith(b"PAR1") and packed != "none":
        raise _unsupported(name, "is a compressed Parquet file: decompress it")
    # By content first, in the order of the table, in which JSON lines come last: `{` begins other things too.
    for container in CONTAINERS.values():
        if container.begins(plain):
            return container.name
    start = plain.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        raise _unsupported(name, "is one JSON array: make it JSON lines with `jq -c '.[]'`")
    # By name, where nothing could be decompressed or the beginning is damaged.
    bare = _COMPRESSED_NAME.sub("", name.lower())
    for container in CONTAINERS.values():
        if bare.endswith(container.suffixes):
            return container.name
    if packed != "none" and not plain:
        raise _unsupported(name, f"begins as {packed} of which nothing can be decompressed, and its name tells nothing")
    # A person may see how it begins, a ledger may not.
    start_shown = f"{name} starts with {start[:24]!r} and its name ends in nothing known ({ALLOWED})"
    raise UnsupportedContainer(start_shown, "neither its first bytes nor its name tell of a known format")


def _unsupported(name: str, fault: str) -> UnsupportedContainer:
    return UnsupportedContainer(f"{name} {fault} ({ALLOWED})", f"it {fault}")


def scan(stream: BinaryIO, kind: str) -> ScanResult:
    """The digest of a file, and the spans of its records. `stream`: its bytes as stored, from the beginning."""
    return _container(kind).scan(stream)


def reads_along(kind: str) -> bool:
    """Whether records of this kind of file can be read while it is scanned."""
    return _container(kind).reads_along


def scan_along(stream: BinaryIO, kind: str, window: Window) -> Iterator[Settled | ScanResult]:
    """As `scan`, of a kind of which records can be read meanwhile: spans that are settled, in order and from the first
    one on, as far as the window holds their bytes; the result last. Raises ValueError for another kind."""
    container = _container(kind)
    if not isinstance(container, Sequential) or not container.reads_along:
        raise ValueError(f"kind={kind!r}: its records are not read while it is scanned")
    return container.scan_along(stream, window)


def read(open_at: OpenAt, spans: pa.Table, kind: str, config: ReadConfig, *, rows: bool = False) -> Iterator[Item]:
    """One item for each row of `spans`, a contiguous slice of a scan's table, its metadata kept.

    `open_at(offset)` gives the file's bytes as stored from `offset` on; it is closed here. `rows`: every field of a row
    is wanted, and none has to be the text. Raises OSError when the file does not hold what was scanned.
    """
    if kind == UNREADABLE:
        return _whole_files(spans)
    return _container(kind).read(open_at, spans, config, rows=rows)


def _whole_files(spans: pa.Table) -> Iterator[Item]:
    for span in spans.to_pylist():
        yield Unreadable(span["ordinal"], span["start"], span["length"], span["error"], reason=WHOLE_FILE)


def _container(kind: str) -> Container:
    if kind not in CONTAINERS:
        raise ValueError(f"kind={kind!r}: allowed are {', '.join(CONTAINERS)}")
    return CONTAINERS[kind]


def _plain_head(head: bytes) -> bytes:
    """As much of the beginning as decompresses; damaged or dictionary-compressed heads leave it to the name."""
    how = compression(head)
    if how == "none":
        return head[:HEAD]
    if how == "zstd":
        return zstd_head(Raw.of_bytes(head), HEAD)
    try:
        return zlib.decompressobj(31).decompress(head, HEAD)
    except zlib.error:
        return b""
