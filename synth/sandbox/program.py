"""The program's process: it shuts the last doors behind itself, then computes what it is called with.

It knows nothing of tests. Whatever the program does to this process (it may patch, exit, or write to the channel
itself), all that comes of it are values that somebody else compares. Objects that are no plain data stay here, under a
number.
"""

from __future__ import annotations

import os
import resource
import socket
from dataclasses import dataclass, field
from typing import Any

from gristmill.synth.sandbox import kernel
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.values import BadMessage, decode, encode, receive, send

_ITEMS = 1_000_000
"""Items of an iterator that are passed at most."""


def close_all_but(*kept: int) -> None:
    """Closes every descriptor but these, and puts /dev/null in place of the standard ones."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    first = 3
    for number in sorted(kept):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, 1 << 16)


def limit(limits: Limits, baseline: int, processes: int, scratch: int) -> None:
    """Limits of this process and what it starts. `baseline`: bytes of address space that the fork server has itself."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits.cpu_s),  # soft and hard: SIGKILL
        (resource.RLIMIT_FSIZE, scratch),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_AS, limits.memory + baseline),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def confine(readable: list[str], writable: list[str]) -> dict[str, Any]:
    """Gives up privileges, files and system calls, as far as the kernel can. Returns which layers were reached."""
    layers: dict[str, Any] = {}
    for name, step in (
        ("no_new_privileges", kernel.no_new_privileges),
        ("capabilities_dropped", kernel.drop_capabilities),
        ("landlock", lambda: kernel.landlock(readable, writable)),
        ("seccomp", kernel.filter_calls),
    ):
        try:
            result = step()
        except OSError:  # a layer that this kernel lacks: the level says so, and the minimum decides
            continue
        layers[name] = True if result is None else result
    return layers


@dataclass
class Program:
    """A loaded program, its objects, and the channel by which it is called."""

    channel: socket.socket
    longest: int
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "program", "__builtins__": __builtins__})
    objects: list[Any] = field(default_factory=list)

    def serve(self) -> None:
        """Answers requests until the other end closes."""
        while True:
            request = receive(self.channel, self.longest)
            if request is None:
                return
            try:
                reply = {"ok": encode(self.answer(request), self.handle)}
            except BadMessage as error:
                reply = {"limit": str(error)}
            except BaseException as error:  # the program's, SystemExit too: whoever called it is told
                reply = {"raised": [type(error).__name__, _message(error)]}
            try:
                send(self.channel, reply, self.longest)
            except BadMessage as error:
                send(self.channel, {"limit": str(error)}, self.longest)

    def handle(self, value: Any) -> int:
        """The number of an object that stays here."""
        self.objects.append(value)
        return len(self.objects) - 1

    def answer(self, request: dict[str, Any]) -> Any:
        """What a request asks for. Raises whatever the program raises."""
        kind = request["do"]
        if kind == "load":
            exec(compile(request["source"], "<program>", "exec"), self.names)
            return [name for name in self.names if isinstance(name, str)][:10_000]
        if kind == "name":
            if request["name"] not in self.names:
                raise NameError(f"name {request['name']!r} is not defined")
            return self.names[request["name"]]
        target = self.objects[request["object"]]
        arguments = [decode(argument, self.objects.__getitem__) for argument in request["arguments"]]
        if kind == "call":
            named = {name: decode(value, self.objects.__getitem__) for name, value in request["named"].items()}
            return target(*arguments, **named)
        return _OPERATIONS[kind](target, *arguments)


def _items(target: Any) -> list[Any]:
    items = []
    for item in target:
        items.append(item)
        if len(items) > _ITEMS:
            raise BadMessage(f"an iterator of more than {_ITEMS:,} items")
    return items


_OPERATIONS: dict[str, Any] = {
    "get": getattr, "set": setattr, "items": _items, "length": len, "truth": bool, "text": str, "float": float,
    "index": int, "item": lambda target, key: target[key], "equal": lambda target, other: target == other,
    "less": lambda target, other: target < other, "contains": lambda target, item: item in target,
}  # fmt: skip


def _message(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:  # a message that raises is the program's as well
        return ""
