"""One line of JSON to a Record: an object with a string text; url, id, date and source if it has them.

What a line lacks is absent, what it has in the wrong type is an error: a url that is a number tells of a file that
is not what its user believes. Text must be Unicode that UTF-8 can hold (lone surrogates cannot be stored or hashed).
A whole number as id is taken for its digits, a number as date for the time that it means (`dates`); an id that is an
absolute URL (as in dolma's data) is the URL where there is no other. JSON lines carry no identity of their own: the
file's digest and the row do.
"""

from __future__ import annotations

import json
from typing import Any

from lake.identity import is_url
from stages.containers.dates import iso_date
from stages.containers.read import ReadConfig, Record, RecordError


def parse(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """`data`: the span, blank lines around the line included. Raises RecordError."""
    row = _object(empty, data)
    url = _url(row, config)
    text = row.get(config.text)
    if not isinstance(text, str):
        what = f"is a {type(text).__name__}, not a string" if config.text in row else "is missing"
        raise RecordError(f"field {config.text!r} (the text) {what}", url=url)
    _check(text, config.text, url)
    return _record(empty, row, config)._replace(text=text)


def parse_row(empty: Record, data: bytes, config: ReadConfig) -> Record:
    """The same for lines that need no text: `row` has all their fields. Raises RecordError."""
    row = _object(empty, data)
    return _record(empty, row, config)._replace(row=row)


def _object(empty: Record, data: bytes) -> dict[str, Any]:
    try:
        line = data.decode("utf-8-sig" if empty.start == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"line is not UTF-8: byte {error.start} ({error.reason})") from None
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"line is not JSON: {error.msg.removesuffix(' at')} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:  # numbers of too many digits; nesting too deep
        raise RecordError(f"line is not readable JSON: {type(error).__name__}: {error}") from None
    if not isinstance(row, dict):
        raise RecordError(f"line is a JSON {type(row).__name__}, not an object")
    return row


def _record(empty: Record, row: dict[str, Any], config: ReadConfig) -> Record:
    own = row.get(config.id)
    if isinstance(own, int) and not isinstance(own, bool):
        row = {**row, config.id: str(own)}
    return empty._replace(
        kind="text",
        record_type="jsonl",
        url=_url(row, config),
        id=_string(row, config.id),
        date=_date(row, config.date),
        source=_string(row, config.source),
    )


def _url(row: dict[str, Any], config: ReadConfig) -> str | None:
    """What the record is filed under, if that is a URL: a takedown of the page or of its domain must find it."""
    url, own = _string(row, config.url), row.get(config.id)
    if url is not None or not isinstance(own, str) or not is_url(own):
        return url
    return _string(row, config.id)


def _date(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return _string(row, name, "a string or a number")
    date = iso_date(value)
    if date is None:
        allowed = "seconds (or ms, µs, ns) since 1970, YYYY, YYYYMMDD or YYYYMMDDhhmmss"
        raise RecordError(f"field {name!r} is a number that is no date; allowed: {allowed}")
    return date


def _string(row: dict[str, Any], name: str, allowed: str = "a string") -> str | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise RecordError(f"field {name!r} is a {type(value).__name__}, not {allowed}")
    _check(value, name, None)
    return value


def _check(value: str, name: str, url: str | None) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"field {name!r} has a lone surrogate at character {error.start}", url=url) from None
