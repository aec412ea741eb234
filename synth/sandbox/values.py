"""Values on their way between a program and the tests: plain data as JSON, everything else as a handle.

The program is not trusted, so nothing is unpickled: a number, a text, a container of these arrives as exactly that
type, whatever its class was and whatever that class says about equality. What is no plain data stays where it is and
has a number. A message is four bytes of length and so many of JSON; length and depth are bounded.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import socket
from collections.abc import Callable
from typing import Any

DEEPEST = 60
MUTABLE = (list, dict, set, bytearray)
"""Types whose values a function may change that is given them."""
_EXACT = 1 << 53
_AT_ONCE = 1 << 20
"""Bytes that are asked of a channel at a time."""
_plain_json = json.JSONEncoder(separators=(",", ":")).encode


class BadMessage(Exception):
    """What arrived is no message: too long, cut off, or not of this form."""


class _NotPlain(Exception):
    """A value that stays where it is, among keys or items of a set."""


def _refuse(value: Any) -> int:
    raise _NotPlain


def send(channel: socket.socket, message: Any, longest: int) -> None:
    """Sends a message of plain JSON. Raises BadMessage if it is longer than `longest` bytes."""
    data = _plain_json(message).encode()
    if len(data) > longest:
        raise BadMessage(f"a message of {len(data):,} bytes, at most {longest:,} are passed")
    channel.sendall(len(data).to_bytes(4, "big") + data)


def receive(channel: socket.socket, longest: int) -> Any:
    """The next message; None: the other end is closed. Raises BadMessage."""
    head = _exactly(channel, 4)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if length > longest:
        raise BadMessage(f"a message of {length:,} bytes, at most {longest:,} are passed")
    data = _exactly(channel, length)
    if data is None:
        return None
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"no message: {error}") from None


def _exactly(channel: socket.socket, length: int) -> bytes | None:
    parts: list[bytes] = []
    while length:
        try:
            part = channel.recv(min(_AT_ONCE, length))
        except ConnectionError:
            return None
        if not part:
            return None
        length -= len(part)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encode(value: Any, handle: Callable[[Any], int], depth: int = 0) -> Any:
    """Plain JSON for a value. `handle` gives what is no plain data a number. Raises BadMessage for what is too deep."""
    if depth > DEEPEST:
        raise BadMessage(f"a value nested deeper than {DEEPEST}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        plain = int(value)
        return plain if abs(plain) < _EXACT else {"i": hex(plain)}
    if isinstance(value, float):
        return {"f": float(value).hex()}
    if isinstance(value, str):
        return str.__str__(value)  # of a text that is an Enum's member, too
    if isinstance(value, complex):
        return {"c": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, bytes | bytearray):
        return {"b" if isinstance(value, bytes) else "a": bytes(value).hex()}
    for kind, name in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z"), (collections.deque, "q")):
        if isinstance(value, kind):
            try:  # a handle has no hash, so a set of objects is an object
                items = [encode(item, _refuse if name in "sz" else handle, depth + 1) for item in value]
            except _NotPlain:
                if handle is _refuse or name not in "sz":
                    raise
                return {"h": handle(value)}
            return items if name == "l" else {name: items}
    if isinstance(value, dict):
        try:
            keys = [encode(key, _refuse, depth + 1) for key in value]
        except _NotPlain:
            return {"h": handle(value)}
        return {"d": [[key, encode(item, handle, depth + 1)] for key, item in zip(keys, value.values(), strict=True)]}
    if type(value) is fractions.Fraction:
        return {"fraction": [hex(value.numerator), hex(value.denominator)]}
    if type(value) is decimal.Decimal:
        return {"decimal": str(value)}
    if type(value) in (datetime.date, datetime.datetime, datetime.time):
        return {type(value).__name__: value.isoformat()}
    if type(value) is datetime.timedelta:
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, range):
        return {"r": [value.start, value.stop, value.step]}
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return {"n": value.__name__}
    return {"h": handle(value)}


def decode(plain: Any, handle: Callable[[int], Any]) -> Any:
    """The value of plain JSON; `handle` knows what a number stands for. Raises BadMessage for what has not the form."""
    try:
        return _decode(plain, handle, 0)
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError) as error:
        raise BadMessage(f"no value: {error}") from None


def _decode(plain: Any, handle: Callable[[int], Any], depth: int) -> Any:
    if depth > DEEPEST:
        raise BadMessage(f"a value nested deeper than {DEEPEST}")
    if plain is None or isinstance(plain, bool | int | str):
        return plain
    if isinstance(plain, list):
        return [_decode(item, handle, depth + 1) for item in plain]
    if not isinstance(plain, dict) or len(plain) != 1:
        raise BadMessage("no value")
    ((kind, content),) = plain.items()
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](_decode(item, handle, depth + 1) for item in content)
    if kind == "d":
        return {_decode(key, handle, depth + 1): _decode(item, handle, depth + 1) for key, item in content}
    if kind == "h":
        return handle(int(content))
    return _SCALARS[kind](content)


_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, object)
}
_CONTAINERS: dict[str, Callable[..., Any]] = {"t": tuple, "s": set, "z": frozenset, "q": collections.deque}
_SCALARS: dict[str, Callable[[Any], Any]] = {
    "fraction": lambda parts: fractions.Fraction(int(parts[0], 16), int(parts[1], 16)),
    "decimal": decimal.Decimal,
    "date": datetime.date.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "time": datetime.time.fromisoformat,
    "timedelta": lambda parts: datetime.timedelta(parts[0], parts[1], parts[2]),
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "c": lambda parts: complex(float.fromhex(parts[0]), float.fromhex(parts[1])),
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "r": lambda parts: range(parts[0], parts[1], parts[2]),
    "n": lambda name: _TYPES[name],
}
