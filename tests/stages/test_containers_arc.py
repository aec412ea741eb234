"""ARC: lines as crawlers wrote them, damage that stays where it is, and a record that is itself in any file."""

from __future__ import annotations

import hashlib

import pytest
from warc_files import arc_record, errors, gz, http, members, plain, read_bytes, scan_bytes, zst

from gristmill.stages.containers import ReadConfig, Record, Unreadable

PAGES = [arc_record(http(b"<p>%d</p>" % n), number=n) for n in range(4)]


def pages(data: bytes) -> list[bytes]:
    return [item.payload for item in read_bytes(data, "arc") if isinstance(item, Record)]


def only(data: bytes, config: ReadConfig | None = None) -> Record | Unreadable:
    (item,) = read_bytes(data, "arc", config)
    return item


@pytest.mark.parametrize("pack", [plain, gz, zst])
def test_a_page_is_that_of_a_warc(pack) -> None:
    item = only(pack(PAGES[3]))
    assert isinstance(item, Record)
    assert (item.kind, item.record_type, item.http_status) == ("page", "response", 200)
    assert (item.url, item.date) == ("http://a.example/3", "2008-04-30T20:48:25Z")
    assert (item.content_type, item.charset, item.payload) == ("text/html", "utf-8", b"<p>3</p>")
    block = http(b"<p>3</p>")
    assert item.identity == b"arc\x0020080430204825\0" + hashlib.sha256(block).digest()
    assert read_bytes(members(PAGES, pack), "arc")[3].identity == item.identity


@pytest.mark.parametrize(
    ("line", "url", "date", "media_type"),
    [
        ("http://a/ 10.0.0.1 20080430204825 text/html", "http://a/", "2008-04-30T20:48:25Z", "text/html"),
        ("http://a/b c?d e 10.0.0.1 20080430204825 text/html", "http://a/b c?d e", "2008-04-30T20:48:25Z", "text/html"),
        ("http://a/ ::1 20080430204825 text/html; charset=x", "http://a/", "2008-04-30T20:48:25Z", "text/html"),
        (
            "http://a/ 1.1.1.1 20080430204825 text/html 200 - - 17 a.arc",
            "http://a/",
            "2008-04-30T20:48:25Z",
            "text/html",
        ),
        ("http://a/ 1.1.1.1 200804302048 no-type", "http://a/", "2008-04-30T20:48:00Z", None),
        ("http://a/ 1.1.1.1 20081399999999 text/html", "http://a/", None, "text/html"),
    ],
)
def test_lines_as_crawlers_wrote_them(line, url, date, media_type) -> None:
    item = only(f"{line} 9\n\r\n<p>a</p>\n".replace(" 9\n", " 10\n").encode())
    assert isinstance(item, Record), item
    assert (item.url, item.date, item.content_type) == (url, date, media_type)
    assert item.kind == ("page" if url.startswith("http") else "other")


@pytest.mark.parametrize(
    ("url", "record_type"), [("filedesc://a.arc", "filedesc"), ("dns:a.example", "unknown"), ("ftp://a/b", "unknown")]
)
def test_what_is_no_http_is_no_page(url, record_type) -> None:
    item = only(f"{url} 0.0.0.0 20080430204825 text/plain 3\nabc\n".encode())
    assert (item.kind, item.record_type, item.payload) == ("other", record_type, b"abc")


def test_damage_stays_where_it_is() -> None:
    bad = b"http://a.example/x 10.0.0.1 20080430204825 text/html -1\nabc\n"
    data = PAGES[0] + bad + PAGES[1]
    assert [bool(error) for error in errors(data, "arc")] == [False, True, False]
    assert pages(data) == [b"<p>0</p>", b"<p>1</p>"]


def test_a_length_that_runs_over_swallows_nothing() -> None:
    data = PAGES[0] + arc_record(b"short", length=10**6) + b"".join(PAGES[1:])
    spans = scan_bytes(data, "arc").spans
    assert "runs past the next record" in spans["error"][1].as_py()
    assert len(pages(data)) == 4


def test_a_length_that_is_too_small_is_found() -> None:
    data = PAGES[0] + arc_record(b"longer", length=3) + PAGES[1]
    assert "length 3 does not end where the record does" in errors(data, "arc")[1]
    assert len(pages(data)) == 2


def test_a_damaged_member_costs_itself() -> None:
    packed = [gz(data) for data in PAGES]
    packed[1] = packed[1][:-6] + b"zzzzzz"
    assert pages(b"".join(packed)) == [b"<p>0</p>", b"<p>2</p>", b"<p>3</p>"]


def test_a_cut_file_keeps_its_whole_records() -> None:
    data = b"".join(PAGES)
    assert len(pages(data[:-12])) == 3 and "cut off" in errors(data[:-12], "arc")[-1]


def test_a_record_that_is_too_long_is_not_read() -> None:
    item = only(PAGES[0], ReadConfig(max_record_bytes=50))
    assert isinstance(item, Unreadable) and "max_record_bytes=50" in item.error
