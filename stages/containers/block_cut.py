"""BlockCut: where records stand in a container of headers and blocks (WARC, ARC), without saying what they are.

Fed with decompressed pieces in any sizes, it emits (start, length, error) spans that tile what it was fed. A record is
a header that gives the length of its block, the block, and all newlines that follow. It is a machine of four states:
HEAD (before a header), BLOCK (counting the bytes of a block down), TAIL (newlines behind it) and GARBAGE (what is no
record, up to the next one).
A length that runs past the next record (a crawler died, another went on) must not swallow the rest: when a block holds
what could be the start of a record, a second cutter follows from there, and takes over if the block ends nowhere.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

MAX_HEADER = 64 << 10
NEWLINES = re.compile(rb"[\r\n]*")

Emit = Callable[[int, int, str | None], None]
HEAD, BLOCK, TAIL, GARBAGE = "head", "block", "tail", "garbage"


class Header(NamedTuple):
    """`end`: index in the buffer of the first byte of the block; `size`: bytes of the block."""

    end: int
    size: int


class BlockCut(ABC):
    """What tells one format from another stands in the class attributes and the abstract methods.

    `lookahead`: bytes that must be at hand to recognise a record start; `next_record` matches one that begins a line,
    in no more bytes than that, and all that it matches begins with `next_lead`; `format` and `length_name` are the
    words of the messages.
    """

    format: ClassVar[str]
    length_name: ClassVar[str]
    next_record: ClassVar[re.Pattern[bytes]]
    next_lead: ClassVar[bytes]
    lookahead: ClassVar[int]

    @staticmethod
    @abstractmethod
    def begins(data: bytes) -> bool:
        """Whether a member that begins with these bytes (16 or more) begins with a record."""

    @abstractmethod
    def _header(self, first: int) -> Header | str | None:
        """The header at this index of the buffer; what is wrong with it; None: more bytes are needed to say."""

    @abstractmethod
    def _follows(self) -> bool | None:
        """Whether a record begins at the position; None: more bytes are needed to say."""

    def __init__(self, emit: Emit, start: int = 0, *, follow: bool = True) -> None:
        self._emit, self._follow = emit, follow
        self._state = HEAD
        self._start = start  # of the open span
        # bytes at hand, address of the first, index of the next
        self._buf, self._pos, self._at = bytearray(), start, 0
        self._gap, self._searched = 0, start  # newlines before the header; address up to which it has no blank line
        self._member_start = False  # the open span began with a member
        self._size = self._need = 0  # of the block
        self._seen = b""  # the end of the block so far, for starts that straddle pieces
        self._tail, self._tail_at_member = b"", False
        self._reason = ""
        self._rival: _Rival | None = None  # the second cutter, while it follows

    @property
    def held(self) -> int:
        """Spans that were cut, but not emitted yet."""
        return len(self._rival.spans) if self._rival is not None else 0

    @property
    def _here(self) -> int:
        return self._pos + self._at

    def feed(self, data: bytes, begins_member: bool = False) -> None:
        """The next piece; `begins_member`: a compressed member begins with it."""
        if begins_member:
            self._new_member(data)
        self._pos = self._here  # what was passed goes; the rest waits for what makes it whole
        del self._buf[: self._at]
        self._buf += data
        self._at = 0
        steps = {HEAD: self._head, BLOCK: self._block, TAIL: self._after, GARBAGE: self._garbage}
        while steps[self._state]():
            pass

    def _new_member(self, data: bytes) -> None:
        edge = self._pos + len(self._buf)
        if self.begins(data):
            # A writer that begins members with records (as it should) shows here that the record before is cut off.
            # Where this record itself began within a member, members are slices of one stream: the edge means nothing.
            if self._state == BLOCK and not self._member_start and self._need:
                return
            self.close(f"the next record begins at {edge}, before this one ends" if self._state != GARBAGE else None)
            self._member_start = True
        elif self._state == HEAD and edge == self._start:  # newlines alone, where a record may begin
            self._member_start = True
        elif self._state == TAIL:
            self._tail_at_member = True

    def close(self, message: str | None = None) -> None:
        """Nothing more belongs to the open span: the data end, or break off because of `message`."""
        end = self._pos + len(self._buf)
        if self._state == BLOCK and self._need and self._rival is not None:  # the block never ends: records are in it
            self._yield_to_rival()
            return self.close(message)
        if self._state == TAIL:
            self._cut(self._here, None)
        elif self._state == BLOCK and not self._need:
            self._cut(end, None)
        if end > self._start:
            reason = {
                HEAD: f"no {self.format} record: its header is incomplete",
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
        self._gap, self._searched = 0, end

    def _head(self) -> bool:
        match = NEWLINES.match(self._buf, self._at)
        first = match.end() if match else self._at
        self._gap, self._at = self._gap + first - self._at, first
        header = self._header(first)
        if header is None:
            return False
        if isinstance(header, str):
            return self._to_garbage(first, header)
        self._size = self._need = header.size
        self._at, self._state = header.end, BLOCK
        return True

    def _to_garbage(self, at: int, reason: str) -> bool:
        self._state, self._reason, self._at, self._rival = GARBAGE, reason, at, None
        return True

    def _garbage(self) -> bool:
        """To the next record; all up to there is one span."""
        match = self.next_record.search(self._buf, self._at)
        if match:
            self._at = match.start() + 1
            self._cut(self._here, self._reason)
            return True
        # The last bytes stay: they may be the first ones of a record start. All before them are passed for good, so
        # that garbage of any length is searched once.
        self._at = max(self._at, len(self._buf) - self.lookahead)
        return False

    def _block(self) -> bool:
        take = min(self._need, len(self._buf) - self._at)
        if self._follow and take:
            self._watch(self._at + take)
        self._at += take
        self._need -= take
        if self._need:
            return False
        self._state = TAIL
        return True

    def _watch(self, end: int) -> None:
        """Shows bytes of the block, up to `end` of the buffer, to the second cutter, which begins at the first record
        start in it.

        There is one at most, and it has none of its own (`follow`): however starts are nested, the work stays linear.
        """
        if self._rival is not None:
            self._rival.cut.feed(bytes(self._buf[self._at : end]))
            return
        start = self._record_within(end)
        if start is None:
            self._seen = (self._seen + self._buf[max(self._at, end - self.lookahead) : end])[-self.lookahead :]
            return
        self._rival = _Rival(type(self), self._pos + start)
        before = self._seen[len(self._seen) - (self._at - start) :] if start < self._at else b""
        self._rival.cut.feed(bytes(before + self._buf[max(self._at, start) : end]))

    def _record_within(self, end: int) -> int | None:
        """Where the first record start stands that ends in the block's bytes up to `end` of the buffer: an index of
        it, negative where it begins with what was seen before. None: nowhere."""
        straddling = self._seen + self._buf[self._at : min(end, self._at + self.lookahead)]
        match = self.next_record.search(straddling)
        if match is not None and match.start() < len(self._seen):
            return self._at - len(self._seen) + match.start() + 1
        lead = self._buf.find(self.next_lead, self._at, end)  # many times faster than the expression, and seldom there
        match = self.next_record.search(self._buf, lead, end) if lead >= 0 else None
        return None if match is None else match.start() + 1

    def _after(self) -> bool:
        match = NEWLINES.match(self._buf, self._at)
        newlines = bytes(match.group()) if match else b""
        self._tail = (self._tail + newlines[:8])[:8]  # only whether there were two matters, not how many thousand
        if self._rival is not None and newlines:
            self._rival.cut.feed(newlines)
        self._at += len(newlines)
        follows = self._follows()
        if follows is None:
            return False
        if follows:
            self._cut(self._here, None)
        elif self._rival is not None:
            self._yield_to_rival()
        # No record follows. Where the block was closed as blocks are (a blank line, the end of a member), it is whole
        # and what comes is garbage of its own; else its length was wrong, and the two are one stretch of damage.
        elif self._tail_at_member or self._tail.count(b"\n") > 1:
            self._cut(self._here, None)
            self._to_garbage(self._at, f"no {self.format} record starts here")
        else:
            self._to_garbage(self._at, f"{self.length_name} {self._size} does not end where the record does")
        return True

    def _yield_to_rival(self) -> None:
        """The block was none: the spans of the second cutter count, and it is in this one's place from here."""
        rival = self._rival
        assert rival is not None
        # Its state becomes this one's, member by member: from here on there is one cutter again. What it had at hand
        # stands before what came since, which it was not shown.
        size, rest = self._size, self._buf[self._at :]
        self._cut(rival.start, f"{self.length_name} {size} runs past the next record at {rival.start}")
        for span in rival.spans:
            self._emit(*span)
        cut = rival.cut
        self._state, self._start, self._pos, self._at = cut._state, cut._start, cut._pos, cut._at
        self._buf, self._size, self._need = cut._buf + rest, cut._size, cut._need
        self._seen, self._tail, self._reason = b"", cut._tail, cut._reason
        self._gap, self._searched = cut._gap, cut._searched


class _Rival:
    """The second cutter; its spans are held until it is known whether the block that they are cut from is one."""

    def __init__(self, cutter: type[BlockCut], start: int) -> None:
        self.start = start
        self.spans: list[tuple[int, int, str | None]] = []
        self.cut = cutter(lambda *span: self.spans.append(span), start, follow=False)
