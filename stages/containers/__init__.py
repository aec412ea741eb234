"""Containers: the files a crawl comes in (WARC, WET, WAT, JSON lines; plain, gzip or zstd).

Two codes on purpose: `spans.scan` (ours) finds where each record stands, `read.read` (FastWARC, json) says what it
is; neither calls the other's parser, so that one can contradict the other. They share only `raw`, decompression.
What a file is, its content says first and its name second: crawls are full of misnamed and damaged files.
ARC is refused rather than half read: nothing here can bound its records by anything but trust.
"""

from __future__ import annotations

import re
import zlib
from typing import Literal

Kind = Literal["warc", "jsonl"]
Compression = Literal["none", "gzip", "zstd"]

KINDS: tuple[Kind, ...] = ("warc", "jsonl")
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ALLOWED = "allowed: WARC (.warc, .wet, .wat) and JSON lines (.jsonl, .ndjson), plain, .gz or .zst"

_OTHER_COMPRESSION = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip"}
_ARC_HEAD = re.compile(rb"filedesc:|https?://\S{1,2048} [0-9.]{7,15} \d{14} ")
_NAMES: tuple[tuple[str, Kind], ...] = (
    (r"\.(warc|wet|wat)(\.gz|\.zst|\.open){0,4}$", "warc"),
    (r"\.(jsonl|ndjson|json)(\.gz|\.zst){0,4}$", "jsonl"),
)


class UnsupportedContainer(ValueError):
    """This file is nothing that can be read here; the message says what is allowed and what to do."""


def is_skippable(head: bytes) -> bool:
    """Whether a zstd skippable frame starts here (RFC 8878, 3.1.2); .warc.zst keeps its dictionary in one."""
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def compression(head: bytes) -> Compression:
    """By magic bytes at the beginning of the file (4 are enough)."""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    return "zstd" if head.startswith(ZSTD_MAGIC) or is_skippable(head) else "none"


def detect(name: str, head: bytes) -> Kind:
    """The kind of the file `name` whose first bytes (as stored, a few thousand) are `head`.

    Raises UnsupportedContainer for ARC, other compressions, JSON arrays and whatever neither content nor name tell.
    """
    for magic, tool in _OTHER_COMPRESSION.items():
        if head.startswith(magic):
            raise UnsupportedContainer(f"{name} is {tool}: recompress it with gzip or zstd ({ALLOWED})")
    start = _plain_head(head).lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"WARC/\d", start):
        return "warc"
    if _ARC_HEAD.match(start) or (not start and re.search(r"\.arc(\.gz)?$", name)):
        raise UnsupportedContainer(f"{name} is ARC: convert it with `warcio recompress {name} OUT.warc.gz` ({ALLOWED})")
    if start.startswith(b"["):
        raise UnsupportedContainer(f"{name} is one JSON array: make it JSON lines with `jq -c '.[]'` ({ALLOWED})")
    if start.startswith(b"{"):
        return "jsonl"
    for pattern, kind in _NAMES:
        if re.search(pattern, name.lower()):
            return kind
    raise UnsupportedContainer(f"{name} starts with {start[:24]!r} and its name ends in nothing known ({ALLOWED})")


def _plain_head(head: bytes) -> bytes:
    """As much of the beginning as decompresses; damaged or dictionary-compressed heads leave it to the name."""
    how = compression(head)
    if how == "none":
        return head
    if how == "gzip":
        try:
            return zlib.decompressobj(31).decompress(head, 256)
        except zlib.error:
            return b""
    from stages.containers.raw import Raw
    from stages.containers.zstd import zstd_head

    return zstd_head(Raw.of_bytes(head), 256)
