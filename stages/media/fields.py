"""Texts of a row by the names of its fields, or the rule of a sample that the row breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.model.processing.chat.conversation import BadSample


def text_of(row: Mapping[str, Any], name: str) -> str:
    """Raises BadSample: no_field, not_text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BadSample("no_field" if name not in row else "not_text", name)
    return value


def first_text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Of the first of these fields that the row has; of a list its first text. Raises BadSample: no_field, not_text."""
    text = optional_text(row, names)
    if text is None:
        raise BadSample("no_field", ", ".join(names))
    return text


def optional_text(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The same; None where the row has none of the fields. Raises BadSample: not_text."""
    for name in names:
        value = row.get(name)
        if isinstance(value, list):
            value = next((item for item in value if isinstance(item, str)), None)
        if isinstance(value, str):
            return value
        if value is not None:
            raise BadSample("not_text", name)
    return None
