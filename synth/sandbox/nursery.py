"""The nursery: a process that forks programs and nothing else, made before the first test reaches its fork server.

A fork has all the memory of who forked it, and a program can look through its own: at the frames below it, at all
objects, at every byte. So programs are forks of a process that never saw a test, an expected value, or another program.
A tester asks for a program and is given the channel by which it is called; later it asks how the program ended. Whoever
ends a program also ends what it left behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import struct
from dataclasses import dataclass

from gristmill.synth.sandbox import kernel
from gristmill.synth.sandbox.program import NOBODY, Setting, close_all_but, limit_memory, start
from gristmill.synth.sandbox.scratch import Shared

_ID = 8
"""Bytes by which an answer is known as the one to a question."""
_START, _AWAIT, _END = b"s", b"w", b"e"
_ENDED = struct.Struct("id")
_LONGEST = 1 << 10


class NurseryLost(Exception):
    """The nursery is gone, or no program can be forked: says nothing about a program."""


@dataclass(frozen=True)
class End:
    """How a program ended: `status` as wait(2) gives it, `cpu_s` that it took."""

    status: int
    cpu_s: float


class Nursery:
    """A nursery, seen by who asks it: one program at a time. `process`: its number."""

    def __init__(self, asks: socket.socket, process: int) -> None:
        self.asks, self.process = asks, process

    @classmethod
    def forked(cls, setting: Setting) -> Nursery:
        """A new one, with the memory of this process, which must hold nothing that a program may not see."""
        asks, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = os.fork()
        if process:
            answers.close()
            return cls(asks, process)
        try:
            asks.close()
            _serve(answers, setting)
        finally:
            os._exit(0)

    def start(self) -> socket.socket:
        """Forks a program. Returns the channel by which it is called. Raises NurseryLost."""
        try:
            self.asks.send(_START)
            answer, descriptors, _, _ = socket.recv_fds(self.asks, _LONGEST, 1)
        except OSError as error:
            raise NurseryLost(repr(error)) from None
        if not descriptors:
            raise NurseryLost(f"no program was forked: {answer.decode(errors='replace')}")
        return socket.socket(fileno=descriptors[0])

    def end(self, *, by_itself: bool = False) -> End:
        """Ends the program that was started last, with all that it started; or waits until it ends `by_itself`, which
        another process may cut short by `end`. Raises NurseryLost."""
        ident = secrets.token_bytes(_ID)
        try:
            self.asks.send((_AWAIT if by_itself else _END) + ident)
            while (answer := self.asks.recv(_LONGEST))[:_ID] != ident:
                if not answer:
                    raise NurseryLost("it ended")
        except OSError as error:
            raise NurseryLost(repr(error)) from None
        return End(*_ENDED.unpack(answer[_ID:]))

    def close(self) -> None:
        """Ends it with all that it forked, and waits for that."""
        self.asks.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process, 0)


def give_up_rights(setting: Setting) -> None:
    """Becomes NOBODY where the entry says so, limits its memory, and ends with its parent."""
    if setting.entry.drop:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.stay_dumpable()
    limit_memory(setting.limits, setting.baseline)
    kernel.die_with_parent()
    kernel.no_new_privileges()


def _serve(answers: socket.socket, setting: Setting) -> None:
    """The life of a nursery, until nobody is left who could ask."""
    close_all_but(answers.fileno(), setting.proc, *([setting.rules] if setting.rules >= 0 else []))
    scratch = Shared(setting.limits.scratch) if setting.jail and setting.entry.spaces else None
    give_up_rights(setting)
    kernel.adopt_orphans()
    woken, wakes = os.pipe()  # by whatever child ends
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    program, asker = 0, b""
    while True:
        ready, _, _ = select.select([answers.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, _LONGEST)
        if answers.fileno() in ready:
            question = answers.recv(_LONGEST)
            if not question:
                _ended(setting, program, scratch)
                return
            asker = question[1:]
            if question == _START:
                program = _started(answers, setting, scratch)
            elif question[:1] == _END:
                _tell(answers, asker, _ended(setting, program, scratch))
                program, asker = 0, b""
        if asker and (not program or _is_over(program)):
            _tell(answers, asker, _ended(setting, program, scratch))
            program, asker = 0, b""


def _tell(answers: socket.socket, asker: bytes, end: End) -> None:
    answers.send(asker + _ENDED.pack(end.status, end.cpu_s))


def _started(answers: socket.socket, setting: Setting, scratch: Shared | None) -> int:
    try:
        program, calls = start(setting, mounts=scratch is None or not scratch.clean)
    except OSError as error:
        answers.send(repr(error).encode()[:_LONGEST])
        return 0
    with calls:
        socket.send_fds(answers, [_START], [calls.fileno()])
    return program


def _is_over(program: int) -> bool:
    return os.waitid(os.P_PID, program, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _ended(setting: Setting, program: int, scratch: Shared | None) -> End:
    """Kills and reaps a program; and, where it has no namespace that ends with it, all that it left, which is ours as
    soon as its parent ended. Nobody else reaps them, so a number that is known, or that /proc names, is still that of
    the process."""
    if not program:
        return End(0, 0.0)
    os.kill(program, signal.SIGKILL)
    _, status, usage = os.wait4(program, 0)
    if not setting.entry.spaces:
        while left := children(setting.proc):
            for process in left:
                os.kill(process, signal.SIGKILL)
            os.waitpid(-1, 0)
    if scratch is not None:
        scratch.empty()
    return End(status, usage.ru_utime + usage.ru_stime)


def children(proc: int) -> set[int]:
    """The numbers of this process's children. `proc`: /proc, opened."""
    try:
        file = os.open(f"self/task/{os.getpid()}/children", os.O_RDONLY, dir_fd=proc)
    except FileNotFoundError:  # a kernel without this file: what a process started ends with it
        return set()
    with open(file) as numbers:
        return {int(number) for number in numbers.read().split()}
