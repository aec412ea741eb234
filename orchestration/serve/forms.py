"""Forms that clients send files in: multipart/form-data, read from a body that is in memory and bounded.

Read by python-multipart, in one pass; how many parts there are and how large their headers, is bounded here and there.
What is wrong with a form is told to whoever sent it, and is no line of the server's log.
Source: RFC 7578.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gristmill.orchestration.serve.errors import refuse

MOST_PARTS = 64
_SILENT = logging.Logger("forms", logging.CRITICAL + 1)


class Field(NamedTuple):
    """A part of a form."""

    name: str
    data: bytes

    @property
    def text(self) -> str:
        """What a part that is no file's says. Raises ApiError."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise refuse(f"{self.name}: no UTF-8: {error}", self.name) from error


def read_form(content_type: str, body: bytes) -> list[Field]:
    """The fields of a form, in their order. Raises ApiError for a body that is none."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise refuse(f"the body is {content_type[:100]!r}: allowed is multipart/form-data with a boundary")
    parts = _Parts()
    try:
        # The library's type names all of its callbacks; these are all that a form needs.
        parser = MultipartParser(options[b"boundary"], parts.callbacks)
        parser.logger = _SILENT  # it would warn of each form that it refuses
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise refuse(f"the body is no form: {error}"[:300]) from error
    if not parts.ended:
        raise refuse("the body is no form: it ends within a part")
    return parts.fields


class _Parts:
    """What a parser calls."""

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.ended = False
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    @property
    def callbacks(self) -> Any:  # the library's own type is not exported
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.fields) >= MOST_PARTS:
            raise refuse(f"the body has more than {MOST_PARTS} parts")
        self._headers, self._data = {}, []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"")
        if not name:
            raise refuse("the body has a part without a name")
        self.fields.append(Field(name.decode("utf-8", "replace"), b"".join(self._data)))

    def _end(self) -> None:
        self.ended = True
