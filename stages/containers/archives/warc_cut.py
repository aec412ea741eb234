"""WarcCut: where WARC records begin and end, without saying what they are (WARC 1.1, ISO 28500, section 4).

A record is `WARC/x.y`, headers, a blank line, Content-Length bytes, and all newlines that follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gristmill.stages.containers.block_cut import MAX_HEADER, BlockCut, Header

LOOKAHEAD = 96  # bytes
MAGIC = re.compile(rb"WARC/\d{1,3}\.\d{1,3}[ \t]{0,32}\r{0,2}\n")
BLANK_LINE = re.compile(rb"\n[ \t]{0,32}\r{0,2}\n")


class WarcCut(BlockCut):
    """The cutter of WARC, WET and WAT."""

    format = "WARC"
    length_name = "Content-Length"
    next_record = re.compile(rb"\nWARC/\d\.\d{1,3}\r{0,2}\n[A-Za-z][A-Za-z-]{0,39}[ \t]{0,8}:")
    next_lead = b"\nWARC/"
    lookahead = LOOKAHEAD

    @staticmethod
    def begins(data: bytes) -> bool:
        """Whether `WARC/` stands there, newlines before it or not."""
        return re.match(rb"[\r\n]{0,65536}WARC/\d", data) is not None

    def _header(self, first: int) -> Header | str | None:
        left = len(self._buf) - first
        magic = MAGIC.match(self._buf, first)
        if magic is None:
            start = bytes(self._buf[first : first + LOOKAHEAD])
            if self._gap < MAX_HEADER and left < LOOKAHEAD and _may_become_magic(start):
                return None
            return "no WARC record starts here"
        # What was searched for the blank line when fewer bytes were at hand is not searched again: pieces can be of a
        # byte each, and searching from the top at each would be quadratic.
        searched = max(magic.end() - 1, self._searched - self._pos)
        blank = BLANK_LINE.search(self._buf, searched, first + MAX_HEADER)
        if blank is None:
            self._searched = self._pos + max(searched, len(self._buf) - LOOKAHEAD)
            return None if left < MAX_HEADER else f"header is longer than {MAX_HEADER} bytes"
        # Of two lengths that differ either can be the one that the writer meant: such a header has none.
        lengths = set(_content_lengths(bytes(self._buf[magic.end() : blank.start()])))
        length = lengths.pop() if len(lengths) == 1 else b""
        if not re.fullmatch(rb"\d{1,18}", length):
            fault = "Content-Length is no number" if length else "no one Content-Length"
            return f"{fault} in the header"
        return Header(blank.end(), int(length))

    def _follows(self) -> bool | None:
        following = self._buf[self._at : self._at + 5]
        if len(following) < 5 and b"WARC/".startswith(following):
            return None
        return following == b"WARC/"


def _content_lengths(header: bytes) -> Iterator[bytes]:
    """Every value of Content-Length; a line that begins with a blank goes on with the one before."""
    value: bytes | None = None
    for line in header.split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            value = None if value is None else value + b" " + line.strip()
            continue
        if value is not None:
            yield value.strip()
        name, colon, rest = line.partition(b":")
        value = rest.strip() if colon and name.strip().lower() == b"content-length" else None
    if value is not None:
        yield value.strip()


def _may_become_magic(data: bytes) -> bool:
    return b"WARC/"[: len(data)] == data[:5] and b"\n" not in data
