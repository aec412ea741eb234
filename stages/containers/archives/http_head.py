"""HTTP heads as archives hold them: a status line of some form, header lines, a blank line.

As lenient as warcio, with which it is compared record by record: lines may end in CRLF, LF or CR CR LF, the status
text, the code or the whole status line may be missing, a line without a colon is passed over. What is no head at all
(there are writers that left out the headers) is taken for the body. Every byte of at most MAX_HEAD is read a bounded
number of times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_HEAD = 64 << 10
_STATUS_LINE = re.compile(rb"HTTP[A-Z]{0,8}[/ ]? ?\d|HTTP/", re.IGNORECASE)
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}[ \t]{0,32}:(?!//)")  # RFC 9110, 5.6.2
_BODY_STARTS = (b"<", b"{", b"[", b"\xef\xbb\xbf")


class HeadError(Exception):
    """Where the head ends cannot be seen; the message quotes nothing of it."""


class Head(NamedTuple):
    """`status`: the code, None where none is given. `fields`: lower-case name -> values in order. `end`: in bytes."""

    status: int | None
    fields: Mapping[str, list[str]]
    end: int

    def first(self, name: str) -> str | None:
        """The value of a field that should stand once: the first, where it does not."""
        values = self.fields.get(name)
        return values[0] if values else None

    def listed(self, name: str) -> list[str]:
        """The members of a field that is a list, of all its lines, in lower case."""
        members = ",".join(self.fields.get(name, ())).split(",")  # lines of one field are one list (RFC 9110, 5.3)
        return [member.strip().lower() for member in members if member.strip()]


NO_HEAD = Head(None, {}, 0)


def parse_head(block: bytes) -> Head:
    """The head at the beginning of `block`; NO_HEAD where none is. Raises HeadError for one longer than MAX_HEAD."""
    blank = len(block[:MAX_HEAD]) - len(block[:MAX_HEAD].lstrip(b"\r\n"))
    lines, end, ended = _lines(block, blank if _STATUS_LINE.match(block, blank) else 0)
    first = lines[0] if lines else b""
    if _STATUS_LINE.match(first):
        status, headers = _status(first), lines[1:]
    elif _are_headers(lines):
        status, headers = None, lines
    # Without `ended` a body of one odd line and lines with colons would do: something has to have closed the head.
    elif ended and _are_headers(lines[1:]) and not first.startswith(_BODY_STARTS):
        status, headers = _status(first), lines[1:]  # `ICY 200 OK`, or no code at all: what follows shows what it is
    else:
        return NO_HEAD
    if not ended and len(block) > MAX_HEAD:
        raise HeadError(f"HTTP header is longer than {MAX_HEAD} bytes")
    return Head(status, _fields(headers), end)


def _lines(block: bytes, at: int) -> tuple[list[bytes], int, bool]:
    """The lines of a head, where the body begins, and whether anything ended the head before `block` does.

    A blank line ends it; so does a tag, as no name of a header begins with one: the blank line may be missing.
    """
    lines: list[bytes] = []
    limit = min(len(block), MAX_HEAD)
    while at < limit:
        newline = block.find(b"\n", at, limit)
        after = newline + 1 if newline >= 0 else limit
        line = block[at:after].rstrip()
        if not line and newline >= 0:
            return lines, after, True
        if lines and line.startswith(b"<"):
            return lines, at, True
        lines.append(line)
        at = after
    return lines, limit, False


def _are_headers(lines: list[bytes]) -> bool:
    """Whether these can only be header lines: the first is one, the others are too or continue the one before."""
    if not lines or not _HEADER_NAME.match(lines[0]):
        return False
    return all(line[:1] in (b" ", b"\t") or _HEADER_NAME.match(line) for line in lines)


def _status(line: bytes) -> int | None:
    """The code: the first word of three digits, behind the protocol if there is one. A text may stick to it."""
    for word in line[:256].split()[:3]:
        if re.match(rb"\d{3}(?!\d)", word):
            return int(word[:3])
    return None


def _fields(lines: list[bytes]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    name, parts = "", list[bytes]()
    for line in [*lines, b":"]:  # the last one only ends the one before
        if line[:1] in (b" ", b"\t"):
            parts.append(line.strip())
            continue
        if name:
            fields.setdefault(name, []).append(b" ".join(parts).decode("latin-1"))
        before, colon, value = line.partition(b":")
        name, parts = before.strip().decode("latin-1").lower() if colon else "", [value.strip()]
    return fields
