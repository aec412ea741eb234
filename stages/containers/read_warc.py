"""One WARC record's bytes to a Record, parsed by FastWARC; bodies decoded as a browser would.

A span must hold one record, whole, and nothing else, or scan and reader disagree and the row is Unreadable.
Pages are HTTP responses and resources; WET's conversions are text; requests, revisits, warcinfo, metadata are "other".
The identity hashes the block as stored, so two records under one mis-issued id stay two, and a recompressed copy of
a record stays one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping

from fastwarc.warc import ArchiveIterator, HeaderMap, WarcRecord

from stages.containers.http_body import BodyError, decode_body
from stages.containers.read import ReadConfig, Record, RecordError, digest_of
from stages.containers.warc_cut import MAX_HEADER

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_HEADER_LINE = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:[ \t]")
_SIZES: Mapping[str, int] = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """`data`: the span. Raises RecordError."""
    record, block = _only_record(data)
    headers = record.headers
    warc_id = _bare(headers.get("WARC-Record-ID"))
    url = _bare(headers.get("WARC-Target-URI"))
    try:
        if config.verify_digests:
            _verify(headers.get("WARC-Block-Digest"), block)
        kind = (headers.get("WARC-Type") or "").strip().lower()
        item = empty._replace(
            record_type=kind or "unknown",
            warc_id=warc_id,
            url=url,
            date=headers.get("WARC-Date"),
            identity=digest_of(warc_id, block) if warc_id else None,
        )
        declared = headers.get("Content-Type") or ""
        typed = _typed(item, declared)
        if kind == "conversion":
            return typed._replace(kind="text", text=_text(block))
        is_http = declared.lower().replace(" ", "").startswith("application/http")
        if kind == "resource" and not is_http:
            return typed._replace(kind="page", payload=block)
        if kind in ("response", "resource") and (is_http or (url or "").lower().startswith("http")):
            return _page(item, block, config.max_record_bytes)
        return typed._replace(payload=block)
    except RecordError as error:
        error.url, error.warc_id = url, warc_id
        raise


def _only_record(data: bytes) -> tuple[WarcRecord, bytes]:
    stream = io.BytesIO(data.lstrip(b"\r\n"))
    try:
        records = ArchiveIterator(stream, parse_http=False, stream_detect=False, max_header_len=MAX_HEADER)
        record = next(records)
        block = record.reader.read()
        length = (record.headers.get("Content-Length") or "").strip()
        if length != str(len(block)) and length.lstrip("0") != str(len(block)):
            raise RecordError(f"block has {len(block)} bytes, Content-Length says {length[:20] or 'nothing'}")
        if next(records, None) is not None:
            raise RecordError("the scan found one record here, FastWARC more")
    except StopIteration:
        raise RecordError("the scan found a record here, FastWARC none") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"FastWARC: {error}") from None
    return record, block


def _page(item: Record, block: bytes, limit: int) -> Record:
    """The HTTP message in `block`. Some writers left out the status line, or all headers: then they are unknown."""
    headers, end = HeaderMap("latin1"), 0
    has_status = block.startswith(b"HTTP/")
    if has_status or _HEADER_LINE.match(block):
        try:
            end = headers.parse(io.BytesIO(block[:MAX_HEADER]), has_status)
        except (OSError, ValueError) as error:
            raise RecordError(f"HTTP header: {error}") from None
    try:
        body = decode_body(headers, block[end:], limit)
    except BodyError as error:
        raise RecordError(str(error)) from None
    status = headers.status_code if has_status else None
    typed = _typed(item, headers.get("Content-Type") or "")
    return typed._replace(kind="page", payload=body, http_status=status)


def _typed(item: Record, declared: str) -> Record:
    charset = _CHARSET.search(declared)
    media = declared.split(";")[0].strip().lower()
    return item._replace(content_type=media or None, charset=charset.group(1) if charset else None)


def _text(block: bytes) -> str:
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"text is not UTF-8: byte {error.start} of the block ({error.reason})") from None


def _bare(value: str | None) -> str | None:
    """Without the angle brackets that ids have and that old wget put around URLs; blank is absent."""
    return (value or "").strip().removeprefix("<").removesuffix(">") or None


def _verify(declared: str | None, block: bytes) -> None:
    """Digests are `algorithm:value`, value in hex or base32. Unknown algorithms are not checked."""
    name, _, value = (declared or "").partition(":")
    name, value = name.strip().lower().replace("-", ""), value.strip()
    if name not in _SIZES:
        return
    found = hashlib.new(name, block, usedforsecurity=False).digest()
    if value.lower() != found.hex() and value.upper().rstrip("=") != base64.b32encode(found).decode().rstrip("="):
        raise RecordError(f"WARC-Block-Digest ({name}) is not that of the block")
