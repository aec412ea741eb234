"""ARC, the Internet Archive's format before WARC, in which Common Crawl's crawls up to 2012 lie (archive.org/web/
researcher/ArcFileFormat.php): a line `URL IP date type length`, that many bytes, a newline. Version 2 has five more
fields before the length; both are read.

URLs with blanks in them were written as they came, so a line is read from its address and date outwards. A record has
no id of its own: its date and the digest of its block are it, so that a recompressed copy stays the same record.
"""

from __future__ import annotations

import hashlib
import re

from gristmill.stages.containers.archives.http_page import http_page, typed
from gristmill.stages.containers.block_cut import MAX_HEADER, BlockCut, Header
from gristmill.stages.containers.dates import iso_date
from gristmill.stages.containers.record import ReadConfig, Record, RecordError
from gristmill.stages.containers.sequential import Sequential

SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,31}:")
LONGEST_SCHEME = 33
ADDRESS_AND_DATE = re.compile(rb" [0-9A-Fa-f.:]{2,45} \d{12,17} ")
_FIRST_LINE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\r\n]{1,400} [0-9A-Fa-f.:]{2,45} \d{12,17} ")


class ArcCut(BlockCut):
    """The cutter of ARC. It knows of a line that it has a scheme, an address with a date, and a length at its end."""

    format = "ARC"
    length_name = "length"
    next_record = re.compile(
        rb"\n[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s]{1,2048} [0-9A-Fa-f.:]{2,45} \d{12,17} [^\r\n]{1,256} \d{1,18}\r{0,2}\n"
    )
    next_lead = b"\n"
    lookahead = 2500

    @staticmethod
    def begins(data: bytes) -> bool:
        """Whether a scheme stands there."""
        return SCHEME.match(data.lstrip(b"\r\n")) is not None

    def _header(self, first: int) -> Header | str | None:
        follows = self._has_scheme(first)
        if not follows:
            return "no ARC record starts here" if follows is False else None
        searched = max(first, self._searched - self._pos)  # without a newline when fewer bytes were at hand
        newline = self._buf.find(b"\n", searched, first + MAX_HEADER)
        if newline < 0:
            self._searched = self._pos + len(self._buf)
            return None if len(self._buf) - first < MAX_HEADER else f"header is longer than {MAX_HEADER} bytes"
        line = bytes(self._buf[first:newline]).rstrip()
        if not ADDRESS_AND_DATE.search(line):
            return "no ARC record starts here"
        length = line.rpartition(b" ")[2]
        if not re.fullmatch(rb"\d{1,18}", length):
            return "length is no number in the header"
        return Header(newline + 1, int(length))

    def _follows(self) -> bool | None:
        return self._has_scheme(self._at)

    def _has_scheme(self, at: int) -> bool | None:
        start = bytes(self._buf[at : at + LONGEST_SCHEME])
        if SCHEME.match(start):
            return True
        may_become_scheme = len(start) < LONGEST_SCHEME and re.fullmatch(rb"([A-Za-z][A-Za-z0-9+.-]{0,31})?", start)
        return None if may_become_scheme else False


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """`data`: the span. Pages are the bodies of HTTP responses; what is no HTTP is "other". Raises RecordError."""
    line, _, rest = data.lstrip(b"\r\n").partition(b"\n")
    url, date, fields = _fields(line.rstrip(b"\r"))
    size = int(fields[-1])
    block = rest[:size]
    if len(block) < size or rest[size:].strip(b"\r\n"):
        raise RecordError(f"block has {len(rest.rstrip())} bytes, its length says {size}", url=url)
    is_http = url.lower().startswith("http")
    record_type = "response" if is_http else "filedesc" if url.startswith("filedesc:") else "unknown"
    identity = b"arc\0" + date.encode() + b"\0" + hashlib.sha256(block).digest()
    item = empty._replace(record_type=record_type, url=url, date=_iso(date), identity=identity)
    if not is_http:
        return typed(item, fields[0])._replace(payload=block)
    try:
        page = http_page(item, block, config.max_record_bytes)
    except RecordError as error:
        error.url = url
        raise
    if page.content_type is None:  # the crawler noted it, where the server's head is lost
        page = page._replace(content_type=typed(item, fields[0]).content_type)
    return page


def _fields(line: bytes) -> tuple[str, str, list[str]]:
    """URL, date, and what stands behind the date: the media type first, the length last."""
    places = list(ADDRESS_AND_DATE.finditer(line))
    if not places:
        raise RecordError("the scan found a record here, the reader no header of ARC")
    place = places[-1]  # an earlier one can be a part of the URL, in which blanks stand as they came
    fields = line[place.end() :].decode("latin-1").split(" ")
    if not fields[-1].isdecimal() or len(fields[-1]) > 18:
        raise RecordError("length is no number in the header")
    return _text(line[: place.start()]), place.group().split()[1].decode(), fields


def _text(url: bytes) -> str:
    try:
        return url.decode()
    except UnicodeDecodeError:
        return url.decode("latin-1")


def _iso(digits: str) -> str | None:
    """Of 14 digits; there are writers that left out the seconds, or added milliseconds."""
    return iso_date(int(digits[:14].ljust(14, "0")))


ARC = Sequential(
    name="arc",
    suffixes=(".arc",),
    begins=lambda head: _FIRST_LINE.match(head.lstrip(b"\r\n")) is not None,
    member_begins=ArcCut.begins,
    cut=ArcCut,
    parse=parse,
    parse_row=parse,
)
