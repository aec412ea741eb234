"""The program's process: it shuts the last doors behind itself, then computes what it is called with.

It knows nothing of tests, and no byte of its memory does, since it is a fork of a process that never saw one
(nursery.py). Whatever the program does to this process (it may patch, exit, or write to the channel
itself), all that comes of it are values that somebody else compares. Objects that are no plain data stay here, under a
number.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

from gristmill.synth.sandbox import kernel, scratch
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.jail import map_identity
from gristmill.synth.sandbox.values import MUTABLE, BadMessage, decode, encode, receive, send

_ITEMS = 1_000_000
"""Items of an iterator that are passed at most."""


NOBODY = 65534
"""The user and group that programs have where the server is root."""


@dataclass(frozen=True)
class Entry:
    """How a program enters namespaces. `drop`: as NOBODY; `spaces`: its own user, processes and IPC, and mounts
    where its nursery has no clean /tmp to lend (scratch.py)."""

    drop: bool
    spaces: bool


@dataclass(frozen=True)
class Setting:
    """What every execution of a server has in common. `proc`: /proc, opened; `rules`: of Landlock, -1 without it.

    `baseline`: bytes of address space that the server itself has. `jail`: the server's root is a
    jail.
    """

    limits: Limits
    entry: Entry
    layers: dict[str, Any]
    proc: int
    rules: int
    baseline: int
    jail: bool


def start(setting: Setting, *, mounts: bool) -> tuple[int, socket.socket]:
    """Forks the program's process. Returns its number and the channel by which it is called. `mounts`: with a mount
    namespace and a /tmp of its own, not those of its server. Raises OSError."""
    spaces = kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    if mounts:
        spaces |= kernel.CLONE_NEWNS
    uid, gid = os.getuid(), os.getgid()
    callers, channel = socket.socketpair()
    child = kernel.clone(spaces if setting.entry.spaces else 0)
    if child:
        channel.close()
        return child, callers
    try:
        _become(setting, channel, uid, gid, mounts)
        Program(channel, setting.limits.message).serve()
    finally:
        os._exit(0)


def _become(setting: Setting, channel: socket.socket, uid: int, gid: int, mounts: bool) -> None:
    """Shuts every door, then says which layers were reached."""
    limits, entry = setting.limits, setting.entry
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()  # a group of processes reaches beyond a namespace: who signals or renices its own finds itself alone
    if entry.spaces:
        map_identity(uid, gid, setting.proc)
        if mounts:
            scratch.mount(limits.scratch)
        os.chdir("/tmp")
    close_all_but(channel.fileno(), *([setting.rules] if setting.rules >= 0 else []))
    os.environ.clear()
    random.seed(0)  # the same program does the same, whenever it is run
    limit_memory(limits, setting.baseline)
    _limit((resource.RLIMIT_CPU, limits.cpu_s), (resource.RLIMIT_NPROC, limits.processes))
    kernel.die_with_parent()
    layers = confine(setting.rules)
    spaces = dict.fromkeys(("user_namespace", "pid_namespace", "ipc_namespace"), entry.spaces)
    reached = {**layers, **spaces, "uid_dropped": entry.drop, "limits": True}
    send(channel, {name: value or setting.layers.get(name, False) for name, value in reached.items()}, limits.message)


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


def limit_memory(limits: Limits, baseline: int) -> None:
    """Limits what this process and those it starts may hold. `baseline`: bytes of address space that it began with."""
    _limit((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, limits.scratch))
    _limit((resource.RLIMIT_NOFILE, limits.files), (resource.RLIMIT_AS, limits.memory + baseline))


def _limit(*kinds: tuple[int, int]) -> None:
    """Soft and hard limits alike, as far as they are not lower already."""
    for kind, value in kinds:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def confine(rules: int) -> dict[str, Any]:
    """Gives up privileges, files and system calls, as far as the kernel can. Returns which layers were reached."""
    layers: dict[str, Any] = {}
    for name, step in (
        ("no_new_privileges", kernel.no_new_privileges),
        ("capabilities_dropped", kernel.drop_capabilities),
        ("landlock", lambda: kernel.landlock(rules)),
        ("seccomp", kernel.filter_calls),
    ):
        try:
            step()
        except OSError:  # a layer that this kernel lacks: the level says so, and the minimum decides
            layers[name] = False
        else:
            layers[name] = True
    if rules >= 0:
        os.close(rules)
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
                reply = self.answer(request)
            except BadMessage as error:
                reply = {"limit": str(error)}
            except BaseException as error:  # the program's, SystemExit too: whoever called it is told
                reply = {"raised": [type(error).__name__, _message(error), _base(error)]}
            try:
                send(self.channel, reply, self.longest)
            except BadMessage as error:
                send(self.channel, {"limit": str(error)}, self.longest)

    def handle(self, value: Any) -> int:
        """The number of an object that stays here."""
        self.objects.append(value)
        return len(self.objects) - 1

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request. Raises whatever the program raises; BadMessage for a value that is too deep."""
        if request["do"] != "call":
            return {"ok": encode(self.value(request), self.handle)}
        arguments = [decode(argument, self.objects.__getitem__) for argument in request["arguments"]]
        named = {name: decode(value, self.objects.__getitem__) for name, value in request["named"].items()}
        value = self.objects[request["object"]](*arguments, **named)
        given = [*arguments, *named.values()]
        if value is None and any(isinstance(argument, MUTABLE) for argument in given):
            return {"changed": [encode(argument, self.handle) for argument in given]}
        return {"ok": encode(value, self.handle)}

    def value(self, request: dict[str, Any]) -> Any:
        """What a request that is no call asks for. Raises whatever the program raises."""
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
        return _OPERATIONS[kind](target, *arguments)


def _items(target: Any) -> list[Any]:
    items = []
    for item in target:
        items.append(item)
        if len(items) > _ITEMS:
            raise BadMessage(f"an iterator of more than {_ITEMS:,} items")
    return items


def _next(target: Any) -> list[Any]:
    try:
        return [next(target)]
    except StopIteration:
        return []


_OPERATIONS: dict[str, Any] = {
    "get": getattr, "set": setattr, "items": _items, "next": _next, "length": len, "truth": bool, "text": str,
    "float": float, "index": int, "item": lambda target, key: target[key],
    "equal": lambda target, other: target == other, "less": lambda target, other: target < other,
}  # fmt: skip


def _base(error: BaseException) -> str:
    """The name of the exception of Python's own that this is or derives from."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def _message(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:  # a message that raises is the program's as well
        return ""
