"""Heads of records as tools write them, not as standards do: what warcio 1.8 reads is read, or the reason says why not.

The expected values are those of warcio where it reads the record; where it does not, what a person would read.
"""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
from warc_files import gz, http, plain, read_bytes, read_record, record, zst

from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.stages.containers import Record, Unreadable
from gristmill.stages.containers.archives.http_head import MAX_HEAD, NO_HEAD, HeadError, parse_head
from gristmill.stages.text.extract import Extract

BODY = b"<html><p>" + b"hello world " * 50 + b"</p></html>"
TYPED = b"Content-Type: text/html"


def with_ends(data: bytes, ends: list[bytes]) -> bytes:
    """The header of a record with its lines ended by `ends` in turn; the block stays as it is."""
    head, _, block = data.partition(b"\r\n\r\n")
    lines = [*head.split(b"\r\n"), b""]
    return b"".join(text + ends[n % len(ends)] for n, text in enumerate(lines)) + block


ENDS = [
    [b"\n"],
    [b"\r\n"],
    [b"\r\r\n"],
    [b"\n", b"\r\n"],
    [b"\r\n", b"\n"],
    [b"\r\n"] * 7 + [b"\n"],
    [b"\n"] * 7 + [b"\r\n"],
]


@pytest.mark.parametrize("pack", [plain, gz, zst])
@pytest.mark.parametrize("ends", ENDS)
def test_lines_of_a_warc_header_may_end_in_any_way(ends, pack) -> None:
    for end in (b"\r\n\r\n", b"\n\n", b"\r\r\n\r\r\n", b"\n"):
        pages = [with_ends(record(http(BODY), number=n, end=end), ends) for n in range(3)]
        items = read_bytes(b"".join(pack(data) for data in pages))
        assert [(i.warc_id, i.payload, i.url) for i in items if isinstance(i, Record)] == [
            (f"urn:uuid:{n}", BODY, "http://a.example/") for n in range(3)
        ]


@pytest.mark.parametrize("pack", [plain, gz, zst])
@pytest.mark.parametrize("spelling", [bytes.lower, bytes.upper, lambda name: name + b" "])
def test_names_of_warc_fields_may_be_spelled_in_any_way(spelling, pack) -> None:
    for name in (b"WARC-Type", b"WARC-Target-URI", b"WARC-Record-ID", b"WARC-Date", b"Content-Type", b"Content-Length"):
        pages = [record(http(BODY), number=n).replace(name + b":", spelling(name) + b":", 1) for n in range(2)]
        items = read_bytes(b"".join(pack(data) for data in pages))
        assert [(i.warc_id, i.payload, i.url) for i in items if isinstance(i, Record)] == [
            (f"urn:uuid:{n}", BODY, "http://a.example/") for n in range(2)
        ], name


def test_line_ends_change_no_identity_and_never_the_block() -> None:
    data = record(b"\n\n\r\r\n a: b\n", kind="metadata", content_type="text/plain")
    items = [read_record(with_ends(data, ends)) for ends in ENDS]
    assert len({(item.identity, item.payload) for item in items}) == 1


@pytest.mark.parametrize(
    ("head", "status", "media"),
    [
        (b"HTTPX/1.1 200\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTPX/1.1 404 No\r\n" + TYPED + b"\r\n\r\n", 404, "text/html"),
        (b"http/1.1 200 OK\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1 200\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1\t200\tOK\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1  200  OK\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTP/2 200\r\ncontent-type: text/html\r\n\r\n", 200, "text/html"),
        (b"ICY 200 OK\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"200 OK\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1\r\n" + TYPED + b"\r\n\r\n", None, "text/html"),
        (b"HTTP/1.1 OK\r\n" + TYPED + b"\r\n\r\n", None, "text/html"),
        (b"no status at all\r\n" + TYPED + b"\r\n\r\n", None, "text/html"),
        (TYPED + b"\r\nServer: x\r\n\r\n", None, "text/html"),
        (b"\r\nHTTP/1.1 200 OK\r\n" + TYPED + b"\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Type:\r\n text/html\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Type : text/html\r\n\r\n", 200, "text/html"),
        (b"HTTP/1.1 200 OK\r\n" + TYPED + b"\r\n  \r\n", 200, "text/html"),
        (b"HTTP/1.1 200 OK\r\n" + TYPED + b"\r\n", 200, "text/html"),  # and no blank line
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, None),
        (b"", None, None),
    ],
)
def test_heads(head, status, media) -> None:
    for ends in ([b"\r\n"], [b"\n"], [b"\r\r\n"], [b"\r\n", b"\n"]):
        lines = head.split(b"\r\n")
        varied = b"".join(text + ends[n % len(ends)] for n, text in enumerate(lines[:-1])) + lines[-1]
        item = read_record(record(varied + BODY))
        assert (item.kind, item.http_status, item.content_type, item.payload) == ("page", status, media, BODY)


@pytest.mark.parametrize(
    "body",
    [
        b"Dear all,\nthis is text: no head\n\nfoo",
        b"http://a.example/ is a page\n\nfoo",
        b"Note: some text\nand more of it\n\nfoo",
        b'{"a": 1}\nb: c\n\n',
        b"HTTP is a protocol\n\nfoo",
        b"\n\nfoo",
    ],
)
def test_a_body_without_a_head_is_not_taken_for_one(body) -> None:
    assert parse_head(body) is NO_HEAD


def test_a_head_is_bounded_and_its_fields_are_lists() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nTE: a, b\r\nTE: C\r\nX: 1\r\nX: 2\r\n\r\nbody")
    assert (head.listed("te"), head.first("x"), head.end) == (["a", "b", "c"], "1", 48)
    with pytest.raises(HeadError, match=f"longer than {MAX_HEAD} bytes"):
        parse_head(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEAD)
    (item,) = read_bytes(record(b"HTTP/1.1 200 OK\r\n" + b"Set-Cookie: secret\r\n" * 5000 + b"\r\n" + BODY))
    assert isinstance(item, Unreadable) and "HTTP header is longer" in item.error and "secret" not in item.error


# What enters a ledger

SECRET = "http://users.example/~anna.muster/?login=anna"


@pytest.mark.parametrize(
    "data",
    [
        record(http(BODY), kind=SECRET),
        record(http(BODY), kind=f"response\nwarc-target-uri: {SECRET}"),
        record(BODY, kind="resource", content_type=SECRET),
        record(http(BODY, status=f"HTTP/1.1 {SECRET}"), length=SECRET),
        record(http(b"x", f"Content-Type: {SECRET}", status="HTTP/1.1 200 OK").replace(b"text/html", b"image/png")),
        record(http(BODY), extra=f"WARC-Truncated: {SECRET}\r\n"),
        record(http(BODY, f"Content-Encoding: {SECRET}", f"Transfer-Encoding: {SECRET}", f"Content-Length: {SECRET}")),
        record(http(gzip.compress(BODY)[:-3] + SECRET.encode() * 9, "Content-Encoding: gzip")),
        record(SECRET.encode() + b"\xff", kind="conversion", content_type="text/plain"),
    ],
)
@pytest.mark.parametrize("nl", [b"\r\n", b"\n"])
def test_no_value_of_a_ledger_holds_an_address_or_a_header(data, nl, tmp_path) -> None:
    from gristmill.pipelines.frame.run import run_pipeline
    from gristmill.pipelines.web import WebConfig
    from gristmill.stages.run.runner import Runner

    path = tmp_path / "a.warc"
    path.write_bytes(data.replace(b"\r\n", nl))
    store = open_store(str(tmp_path / "lake"))
    kept = {"allow_empty": True, "unreadable_files": "quarantine", "max_quarantine_rate": 1.0}
    recipe = {"inputs": [str(path)], **kept}
    manifest = run_pipeline(WebConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest
    values = [v for ref in manifest.ledgers for v in read_table(store, ref)["value"].to_pylist()]
    assert len(values) == manifest.received.count >= 1
    assert not [v for v in values if v and ("anna" in v or "users.example" in v or "login" in v)], values


# Bodies whose end is missing


def chunked(body: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[n : n + 100] for n in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + last


CHUNKED = "Transfer-Encoding: chunked"
SQUEEZED = gzip.compress(BODY, mtime=0)
CUT = [
    (record(http(BODY), extra="WARC-Truncated: length\r\n"), "WARC-Truncated: length"),
    (record(http(BODY), extra="warc-truncated:  Time \r\n"), "WARC-Truncated: time"),
    (record(http(BODY), extra="WARC-Truncated: whatever\r\n"), "WARC-Truncated: unspecified"),
    (record(http(BODY, f"Content-Length: {len(BODY) + 1}")), f"Content-Length: {len(BODY)} of {len(BODY) + 1} bytes"),
    (record(http(chunked(BODY)[:-7], CHUNKED)), "chunked body is cut off"),
    (record(http(chunked(BODY, b""), CHUNKED)), "chunked body is cut off before its last chunk"),
    (record(http(chunked(BODY, b"zz\r\n"), CHUNKED)), "chunked body breaks off"),
    (record(http(SQUEEZED[:-9], "Content-Encoding: gzip")), "content-encoding gzip: the body is cut off"),
    (record(http(zlib.compress(BODY)[:-5], "Content-Encoding: deflate")), "content-encoding deflate: the body is cut"),
    (record(http(zst(BODY)[:-1], "Content-Encoding: zstd")), "content-encoding zstd: the body is cut off"),
    (record(http(brotli.compress(BODY)[:-1], "Content-Encoding: br")), "content-encoding br: the body is cut off"),
    (record(http(chunked(SQUEEZED)[:-9], CHUNKED, "Content-Encoding: gzip")), "chunked body is cut off"),
]
WHOLE = [
    record(http(BODY, f"Content-Length: {len(BODY)}")),
    record(http(BODY, "Content-Length: 5")),  # decoded since
    record(http(b"<p>a</p>", "Content-Length: 50", "Content-Encoding: gzip")),  # decoded since, and so shorter
    record(http(BODY, "Content-Length: 99999", "Content-Length: 5")),
    record(http(BODY, "Content-Length: many")),
    record(http(chunked(BODY), CHUNKED, "Content-Length: 99999")),  # RFC 9112, 6.3
    record(http(BODY, CHUNKED)),  # decoded since
    record(http(SQUEEZED, "Content-Encoding: gzip", f"Content-Length: {len(SQUEEZED)}")),
]


@pytest.mark.parametrize(("data", "mark"), CUT)
def test_a_body_whose_end_is_missing_is_marked(data, mark) -> None:
    item = read_record(data)
    assert item.truncated is not None and item.truncated.startswith(mark)
    text = Extract().judge(item)
    assert (text.text, text.reason, text.value) == (None, "read.truncated", item.truncated)
    kept = Extract(truncated="keep").judge(item)
    assert kept.text if item.payload else kept.reason == "read.empty_body"


@pytest.mark.parametrize("data", WHOLE)
def test_a_whole_body_is_not(data) -> None:
    item = read_record(data)
    assert item.truncated is None and Extract().judge(item).text is not None


def test_what_is_no_page_is_not_called_truncated() -> None:
    for block, reason in ((http(b"x" * 9, "Content-Length: 99", status="HTTP/1.1 404 No"), "read.http_status"),):
        assert Extract().judge(read_record(record(block))).reason == reason
    image = http(b"\x89PNG", "Content-Length: 99").replace(b"text/html; charset=utf-8", b"image/png")
    assert Extract().judge(read_record(record(image))).reason == "read.not_html"
    request = record(b"", kind="request", extra="WARC-Truncated: time\r\n")
    assert Extract().judge(read_record(request)).reason == "read.not_a_page"


def test_a_truncated_page_that_is_kept_is_marked_in_the_ledger(tmp_path) -> None:
    from gristmill.pipelines.frame.run import run_pipeline
    from gristmill.pipelines.web import WebConfig
    from gristmill.stages.run.runner import Runner

    text = "The mill by the river is old and of stone, and it grinds the corn that the people have brought with them. "
    prose = "".join(f"<p>{text}{n}</p>" for n in range(9)).encode()
    path = tmp_path / "a.warc"
    pages = [record(http(prose), number=1, url="http://a.example/1")]
    pages.append(record(http(prose + b"<p>and more</p>"), number=2, extra="WARC-Truncated: length\r\n"))
    path.write_bytes(b"".join(pages))
    store = open_store(str(tmp_path / "lake"))
    fates = {}
    for truncated in ("drop", "keep"):
        recipe = {"inputs": [str(path)], "extract": {"truncated": truncated}, "minhash": None}
        manifest = run_pipeline(WebConfig.model_validate({"recipe": recipe}), store, Runner(store, workers=0)).manifest
        rows = [row for ref in manifest.ledgers for row in read_table(store, ref).to_pylist()]
        fates[truncated] = {row["ordinal"]: (row["fate"], row["reason"], row["value"]) for row in rows}
    assert fates["drop"][1] == ("dropped", "read.truncated", "WARC-Truncated: length")
    assert fates["keep"][1] == ("kept", None, "truncated, WARC-Truncated: length")
    assert fates["keep"][0] == fates["drop"][0] == ("kept", None, None)
