"""WarcCut: where WARC records begin and end, without saying what they are (WARC 1.1, ISO 28500, section 4).

Fed with decompressed pieces in any sizes, it emits (start, length, error) spans that tile what it was fed.
A record is `WARC/x.y`, headers, a blank line, Content-Length bytes, and all newlines that follow.
A Content-Length that runs past the next record (a crawler died, another went on) must not swallow the rest: when a
block holds what looks like a record, a second cutter follows from there, and takes over if the block ends nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

MAX_HEADER = 64 << 10
LOOK = 96  # bytes that must be at hand to recognise a record start
NEXT_RECORD = re.compile(rb"\nWARC/\d\.\d{1,3}\r{0,2}\n[A-Za-z][A-Za-z-]{0,39}[ \t]{0,8}:")
MAGIC = re.compile(rb"WARC/\d{1,3}\.\d{1,3}[ \t]{0,32}\r{0,2}\n")
BLANK_LINE = re.compile(rb"\n[ \t]{0,32}\r{0,2}\n")
NEWLINES = re.compile(rb"[\r\n]*")

Emit = Callable[[int, int, str | None], None]
HEAD, BLOCK, TAIL, GARBAGE = "head", "block", "tail", "garbage"


def looks_like_record(data: bytes) -> bool:
    """Whether a member that begins with these bytes begins with a record."""
    return re.match(rb"[\r\n]{0,65536}WARC/\d", data) is not None


class WarcCut:
    def __init__(self, emit: Emit, start: int = 0, *, follow: bool = True) -> None:
        self._emit, self._follow = emit, follow
        self._state = HEAD
        self._start = start  # of the open span
        # bytes at hand, address of the first, index of the next
        self._buf, self._pos, self._at = bytearray(), start, 0
        self._gap, self._looked = 0, start  # newlines before the header; address up to which it has no blank line
        self._member_start = False  # the open span began with a member
        self._size = self._need = 0  # of the block
        self._seen = b""  # the end of the block so far, for starts that straddle pieces
        self._tail, self._tail_at_member = b"", False
        self._reason = ""
        self._rival: _Rival | None = None

    @property
    def held(self) -> int:
        return len(self._rival.spans) if self._rival is not None else 0

    @property
    def _here(self) -> int:
        return self._pos + self._at

    def feed(self, data: bytes, begins_member: bool = False) -> None:
        if begins_member:
            self._new_member(data)
        self._pos = self._here
        del self._buf[: self._at]
        self._buf += data
        self._at = 0
        steps = {HEAD: self._head, BLOCK: self._block, TAIL: self._after, GARBAGE: self._garbage}
        while steps[self._state]():
            pass

    def _new_member(self, data: bytes) -> None:
        edge = self._pos + len(self._buf)
        if looks_like_record(data):
            if self._state == BLOCK and not self._member_start and self._need:
                return  # one stream in many members: the edge means nothing
            self.close(f"the next record begins at {edge}, before this one ends" if self._state != GARBAGE else None)
            self._member_start = True
        elif self._state == HEAD and edge == self._start:
            self._member_start = True
        elif self._state == TAIL:
            self._tail_at_member = True

    def close(self, message: str | None = None) -> None:
        """Nothing more belongs to the open span: the data end, or break off because of `message`."""
        end = self._pos + len(self._buf)
        if self._state == BLOCK and self._need and self._rival is not None:
            self._yield_to_rival()
            return self.close(message)
        if self._state == TAIL:
            self._cut(self._here, None)
        elif self._state == BLOCK and not self._need:
            self._cut(end, None)
        if end > self._start:
            reason = {
                HEAD: "no WARC record: its header is incomplete",
                BLOCK: f"record is cut off: {self._size - self._need} of {self._size} bytes of its block are there",
                GARBAGE: self._reason,
            }[self._state]
            self._cut(end, f"{reason}; {message}" if message else reason)
        self._buf, self._pos, self._at = bytearray(), end, 0
        self._member_start = False
        return None

    def _cut(self, end: int, error: str | None) -> None:
        if end > self._start:
            self._emit(self._start, end - self._start, error)
        self._state, self._start, self._rival = HEAD, end, None
        self._tail, self._tail_at_member, self._seen = b"", False, b""
        self._member_start = False
        self._gap, self._looked = 0, end

    def _head(self) -> bool:
        match = NEWLINES.match(self._buf, self._at)
        first = match.end() if match else self._at
        self._gap, self._at = self._gap + first - self._at, first
        left = len(self._buf) - first
        magic = MAGIC.match(self._buf, first)
        if magic is None:
            if self._gap < MAX_HEADER and left < LOOK and _may_become_magic(bytes(self._buf[first : first + LOOK])):
                return False
            return self._to_garbage(first, "no WARC record starts here")
        looked = max(magic.end() - 1, self._looked - self._pos)
        blank = BLANK_LINE.search(self._buf, looked, first + MAX_HEADER)
        if blank is None:
            self._looked = self._pos + max(looked, len(self._buf) - LOOK)
            if left < MAX_HEADER:
                return False
            return self._to_garbage(first, f"header is longer than {MAX_HEADER} bytes")
        lengths = set(_content_lengths(bytes(self._buf[magic.end() : blank.start()])))
        length = lengths.pop() if len(lengths) == 1 else b""
        if not re.fullmatch(rb"\d{1,18}", length):
            fault = "Content-Length is no number" if length else "no one Content-Length"
            return self._to_garbage(first, f"{fault} in the header")
        self._size = self._need = int(length)
        self._at, self._state = blank.end(), BLOCK
        return True

    def _to_garbage(self, at: int, reason: str) -> bool:
        self._state, self._reason, self._at, self._rival = GARBAGE, reason, at, None
        return True

    def _garbage(self) -> bool:
        match = NEXT_RECORD.search(self._buf, self._at)
        if match:
            self._at = match.start() + 1
            self._cut(self._here, self._reason)
            return True
        self._at = max(self._at, len(self._buf) - LOOK)
        return False

    def _block(self) -> bool:
        take = min(self._need, len(self._buf) - self._at)
        if self._follow and take:
            self._watch(bytes(self._buf[self._at : self._at + take]))
        self._at += take
        self._need -= take
        if self._need:
            return False
        self._state = TAIL
        return True

    def _watch(self, data: bytes) -> None:
        if self._rival is not None:
            self._rival.cut.feed(data)
            return
        window = self._seen + data
        match = NEXT_RECORD.search(window)
        if match is None:
            self._seen = window[-LOOK:]
            return
        at = match.start() + 1
        self._rival = _Rival(self._here + len(data) - len(window) + at)
        self._rival.cut.feed(window[at:])

    def _after(self) -> bool:
        match = NEWLINES.match(self._buf, self._at)
        newlines = bytes(match.group()) if match else b""
        self._tail = (self._tail + newlines[:8])[:8]
        if self._rival is not None and newlines:
            self._rival.cut.feed(newlines)
        self._at += len(newlines)
        following = self._buf[self._at : self._at + 5]
        if len(following) < 5 and b"WARC/".startswith(following):
            return False
        if following == b"WARC/":
            self._cut(self._here, None)
        elif self._rival is not None:
            self._yield_to_rival()
        elif self._tail_at_member or self._tail.count(b"\n") > 1:
            self._cut(self._here, None)
            self._to_garbage(self._at, "no WARC record starts here")
        else:
            self._to_garbage(self._at, f"Content-Length {self._size} does not end where the record does")
        return True

    def _yield_to_rival(self) -> None:
        """The block was none: what the second cutter found in it counts, and it is in our place from here."""
        rival = self._rival
        assert rival is not None
        size, rest = self._size, self._buf[self._at :]
        self._cut(rival.start, f"Content-Length {size} runs past the next record at {rival.start}")
        for span in rival.spans:
            self._emit(*span)
        cut = rival.cut
        self._state, self._start, self._pos, self._at = cut._state, cut._start, cut._pos, cut._at
        self._buf, self._size, self._need = cut._buf + rest, cut._size, cut._need
        self._seen, self._tail, self._reason = b"", cut._tail, cut._reason
        self._gap, self._looked = cut._gap, cut._looked


class _Rival:
    def __init__(self, start: int) -> None:
        self.start = start
        self.spans: list[tuple[int, int, str | None]] = []
        self.cut = WarcCut(lambda *span: self.spans.append(span), start, follow=False)


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
