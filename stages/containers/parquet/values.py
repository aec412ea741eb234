"""Rows of Arrow batches to fields as JSON lines have them, and what each row comes to in bytes before it is one.

A dictionary or a list of a few bytes can stand for gigabytes, so rows are measured in the columns and taken out one by
one. Arrow has no absent field: a field that is null is left out, as JSON lines leave out what a row lacks. Times are
ISO 8601. What begins like an image, a clip or a video, or is Hugging Face's `{bytes, path}` of one, is a medium, and
stands in the row as its number, from 1.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.stages.containers.media import Media, medium
from gristmill.stages.containers.record import RecordError

VALUE = 8
"""Bytes that any value counts for, besides those of its text."""


def row_bytes(array: pa.Array) -> np.ndarray:
    """Bytes of each row's values when they are decoded: of texts what they have, of others VALUE.

    Raises ValueError for a dictionary that has no value for a row.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        sizes = np.append(row_bytes(array.dictionary), 0)  # the last is that of a null
        null = len(sizes) - 1
        edges = pc.min_max(array.indices).as_py()
        # Arrow does not check indices: one that is outside reads memory behind the dictionary.
        if edges["min"] is not None and not 0 <= edges["min"] <= edges["max"] < null:
            raise ValueError(f"an index into a dictionary of {null} values is outside of it")
        indices = pc.fill_null(array.indices, null).to_numpy(zero_copy_only=False)
        return np.asarray(sizes[indices])
    if pa.types.is_struct(kind):
        return sum((row_bytes(child) for child in array.flatten()), np.full(len(array), VALUE))
    if pa.types.is_map(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        edges = array.offsets.to_numpy()
        children = [array.keys, array.items] if pa.types.is_map(kind) else [array.values]
        total = np.full(len(array), VALUE)
        for child in children:
            # upto[i]: bytes of all items before item i. A row's are the difference of two, without a loop over rows.
            upto = np.concatenate([[0], np.cumsum(row_bytes(child))])
            total += upto[edges[1:]] - upto[edges[:-1]]
        return total
    if pa.types.is_fixed_size_list(kind):
        return np.full(len(array), VALUE * (kind.list_size + 1))
    if pa.types.is_fixed_size_binary(kind):
        return np.full(len(array), VALUE + kind.byte_width)
    if _has_length(kind):
        return VALUE + pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.full(len(array), VALUE)


def _has_length(kind: pa.DataType) -> bool:
    large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return large or pa.types.is_string(kind) or pa.types.is_binary(kind)


def holds_media(kind: pa.DataType) -> bool:
    """Whether a column of this type is one of images or clips as Hugging Face's datasets have it, or of lists of them.

    A column of bare bytes may be one too; but it may be anything.
    """
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return holds_media(kind.value_type)
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def fields_of(batch: pa.RecordBatch, row: int) -> tuple[dict[str, Any], tuple[Media, ...]]:
    """The fields of a row, and its media. Raises RecordError."""
    media: list[Media] = []
    fields: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value = column[row].as_py()
        except UnicodeDecodeError as error:
            raise RecordError(f"field {name!r} is not UTF-8: byte {error.start} ({error.reason})") from None
        except (ValueError, OverflowError, KeyError):  # times that Python has not, maps with a key twice
            raise RecordError(f"field {name!r} has a value that Python cannot hold") from None
        value = _plain(value, name, media)
        if value is not None:
            fields[name] = value
    return fields, tuple(media)


def _plain(value: Any, name: str, media: list[Media]) -> Any:
    """The value as JSON has it; None for what it cannot have."""
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"} and isinstance(value["bytes"], bytes):
            return _number(value["bytes"], value["path"], name, media)
        plain = {key: _plain(item, name, media) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, name, media) for item in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return _of_bytes(value, name, media)
    return str(value) if isinstance(value, Decimal) else value


def _number(data: bytes, path: Any, name: str, media: list[Media]) -> int:
    item = medium(data, path if isinstance(path, str) else None)
    if item is None:
        raise RecordError(f"field {name!r} holds bytes that are no image, audio or video")
    media.append(item)
    return len(media)


def _of_bytes(data: bytes, name: str, media: list[Media]) -> Any:
    """A medium, or a text that its writer did not call one."""
    item = medium(data, None)
    if item is not None:
        media.append(item)
        return len(media)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
