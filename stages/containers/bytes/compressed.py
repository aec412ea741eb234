"""Compressed: how the bytes of a container are stored, by their first bytes alone, never by a name."""

from __future__ import annotations

from typing import Literal

Compression = Literal["none", "gzip", "zstd"]
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def is_skippable(head: bytes) -> bool:
    """Whether a zstd skippable frame starts here (RFC 8878, 3.1.2); .warc.zst keeps its dictionary in one."""
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def compression(head: bytes) -> Compression:
    """By magic bytes at the beginning of the file (4 are enough)."""
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    return "zstd" if head.startswith(ZSTD_MAGIC) or is_skippable(head) else "none"
