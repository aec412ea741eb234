"""WARC 1.1 records and gzip members, written by hand. Notable choices:

- one gzip member a record, as crawls are published, so that a reader can start at any record;
- the member header is written here (no time, no operating system) and the level is fixed: decompressed bytes are the
  same everywhere, compressed ones wherever the zlib is the same (zlib-ng may choose other matches);
- block and payload digests are present and right, unless a caller damages the record afterwards.
"""

import base64
import hashlib
import struct
import zlib
from collections.abc import Sequence

CRLF = b"\r\n"
LEVEL = 6
_REASONS = {200: "OK", 301: "Moved Permanently", 404: "Not Found", 500: "Internal Server Error"}
Headers = Sequence[tuple[str, str]]


def gzip_member(data: bytes, level: int = LEVEL) -> bytes:
    """The data as one gzip member without name, time or system."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 8)
    body = deflate.compress(data) + deflate.flush()
    return (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
        + body
        + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    )


def digest(data: bytes) -> str:
    """sha1 in base32, the form crawlers write."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def http_response(status: int, headers: Headers, body: bytes) -> bytes:
    """An HTTP/1.1 response message."""
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("ascii") + CRLF * 2 + body


def chunked(body: bytes, size: int = 1500) -> bytes:
    """The body in HTTP/1.1 chunked transfer coding."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(f"{len(p):x}".encode() + CRLF + p + CRLF for p in pieces) + b"0" + CRLF * 2


def record(kind: str, warc_id: str, date: str, block: bytes, content_type: str, extra: Headers = ()) -> bytes:
    """One WARC record with its closing newlines; `warc_id` is a bare UUID, `date` is ISO 8601 in UTC."""
    headers = [
        ("WARC-Type", kind),
        ("WARC-Record-ID", f"<urn:uuid:{warc_id}>"),
        ("WARC-Date", date),
        *extra,
        ("WARC-Block-Digest", digest(block)),
        ("Content-Type", content_type),
        ("Content-Length", str(len(block))),
    ]
    text = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    return text.encode() + CRLF + block + CRLF * 2


def response(warc_id: str, date: str, url: str, http: bytes) -> bytes:
    """A response record around an HTTP message."""
    payload = http.partition(CRLF * 2)[2]
    extra = (
        ("WARC-Target-URI", url),
        ("WARC-IP-Address", "192.0.2.80"),
        ("WARC-Payload-Digest", digest(payload)),
    )
    return record("response", warc_id, date, http, "application/http; msgtype=response", extra)
