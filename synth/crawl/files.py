"""The files of the demo crawl: pages become records, records become bytes and rows of truth. Notable choices:

- a container is built in memory and its truth beside it, so an ordinal is the position by construction;
- request, metadata and revisit records stand among the responses, as crawlers leave them;
- the damaged container is a file of its own: the others stay intact.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from gristmill.synth.articles import article
from gristmill.synth.crawl import damage
from gristmill.synth.crawl.pages import Page, warc_id
from gristmill.synth.crawl.truth import Truth
from gristmill.synth.crawl.warc import gzip_member, http_response, record, response
from gristmill.synth.draw import Draw, uuid_of

_START = datetime(2026, 3, 2, tzinfo=UTC)
_OTHER = Truth("record", expected="other", reasons=("record_type",))
BROKEN_LINES = (
    (
        b'{"id": "x-1", "url": "https://texts.example.org/x-1", "text": "The line ends in the mid',
        "invalid JSON",
    ),
    (b'{"id": "x-2", "text": "caf\xe9 and \xff\xfe are not UTF-8"}', "invalid UTF-8"),
    (b'{"id": "x-3", "url": "https://texts.example.org/x-3", "body": "there is no text field"}', "no text"),
    (b'{"id": "x-4", "url": "https://texts.example.org/x-4", "text": 17}', "text is no string"),
    (b'["x-5", "a list, not an object"]', "not an object"),
)


def date_of(crawl: int, number: int) -> str:
    """The capture time of the number-th page of a crawl (0: the first one; a month lies between two)."""
    return (_START + timedelta(days=30 * crawl, seconds=7 * number)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Container:
    """A WARC file in the making: `raw` records, their compressed `members`, and a row of truth for each."""

    name: str
    seed: int
    intact: bool = True
    raw: list[bytes] = field(default_factory=list)
    members: list[bytes] = field(default_factory=list)
    rows: list[Truth] = field(default_factory=list)

    def add(self, raw: bytes, row: Truth, member: bytes | None = None) -> None:
        """Appends a record; `member` replaces its gzip member (damage)."""
        ordinal = len(self.rows) if self.intact else None
        self.raw.append(raw)
        self.members.append(gzip_member(raw) if member is None else member)
        self.rows.append(replace(row, file=self.name, ordinal=ordinal))

    def add_info(self, date: str) -> None:
        """The warcinfo record that opens a file."""
        ident = uuid_of("warcinfo", self.seed, self.name)
        block = b"software: grist sample-data\r\nformat: WARC File Format 1.1\r\n"
        raw = record("warcinfo", ident, date, block, "application/warc-fields")
        self.add(raw, replace(_OTHER, kind="warcinfo", warc_id=ident))

    def add_page(self, page: Page, date: str) -> None:
        """The page's response record, with the records that stand beside some responses."""
        draw, url = Draw(self.seed, "beside", page.key), str(page.truth.url)
        ident = warc_id(self.seed, page.key)
        target = (("WARC-Target-URI", url), ("WARC-Concurrent-To", f"<urn:uuid:{ident}>"))
        if draw.chance(0.06):
            host, _, path = url.partition("://")[2].partition("/")
            ask = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n".encode()
            self._beside("request", page, date, ask, "application/http; msgtype=request", target)
        self.add(page_record(self.seed, page, date), replace(page.truth, warc_id=ident))
        if draw.chance(0.06):
            self._beside("metadata", page, date, b"fetchTimeMs: 214\r\n", "application/warc-fields", target)
        if draw.chance(0.015):
            profile = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
            head = http_response(200, page.headers, b"")
            extra = (*target[:1], ("WARC-Refers-To", f"<urn:uuid:{ident}>"), ("WARC-Profile", profile))
            self._beside("revisit", page, date, head, "application/http; msgtype=response", extra)

    def _beside(
        self,
        kind: str,
        page: Page,
        date: str,
        block: bytes,
        content_type: str,
        extra: tuple[tuple[str, str], ...],
    ) -> None:
        ident = uuid_of(kind, self.seed, page.key)
        raw = record(kind, ident, date, block, content_type, extra)
        self.add(raw, replace(_OTHER, kind=kind, url=page.truth.url, warc_id=ident))

    def add_broken(self, what: str, page: Page, date: str) -> None:
        """The page's record with one kind of damage; nothing of it can be trusted."""
        raw, draw = page_record(self.seed, page, date), Draw(self.seed, "damage", what)
        member, named = gzip_member(raw), True
        if what == "flipped byte in a gzip member":
            member = damage.flip_byte(member, draw)
        elif what == "gzip member cut off at the end of the file":
            member = damage.truncate(member)
        elif what == "garbage between members":
            member, named = damage.garbage(draw), False
        else:
            delta = -40 if "small" in what else 5000
            member = gzip_member(damage.wrong_length(raw, delta))
        url, ident = (page.truth.url, warc_id(self.seed, page.key)) if named else (None, None)
        row = Truth("broken", url, "quarantined", ("unreadable",), note=what, warc_id=ident)
        self.add(raw, row, member)

    @property
    def data(self) -> bytes:
        """The file's bytes: one gzip member a record."""
        return b"".join(self.members)

    def recompressed(self, name: str) -> tuple[bytes, list[Truth]]:
        """The same records as one gzip member under another name, and their rows: all met before."""
        rows = [replace(row, file=name) for row in self.rows]
        again = [row if row.expected == "other" else same_record(row, row.warc_id) for row in rows]
        return gzip_member(b"".join(self.raw), level=9), again


def same_record(row: Truth, warc_id: str | None) -> Truth:
    """The truth about a record that stands byte for byte in another file as well."""
    reasons = ("exact", *row.reasons)
    return replace(row, kind="same_record", expected="dropped", reasons=reasons, family=warc_id, jaccard=1.0)


def page_record(seed: int, page: Page, date: str) -> bytes:
    """The WARC response record of a page."""
    headers = (*page.headers, ("Content-Length", str(len(page.body))))
    if ("Transfer-Encoding", "chunked") in headers:  # HTTP forbids both
        headers = page.headers
    http = http_response(page.status, headers, page.body)
    return response(warc_id(seed, page.key), date, str(page.truth.url), http)


def damaged(name: str, seed: int, pages: list[Page], number: int) -> Container:
    """A container with every kind of damage among good pages; needs six pages or more."""
    box = Container(name, seed, intact=False)
    box.add_info(date_of(0, number))
    whats = (
        "flipped byte in a gzip member",
        "garbage between members",
        "Content-Length too small by 40",
        "Content-Length too large by 5000",
        "gzip member cut off at the end of the file",
    )
    good, bad = pages[len(whats) :], pages[: len(whats)]
    for i, what in enumerate(whats):
        for page in good[i :: len(whats)]:
            box.add_page(page, date_of(0, number))
        box.add_broken(what, bad[i], date_of(0, number))
    return box


def jsonl(name: str, seed: int, count: int) -> tuple[bytes, list[Truth]]:
    """Texts as gzipped JSON lines, every fourth without a URL, with the broken lines spread among them."""
    lines: list[bytes] = []
    rows: list[Truth] = []
    step = max(1, count // len(BROKEN_LINES))
    for i in range(count):
        text = article("en", Draw(seed, "jsonl", i))
        url = None if i % 4 == 3 else f"https://texts.example.org/item/{i}"
        item = {"id": f"text-{i}", "url": url, "text": text.text, "date": date_of(0, i)}
        item = {key: value for key, value in item.items() if value is not None}
        words = len(text.text.split())
        lines.append(json.dumps(item, ensure_ascii=False).encode())
        rows.append(Truth("text", url, language="en", words=words, note=f"id text-{i}"))
        if i % step == step - 1 and i // step < len(BROKEN_LINES):
            broken, what = BROKEN_LINES[i // step]
            lines.append(broken)
            rows.append(Truth("broken", None, "quarantined", ("unreadable",), note=what))
    rows = [replace(row, file=name, ordinal=i) for i, row in enumerate(rows)]
    return gzip_member(b"".join(line + b"\n" for line in lines)), rows
