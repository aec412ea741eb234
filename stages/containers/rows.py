"""Rows: an object with fields, as lines of JSON, rows of Parquet and samples of a tar have it, to a Record.

What a row lacks is absent, what it has in the wrong type is an error: a url that is a number tells of a file that is
not what its user believes. Text must be Unicode that UTF-8 can hold (lone surrogates cannot be stored or hashed).
A whole number as id is taken for its digits, a number as date for the time that it means (`dates`); an id that is an
absolute URL (as in dolma's data) is the URL where there is no other.
"""

from __future__ import annotations

import json
from typing import Any

from gristmill.lake.accounts.identity import is_url
from gristmill.stages.containers.dates import iso_date
from gristmill.stages.containers.record import ReadConfig, Record, RecordError


def json_object(data: bytes, what: str, *, bom: bool = True) -> dict[str, Any]:
    """The object in `data`, which a byte order mark may begin. Raises RecordError, whose message calls it `what`."""
    try:
        text = data.decode("utf-8-sig" if bom else "utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{what} is not UTF-8: byte {error.start} ({error.reason})") from None
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{what} is not JSON: {error.msg.removesuffix(' at')} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:  # numbers of too many digits; nesting too deep
        raise RecordError(f"{what} is not readable JSON: {type(error).__name__}: {error}") from None
    if not isinstance(row, dict):
        raise RecordError(f"{what} is a JSON {type(row).__name__}, not an object")
    return row


def text_record(empty: Record, row: dict[str, Any], config: ReadConfig) -> Record:
    """The record of a row that has to have a text. Raises RecordError."""
    url = _url(row, config)
    text = row.get(config.text)
    if not isinstance(text, str):
        what = f"is a {type(text).__name__}, not a string" if config.text in row else "is missing"
        raise RecordError(f"field {config.text!r} (the text) {what}", url=url)
    check_text(text, config.text, url)
    return _named(empty, row, config)._replace(text=text, declared=_declared(row, config))


def row_record(empty: Record, row: dict[str, Any], config: ReadConfig) -> Record:
    """The record of a row that needs no text: it has all its fields. Raises RecordError."""
    return _named(empty, row, config)._replace(row=row)


def _named(empty: Record, row: dict[str, Any], config: ReadConfig) -> Record:
    own = row.get(config.id)
    if isinstance(own, int) and not isinstance(own, bool):
        row = {**row, config.id: str(own)}
    return empty._replace(
        kind="text",
        url=_url(row, config),
        id=_string(row, config.id),
        date=_date(row, config.date),
        source=_string(row, config.source),
    )


def _declared(row: dict[str, Any], config: ReadConfig) -> tuple[tuple[str, str], ...]:
    """What the row says of its use, as texts: each item of a list by itself, nothing of other objects."""
    pairs: list[tuple[str, str]] = []
    for name, field in config.declared.items():
        value: Any = row.get(field)
        if field not in row:
            value = row
            for part in field.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str | int | float):
                text = str(int(item) if isinstance(item, bool) else item)
                check_text(text, field, None)
                pairs.append((name, text))
    return tuple(pairs)


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
    check_text(value, name, None)
    return value


def check_text(value: str, name: str, url: str | None) -> None:
    """Raises RecordError for a text that UTF-8 cannot hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"field {name!r} has a lone surrogate at character {error.start}", url=url) from None
