"""Reading: one item a span, bodies as a browser has them, faults named without quoting the text."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import zlib

import pyarrow as pa
import pytest
from fastwarc.stream_io import BrotliWriter
from warc_files import (
    file_opener,
    gz,
    http,
    members,
    opener,
    page,
    plain,
    read_bytes,
    read_fault,
    read_record,
    record,
    scan_bytes,
    zst,
)

from gristmill.stages.containers import ReadConfig, Record, Unreadable, read, scan
from gristmill.stages.containers.archives import warc
from gristmill.stages.containers.archives.http_body import unchunk

BODY = b"<html><p>" + b"hello world " * 50 + b"</p></html>"


def test_page() -> None:
    block = http(BODY, "X: y")
    item = read_record(gz(record(block, number=3, url="http://a.example/ä?q")))
    assert (item.kind, item.record_type, item.http_status) == ("page", "response", 200)
    assert (item.url, item.warc_id, item.date) == ("http://a.example/ä?q", "urn:uuid:3", "2024-05-06T07:08:09Z")
    assert (item.content_type, item.charset, item.payload) == ("text/html", "utf-8", BODY)
    assert item.identity == b"warc\0urn:uuid:3\0" + hashlib.sha256(block).digest()
    assert item.source_key == item.url and item.text is None


def test_identity_is_of_the_record_not_of_the_file() -> None:
    first, other = record(http(b"a"), number=1), record(http(b"b"), number=1)
    a = read_record(gz(first)).identity
    assert a == read_record(zst(first)).identity == read_bytes(other + first)[1].identity
    assert a != read_record(other).identity  # two records under one id
    nameless = first.replace(b"WARC-Record-ID: <urn:uuid:1>\r\n", b"")
    assert read_record(nameless).identity is None


@pytest.mark.parametrize("kind", ["request", "revisit", "metadata", "warcinfo", "continuation"])
def test_other_records(kind) -> None:
    item = read_record(record(b"a: b\r\n", kind=kind, content_type="application/warc-fields"))
    assert (item.kind, item.record_type, item.payload) == ("other", kind, b"a: b\r\n")


def test_dns_response_is_no_page() -> None:
    assert read_record(record(b"20080430\n", url="dns:a.example", content_type="text/dns")).kind == "other"


def test_resource_and_conversion() -> None:
    item = read_record(record(BODY, kind="resource", content_type="Text/HTML; Charset='koi8-r'"))
    assert (item.kind, item.payload, item.content_type, item.charset) == ("page", BODY, "text/html", "koi8-r")
    item = read_record(record("grüße".encode(), kind="conversion", content_type="text/plain"))
    assert (item.kind, item.text) == ("text", "grüße")
    bad = read_fault(record(b"ab\xffsecret", kind="conversion", content_type="text/plain"))
    assert "byte 2" in bad.error and "secret" not in bad.error and bad.url == "http://a.example/"


def test_without_status_line_or_headers() -> None:
    item = read_record(record(http(BODY, status="")))
    assert (item.http_status, item.payload, item.content_type) == (None, BODY, "text/html")
    item = read_record(record(BODY))
    assert (item.http_status, item.payload, item.content_type) == (None, BODY, None)


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def brotli(data: bytes) -> bytes:
    out = io.BytesIO()
    writer = BrotliWriter(out)
    writer.write(data)
    writer.close()
    return out.getvalue()


def raw_deflate(data: bytes) -> bytes:
    squeezer = zlib.compressobj(wbits=-15)
    return squeezer.compress(data) + squeezer.flush()


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("br", brotli),
        ("zstd", zst),
        ("identity", plain),
        ("no-such-coding", plain),
    ],
)
@pytest.mark.parametrize("chunked", [True, False])
def test_codings(coding, encode, chunked) -> None:
    body = chunks(encode(BODY), 37) if chunked else encode(BODY)
    headers = [f"Content-Encoding: {coding}", *(["Transfer-Encoding: chunked"] if chunked else [])]
    assert read_record(record(http(body, *headers))).payload == BODY


def test_two_codings() -> None:
    assert read_record(record(http(brotli(gzip.compress(BODY)), "Content-Encoding: gzip, br"))).payload == BODY


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_headers_kept_over_a_decoded_body(coding) -> None:
    headers = (f"Content-Encoding: {coding}", "Transfer-Encoding: chunked")
    assert read_record(record(http(BODY, *headers))).payload == BODY


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli)])
def test_bomb(coding, encode) -> None:
    data = record(http(encode(bytes(1_000_000)), f"Content-Encoding: {coding}"))
    assert "max_record_bytes=99999" in read_fault(data, config=ReadConfig(max_record_bytes=99_999)).error
    assert len(read_record(data, config=ReadConfig(max_record_bytes=1_000_000)).payload) == 1_000_000


def test_damaged_content_encoding() -> None:
    whole = bytearray(gzip.compress(BODY))
    assert BODY.startswith(read_record(record(http(bytes(whole[:40]), "Content-Encoding: gzip"))).payload)
    whole[15:25] = b"\xff" * 10
    bad = read_fault(record(http(bytes(whole), "Content-Encoding: gzip"), number=8))
    assert bad.error.startswith("content-encoding gzip: ") and bad.warc_id == "urn:uuid:8"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\nhello\n0\n\n", b"hello"),
        (b"<p>no chunks", b"<p>no chunks"),
        (b"5\r\nhello\r\nff\r\nwor", b"hellowor"),
        (b"5\r\nhello\r\nzz\r\nwor", b"hello"),
        (b"0\r\n\r\n", b""),
        (b"", b""),
    ],
)
def test_unchunk(body, expected) -> None:
    assert unchunk(body).data == expected


def test_long_record_is_skipped_and_named() -> None:
    items = read_bytes(
        page(1) + record(http(bytes(5000)), number=2) + page(3), config=ReadConfig(max_record_bytes=4000)
    )
    assert [type(item) for item in items] == [Record, Unreadable, Record]
    assert "max_record_bytes=4000" in items[1].error


def test_block_digest() -> None:
    block = http(BODY)
    for name in ("sha1", "sha256", "md5"):
        digest = hashlib.new(name, block).digest()
        for value in (digest.hex(), base64.b32encode(digest).decode(), base64.b32encode(digest).decode().strip("=")):
            data = record(block, extra=f"WARC-Block-Digest: {name}:{value}\r\n")
            assert read_record(data, config=ReadConfig(verify_digests=True)).payload == BODY
    wrong = record(block, extra="WARC-Block-Digest: sha1:" + "A" * 32 + "\r\n")
    assert read_record(wrong).payload == BODY
    assert "Block-Digest" in read_fault(wrong, config=ReadConfig(verify_digests=True)).error


def test_scan_and_reader_can_disagree() -> None:
    data = page(1) + page(2)
    spans = scan_bytes(data).spans
    joined = spans.slice(0, 1).set_column(2, spans.schema.field("length"), pa.array([len(data)]))
    (item,) = read_bytes(data, spans=joined)
    assert isinstance(item, Unreadable) and "FastWARC more" in item.error
    short = spans.slice(0, 1).set_column(2, spans.schema.field("length"), pa.array([len(page(1)) - 20]))
    (item,) = read_bytes(data, spans=short)
    assert isinstance(item, Unreadable) and "Content-Length" in item.error


def test_another_file_than_the_one_scanned() -> None:
    spans = scan_bytes(members([page(1), page(2)])).spans
    with pytest.raises(OSError, match="scan it again"):
        read_bytes(gz(page(1)), spans=spans)
    with pytest.raises(OSError, match="scan it again"):
        read_bytes(bytes(2000), spans=spans)


def test_a_panic_of_the_parser_costs_one_record(monkeypatch) -> None:
    class PanicException(BaseException):
        """As pyo3 makes it: no Exception."""

    def fragile(stream, iterator=warc.ArchiveIterator, **options):
        if b"<urn:uuid:1>" in stream.getvalue():
            raise PanicException("Failed to create decoder")
        return iterator(stream, **options)

    monkeypatch.setattr(warc, "ArchiveIterator", fragile)
    items = read_bytes(b"".join(page(n) for n in range(3)))
    assert [isinstance(item, Unreadable) for item in items] == [False, True, False]
    assert items[1].error == "the parser of this record panicked"
    monkeypatch.setattr(warc, "ArchiveIterator", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        read_bytes(page(0))


def test_one_open_a_slice() -> None:
    data, opened = members([page(n) for n in range(9)]), []

    def open_at(offset: int):
        opened.append(offset)
        return io.BytesIO(data[offset:])

    spans = scan_bytes(data).spans
    items = list(read(open_at, spans.slice(4, 4), "warc", ReadConfig()))
    assert [item.warc_id for item in items] == [f"urn:uuid:{n}" for n in range(4, 8)]
    assert opened == [spans["c_start"][4].as_py()]
    bare = spans.replace_schema_metadata(None)
    assert list(read(open_at, bare.slice(4, 4), "warc", ReadConfig())) == items


@pytest.mark.parametrize("wrong", [{"max_record_bytes": 0}, {"text": ""}, {"text": "url"}])
def test_config_is_checked(wrong) -> None:
    with pytest.raises(ValueError):
        ReadConfig(**wrong)


def test_whole_file_of_pages(shared_data) -> None:
    path = shared_data / "2_pages" / "pages.warc.gz"
    with path.open("rb") as stream:
        spans = scan(stream, "warc").spans
    items = list(read(file_opener(path), spans, "warc", ReadConfig(verify_digests=True)))
    assert [item.kind for item in items] == ["other"] + ["page"] * 298
    assert list(read(file_opener(path), spans.slice(100, 50), "warc", ReadConfig())) == items[100:150]


def test_unknown_kind_is_a_callers_error() -> None:
    with pytest.raises(ValueError, match="kind="):
        list(read(opener(b""), scan_bytes(b"").spans, "csv", ReadConfig()))
