"""Sealed files: the small JSON files of a lake, each of which says what it is about and carries a digest of itself.

Objects are named by their digest; manifests, receipts, tags and the like are named by what they are for, so that a
changed one, or one in another's place, would be believed. Their last member is `seal`, the sha256 of every byte before
it, and they name the slot that they were written for. Files of format 1 have neither, and are read as far as they go.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from gristmill.lake.store.base import Store

FORMAT = 2
"""Of notes, such as tags and pins. Receipts and manifests have numbers of their own."""
NEWEST = 3
FORMATS = (1, 2, NEWEST)
"""Formats of manifests, receipts and notes that are read."""

_SEAL = re.compile(rb',\n "seal": "([0-9a-f]{64})"\n\}\n?\Z')
"""The last member, found in the bytes and not in the parsed JSON: the seal is over the text as it stands, so that
a changed space or a doubled key is a change too."""
_HEAD = re.compile(rb'\{\n "format": (\d+),')
"""The first member, for which a manifest of megabytes need not be parsed twice."""


class Unreadable(ValueError):
    """A small file that is not what was written there. Names the file and the way out."""


def seal(body: bytes) -> bytes:
    """The JSON object `body`, as `json.dumps(indent=1)` writes it, with its seal."""
    head = body.removesuffix(b"\n}")
    if head == body:
        raise ValueError("seal: not the text of an object with indent=1")
    return head + b',\n "seal": "' + hashlib.sha256(head).hexdigest().encode() + b'"\n}'


def unseal(data: bytes) -> bytes:
    """The object as it was sealed; of format 1 the bytes as they are. Raises ValueError, saying what is wrong."""
    match = _SEAL.search(data)
    if match is not None:
        head = data[: match.start()]
        if hashlib.sha256(head).hexdigest().encode() != match[1]:
            raise ValueError("its seal is not that of its content: it was changed")
        body = head + b"\n}"
        number = _HEAD.match(head)
        _check_format(int(number[1]) if number else fields_of(body)["format"])
        return body
    # No seal at the end. Only format 1 had none: anything else lost it, and a seal elsewhere is one that was moved.
    fields = fields_of(data)
    _check_format(fields["format"])
    if "seal" in fields or fields["format"] != 1:
        raise ValueError("it has no valid seal: it was changed")
    return data


def fields_of(data: bytes) -> dict[str, Any]:
    """A JSON object with a format number. Raises ValueError, saying in a few words what it is instead."""
    if not data.strip():
        raise ValueError("it is empty")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):  # a codec's error too
        raise ValueError("it is cut short, or no JSON") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
        raise ValueError("it has no format number")
    return fields


def in_words(error: Exception) -> str:
    """What is wrong with fields, of the error that reading them raised."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return "it has fields of another kind" if isinstance(error, TypeError) else str(error)


def _check_format(number: int) -> None:
    if number not in FORMATS:
        raise ValueError(f"it has format {number}, this gristmill reads up to {NEWEST}: upgrade it")


def write_note(about: Mapping[str, Any], **content: Any) -> bytes:
    """A small file about `about` (what it is for, as its name says)."""
    return seal(json.dumps({"format": FORMAT, **about, **content}, indent=1).encode())


def read_note(store: Store, key: str, about: Mapping[str, Any], remedy: str, **types: type) -> dict[str, Any]:
    """The fields of a small file. `types`: those that it must have. Raises Unreadable, with `remedy`; NotFound."""
    data = store.get(key)
    try:
        fields: dict[str, Any] = json.loads(unseal(data))
        if fields["format"] != 1:
            for name, value in about.items():
                if fields.get(name) != value:
                    raise ValueError(f"it is about {name} {fields.get(name)!r}, its name says {value!r}")
        for name, kind in types.items():
            if type(fields.get(name)) is not kind:
                raise ValueError(f"it has no {name} ({kind.__name__})")
    except ValueError as error:
        raise unreadable(store, key, error, remedy) from error
    return fields


def unreadable(store: Store, key: str, why: Exception | str, remedy: str) -> Unreadable:
    """The error for a small file, with what is wrong with it and the way out."""
    return Unreadable(f"{key} in {store.uri} cannot be used ({why}): {remedy}")
