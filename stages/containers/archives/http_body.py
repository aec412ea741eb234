"""HTTP bodies: transfer and content codings undone, with the leniency that archives need.

Many writers keep the original headers over a body they have already decoded, so a header is a hint and the body's
first bytes decide. A body cut off inside a coding gives what came through, as in a browser, and says that it is cut;
one that is corrupt is an error. Unknown codings are ignored, as browsers do (RFC 9110, 8.4). Output is bounded: a bomb
is an error. Each byte is handed to a decoder a bounded number of times, however many members or chunks there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import brotli

from gristmill.stages.containers.archives.http_head import Head
from gristmill.stages.containers.bytes.compressed import ZSTD_MAGIC
from gristmill.stages.containers.bytes.raw import MemberError, Raw, deflated
from gristmill.stages.containers.bytes.zstd import zstd_frame

_CHUNK = re.compile(rb"[ \t]{0,32}([0-9A-Fa-f]{1,16})[ \t]{0,32}(?:;[^\r\n]{0,1024})?\r{0,2}\n")
_PLAIN = (b"<", b"{", b"\xef\xbb\xbf")  # a body that starts so is not compressed, whatever its header says
_GZIP = b"\x1f\x8b"
STEP = 64 << 10
MAX_CODINGS = 4  # a body that is encoded more often is a bomb


class BodyError(Exception):
    """The body cannot be decoded; the message names the coding and the limit or fault."""


class Body(NamedTuple):
    """`cut`: how one can tell that the end is missing; None for a body that is whole as far as anybody can tell."""

    data: bytes
    cut: str | None = None


def decode_body(head: Head, body: bytes, limit: int) -> Body:
    """The body as the server's application wrote it, at most `limit` bytes. Raises BodyError."""
    cut = None
    if "chunked" in head.listed("transfer-encoding"):
        body, cut = unchunk(body)
    else:
        cut = _shorter_than_said(head, body)
    codings = head.listed("content-encoding")
    if len(codings) > MAX_CODINGS:
        raise BodyError(f"{len(codings)} content codings over one another, at most {MAX_CODINGS} are undone")
    for coding in reversed(codings):
        decoded = _decode(coding.removeprefix("x-"), body, limit)
        body, cut = decoded.data, cut or decoded.cut
    return Body(body, cut)


def _shorter_than_said(head: Head, body: bytes) -> str | None:
    """Fewer bytes than Content-Length. It counts the body as sent: of one that was decoded since, it says nothing."""
    lengths = set(head.fields.get("content-length", ()))
    length = lengths.pop() if len(lengths) == 1 else ""
    if not re.fullmatch(r"[0-9]{1,18}", length) or len(body) >= int(length):
        return None
    if any(_is_plain(coding.removeprefix("x-"), body) for coding in head.listed("content-encoding")[-1:]):
        return None
    return f"Content-Length: {len(body)} of {int(length)} bytes"


def _is_plain(coding: str, body: bytes) -> bool:
    """Whether a body that should be in this coding shows that it is not."""
    if coding == "gzip":
        return not body.startswith(_GZIP)
    if coding == "zstd":
        return not body.startswith(ZSTD_MAGIC)
    return body.lstrip()[:3].startswith(_PLAIN)


def unchunk(body: bytes) -> Body:
    """Without chunk sizes (RFC 9112, 7.1). No chunk at the start: it was decoded before, and comes back as it is."""
    parts, at = bytearray(), 0
    while match := _CHUNK.match(body, at):
        size = int(match.group(1), 16)
        if size == 0:
            return Body(bytes(parts))
        at = match.end()  # behind the size; the data follow, and a line end that some writers leave out
        parts += body[at : at + size]
        if at + size > len(body):
            return Body(bytes(parts), "chunked body is cut off")
        at += size
        at += 2 if body[at : at + 2] == b"\r\n" else int(body[at : at + 1] == b"\n")
    if at == 0:
        return Body(body)
    if at == len(body):
        return Body(bytes(parts), "chunked body is cut off before its last chunk")
    return Body(bytes(parts), "chunked body breaks off: no size of a chunk where one should stand")


def _decode(coding: str, body: bytes, limit: int) -> Body:
    if not body or body.lstrip()[:3].startswith(_PLAIN):
        return Body(body)
    if coding == "gzip":
        return _inflate(coding, body, (31,), limit) if body.startswith(_GZIP) else Body(body)
    if coding == "deflate":  # zlib's format by RFC 9110, 8.4.1.2, which says itself that servers send raw deflate
        return _inflate(coding, body, (15, -15), limit)
    if coding == "br":
        return _unbrotli(coding, body, limit)
    if coding == "zstd" and body.startswith(ZSTD_MAGIC):
        decoded = _members(coding, body, partial(zstd_frame, dictionary=None), ZSTD_MAGIC, limit)
        if isinstance(decoded, str):
            raise BodyError(f"content-encoding {coding}: {decoded}")
        return decoded
    return Body(body)


def _inflate(coding: str, body: bytes, windows: tuple[int, ...], limit: int) -> Body:
    fault = ""  # of the first window: it is the format that the coding names
    for window in windows:
        decoded = _members(coding, body, partial(deflated, window=window), _GZIP, limit)
        if isinstance(decoded, Body):
            return decoded
        fault = fault or decoded
    raise BodyError(f"content-encoding {coding}: {fault}")


def _members(
    coding: str, body: bytes, member: Callable[[Raw], Iterator[bytes]], magic: bytes, limit: int
) -> Body | str:
    """All members, end to end (RFC 1952, 2.2), or what is wrong with them. What follows the last one is padding."""
    out, raw = bytearray(), Raw.of_bytes(body)
    try:
        while raw.pos == 0 or raw.peek(len(magic)) == magic:  # the first whatever it begins with
            for piece in member(raw):
                out += piece
                _check(coding, len(out), limit)
    except MemberError as error:
        if error.corrupt:
            return str(error)
        return Body(bytes(out), f"content-encoding {coding}: the body is cut off")
    return Body(bytes(out))


def _unbrotli(coding: str, body: bytes, limit: int) -> Body:
    out, at, decoder = bytearray(), 0, brotli.Decompressor()
    try:
        while not decoder.is_finished():
            data = body[at : at + STEP] if decoder.can_accept_more_data() else b""
            at += len(data)
            decoded = decoder.process(data, output_buffer_limit=STEP)
            if not data and not decoded:
                return Body(bytes(out), f"content-encoding {coding}: the body is cut off")
            out += decoded
            _check(coding, len(out), limit)
    except brotli.error as error:
        raise BodyError(f"content-encoding {coding}: {error}") from None
    return Body(bytes(out))


def _check(coding: str, size: int, limit: int) -> None:
    if size > limit:
        raise BodyError(f"content-encoding {coding}: body decodes to more than max_record_bytes={limit}")
