"""The program as its tests see it: calls go over the channel, values come back, and what is none stays a handle.

What ends the dealings with a program (it is gone, or sends what is no value) is kept beside being raised, since tests
may catch what a function raises: `try: f(-1) except Exception: pass`.
"""

from __future__ import annotations

import builtins
import contextlib
import socket
from dataclasses import dataclass
from typing import Any

from gristmill.synth.sandbox.values import MUTABLE, BadMessage, decode, encode, receive, send


class ProgramGone(Exception):
    """The program's process ended, or closed its channel."""


class OverLimit(Exception):
    """A value was larger than is passed."""


class Remote:
    """The program, seen from the tests. `lost`: why nothing that it says counts any longer; None while it does."""

    def __init__(self, channel: socket.socket, longest: int) -> None:
        self.channel, self.longest = channel, longest
        self.lost: ProgramGone | OverLimit | BadMessage | None = None

    def ask(self, **request: Any) -> Any:
        """The value of an answer; of a call that may have changed what it was given a Changed. Raises what the program
        raised, marked as the program's."""
        try:
            return self._answer(request)
        except (ProgramGone, OverLimit, BadMessage) as error:
            self.lost = self.lost or error
            raise

    def _answer(self, request: dict[str, Any]) -> Any:
        try:
            send(self.channel, request, self.longest)
        except ConnectionError:
            raise ProgramGone from None
        except BadMessage as error:
            raise OverLimit(str(error)) from None
        reply = receive(self.channel, self.longest)
        if reply is None:
            raise ProgramGone
        if not isinstance(reply, dict) or len(reply) != 1:
            raise BadMessage("no reply")
        ((kind, content),) = reply.items()
        if kind == "ok":
            return decode(content, lambda number: Handle(self, number))
        if kind == "changed" and request["do"] == "call":
            return Changed(decode(content, lambda number: Handle(self, number)))
        if kind == "limit":
            raise OverLimit(str(content)[:200])
        if kind == "raised":
            raise _raised(content)
        raise BadMessage("no reply")

    def ask_object(self, kind: str, number: int, *arguments: Any, named: dict[str, Any] | None = None) -> Any:
        """Asks for something of an object. A call that returned None leaves in the lists, sets and dictionaries among
        its arguments what the program made of them."""
        try:
            plain = [encode(argument, _number) for argument in arguments]
            more = {name: encode(value, _number) for name, value in (named or {}).items()}
        except (BadMessage, OverLimit) as error:  # says nothing about the program
            self.lost = self.lost or OverLimit(str(error))
            raise self.lost from None
        answer = self.ask(do=kind, object=number, arguments=plain, named=more)
        if not isinstance(answer, Changed):
            return answer
        for old, new in zip([*arguments, *(named or {}).values()], answer.values, strict=False):
            _filled(old, new)
        return None


@dataclass(frozen=True)
class Changed:
    """What the arguments of a call became, in order."""

    values: list[Any]


def _filled(old: Any, new: Any) -> Any:
    """The old container with the content of the new one, if both are of a type that can be changed; else the new."""
    if not any(isinstance(old, kind) and isinstance(new, kind) for kind in MUTABLE):
        return new
    if isinstance(old, list):
        old[:] = [*map(_filled, old, new), *new[len(old) :]]
    elif isinstance(old, bytearray):
        old[:] = new
    else:
        content = {key: _filled(old.get(key), value) for key, value in new.items()} if isinstance(old, dict) else new
        old.clear()
        old.update(content)
    return old


def _number(value: Any) -> int:
    if isinstance(value, Handle):
        return int(object.__getattribute__(value, "_number"))
    raise OverLimit(f"a test passes a {type(value).__name__}, which is no plain data")


def _raised(content: Any) -> Exception:
    """An exception of the program as the one of Python's own that it is or derives from; marked as the program's."""
    name, message, base = content if isinstance(content, list) and len(content) == 3 else ("Exception", "", "")
    text = f"{name}: {message}"[:300]
    error, kind = Exception(text), getattr(builtins, str(base), None)
    if kind in (StopIteration, StopAsyncIteration):  # within `map`, it would end the cases and not fail one
        kind = RuntimeError
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # UnicodeDecodeError wants more than a message
            error = kind(str(message))
    error.__dict__["from_program"] = text
    return error


class Handle:
    """An object of the program. What is asked of it is asked there, so it can say of itself whatever it likes."""

    def __init__(self, remote: Remote, number: int) -> None:
        object.__setattr__(self, "_remote", remote)
        object.__setattr__(self, "_number", number)

    def _ask(self, kind: str, *arguments: Any, named: dict[str, Any] | None = None) -> Any:
        remote = object.__getattribute__(self, "_remote")
        return remote.ask_object(kind, object.__getattribute__(self, "_number"), *arguments, named=named)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", *arguments, named=named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array"):  # NumPy would read memory where the program says that an array lies
            raise AttributeError(name)
        return self._ask("get", name)

    def __copy__(self) -> Any:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """What a copy has copied so far may be expected values, so no object is asked for its own."""
        remote = object.__getattribute__(self, "_remote")
        remote.lost = remote.lost or OverLimit("a test copies an object of the program")
        raise remote.lost

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Any:
        return iter(self._ask("items"))

    def __next__(self) -> Any:
        item = self._ask("next")
        if not item:
            raise StopIteration
        return item[0]

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __bool__(self) -> bool:
        return self._ask("truth") is True

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __contains__(self, item: Any) -> bool:
        return any(item == own for own in self)  # compared here: what it is asked for may be an expected value

    def __str__(self) -> str:
        return str(self._ask("text"))

    def __float__(self) -> float:
        return float(self._ask("float"))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self._ask("equal", other) is True
        return False  # an object that says of itself that it equals an expected value is not that value

    def __lt__(self, other: object) -> bool:
        return self._ask("less", other) is True if isinstance(other, Handle) else NotImplemented

    __hash__ = None  # type: ignore[assignment]
