"""HTTP bodies: transfer and content codings undone, with the leniency that archives need.

Many writers keep the original headers over a body they have already decoded, so a header is a hint and the body's
first bytes decide. A body cut off inside a coding gives what came through, as in a browser; one that is corrupt is
an error. Unknown codings are ignored, as browsers do (RFC 9110, 8.4). Output is bounded: a bomb is an error.
"""

from __future__ import annotations

import io
import re
import zlib

from fastwarc.stream_io import BrotliReader, ZstdReader
from fastwarc.warc import HeaderMap

_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,256})?\r?\n")
_PLAIN = (b"<", b"{", b"\xef\xbb\xbf")  # a body that starts so is not compressed, whatever its header says
STEP = 64 << 10


class BodyError(Exception):
    """The body cannot be decoded; the message names the coding and the limit or fault."""


def decode_body(headers: HeaderMap, body: bytes, limit: int) -> bytes:
    """The body as the server's application wrote it, at most `limit` bytes. Raises BodyError."""
    if "chunked" in _codings(headers, "Transfer-Encoding"):
        body = unchunk(body)
    for coding in reversed(_codings(headers, "Content-Encoding")):
        body = _decode(coding.removeprefix("x-"), body, limit)
    return body


def _codings(headers: HeaderMap, name: str) -> list[str]:
    return [coding.strip().lower() for coding in (headers.get(name) or "").split(",") if coding.strip()]


def unchunk(body: bytes) -> bytes:
    """Without chunk sizes (RFC 9112, 7.1). No chunk at the start: it was decoded before, and comes back as it is."""
    parts, at = [], 0
    while match := _CHUNK.match(body, at):
        size = int(match.group(1), 16)
        if size == 0:
            break
        parts.append(body[match.end() : match.end() + size])
        at = match.end() + size
        at += 2 if body[at : at + 2] == b"\r\n" else int(body[at : at + 1] == b"\n")
    else:
        if not parts:
            return body
    return b"".join(parts)


def _decode(coding: str, body: bytes, limit: int) -> bytes:
    if not body or body.lstrip()[:3].startswith(_PLAIN):
        return body
    if coding == "gzip":
        return _inflate(coding, body, (31,), limit) if body.startswith(b"\x1f\x8b") else body
    if coding == "deflate":  # meant is zlib, but some servers send raw deflate
        return _inflate(coding, body, (15, -15), limit)
    if coding in ("br", "zstd"):
        stream = io.BytesIO(body)
        return _drain(coding, BrotliReader(stream) if coding == "br" else ZstdReader(stream), limit)
    return body


def _inflate(coding: str, body: bytes, windows: tuple[int, ...], limit: int) -> bytes:
    fault = ""
    for window in windows:
        try:
            out, rest = b"", body
            while rest and (not out or rest.startswith(b"\x1f\x8b")):
                inflater = zlib.decompressobj(window)
                out += inflater.decompress(rest, limit + 1 - len(out))
                _check(coding, len(out), limit)
                rest = inflater.unused_data
            return out
        except zlib.error as error:
            fault = fault or str(error)
    raise BodyError(f"content-encoding {coding}: {fault}")


def _drain(coding: str, reader: BrotliReader | ZstdReader, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            data = reader.read(STEP)
        except (OSError, ValueError) as error:
            if size and re.search(r"incomplete|unexpected|eof", str(error), re.IGNORECASE):
                return b"".join(parts)
            raise BodyError(f"content-encoding {coding}: {error}") from None
        if not data:
            return b"".join(parts)
        size += len(data)
        _check(coding, size, limit)
        parts.append(data)


def _check(coding: str, size: int, limit: int) -> None:
    if size > limit:
        raise BodyError(f"content-encoding {coding}: body decodes to more than max_record_bytes={limit}")
