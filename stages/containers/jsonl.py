"""JSON lines: one line one record, an object with a string text; url, id, date and source if it has them.

What a line lacks is absent, what it has in the wrong type is an error: a url that is a number tells of a file that
is not what its user believes. Text must be Unicode that UTF-8 can hold (lone surrogates cannot be stored or hashed).
A whole number as id is taken for its digits, a number as date for the time that it means (`dates`); an id that is an
absolute URL (as in dolma's data) is the URL where there is no other. JSON lines carry no identity of their own: the
file's digest and the row do.
"""

from __future__ import annotations

import re

from gristmill.stages.containers.block_cut import Emit
from gristmill.stages.containers.record import ReadConfig, Record
from gristmill.stages.containers.rows import json_object, row_record, text_record
from gristmill.stages.containers.sequential import Sequential

_NOT_BLANK = re.compile(rb"\S")


class JsonlCut:
    """One line one span; blank lines belong to the line before them, leading ones to the first."""

    held = 0  # every span is emitted as it is cut

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._start = self._line = self._end = 0  # addresses: open span, open line, data so far
        self._content = False  # the open line is not blank
        self._done = False  # the open span has its line, what follows are blank lines

    def feed(self, data: bytes, begins_member: bool = False) -> None:
        """The next piece; where members begin means nothing to lines."""
        i, n = 0, len(data)
        while i < n:
            if not self._content:
                # Blank so far: on to the first byte that is not, and the line that it stands on begins here.
                text = _NOT_BLANK.search(data, i)
                newline = data.rfind(b"\n", i, text.start() if text else n)
                if newline >= 0:
                    self._line = self._end + newline + 1
                if text is None:
                    break
                if self._done:  # the span waited for blank lines, which are its own; here comes the next record
                    self._cut(self._line, None)
                self._content, i = True, text.start()
            newline = data.find(b"\n", i)
            if newline < 0:
                break
            self._content, self._done = False, True
            i = newline + 1
            self._line = self._end + i
        self._end += n

    def close(self, message: str | None = None) -> None:
        """Nothing more belongs to the open line: the data end, or break off because of `message`."""
        if self._content:
            self._cut(self._end, None if message is None else f"line is cut off; {message}")
        elif self._done:
            self._cut(self._end, None)
        elif self._end > self._start:
            self._cut(self._end, "no record, only blank lines")
        self._line, self._content = self._end, False

    def _cut(self, end: int, error: str | None) -> None:
        self._emit(self._start, end - self._start, error)
        self._start, self._done = end, False


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """`data`: the span, blank lines around the line included. Raises RecordError."""
    return text_record(empty._replace(record_type="jsonl"), json_object(data, "line", bom=empty.start == 0), config)


def parse_row(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """The same for lines that need no text: `row` has all their fields. Raises RecordError."""
    return row_record(empty._replace(record_type="jsonl"), json_object(data, "line", bom=empty.start == 0), config)


JSONL = Sequential(
    name="jsonl",
    suffixes=(".jsonl", ".ndjson", ".json"),
    begins=lambda head: head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"),
    member_begins=bool,
    cut=JsonlCut,
    parse=parse,
    parse_row=parse_row,
)
