"""The tester's process: it forks programs into namespaces of their own, runs the tests of one problem, and decides.

Tests are Python statements that raise where the program is wrong. They run here, with the functions of the program
replaced by stand-ins that send a call and receive a value; so a program that prints the words of success, ends itself
with 0 or redefines `assert` has changed nothing that decides.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import random
import signal
import socket
from typing import Any

from gristmill.synth.sandbox import kernel
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.program import NOBODY, Entry, Setting, close_all_but, limit_memory, start
from gristmill.synth.sandbox.values import BadMessage, decode, encode, receive, send

ENTRIES = (Entry(True, True), Entry(False, True), Entry(True, False), Entry(False, False))
"""From the best. Only root has a uid to drop."""


class ProgramGone(Exception):
    """The program's process ended, or closed its channel."""


class OverLimit(Exception):
    """A value was larger than is passed."""


class Remote:
    """The program, seen from the tests."""

    def __init__(self, channel: socket.socket, longest: int) -> None:
        self.channel, self.longest = channel, longest

    def ask(self, **request: Any) -> Any:
        """The value of an answer. Raises what the program raised, marked as the program's."""
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
        if kind == "limit":
            raise OverLimit(str(content)[:200])
        if kind == "raised":
            raise _raised(content)
        raise BadMessage("no reply")

    def ask_object(self, kind: str, number: int, *arguments: Any, named: dict[str, Any] | None = None) -> Any:
        """Asks for something of an object."""
        plain = [encode(argument, _number) for argument in arguments]
        more = {name: encode(value, _number) for name, value in (named or {}).items()}
        return self.ask(do=kind, object=number, arguments=plain, named=more)


def _number(value: Any) -> int:
    if isinstance(value, Handle):
        return int(object.__getattribute__(value, "_number"))
    raise OverLimit(f"a test passes a {type(value).__name__}, which is no plain data")


def _raised(content: Any) -> Exception:
    """An exception of the program as one of Python's own of that name, if there is one; marked as the program's."""
    name, message = content if isinstance(content, list) and len(content) == 2 else ("Exception", "")
    text = f"{name}: {message}"[:300]
    error, kind = Exception(text), getattr(builtins, str(name), None)
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
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Any:
        return iter(self._ask("items"))

    def __len__(self) -> int:
        return int(self._ask("length"))

    def __bool__(self) -> bool:
        return self._ask("truth") is True

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __contains__(self, item: Any) -> bool:
        return self._ask("contains", item) is True

    def __str__(self) -> str:
        return str(self._ask("text"))

    def __float__(self) -> float:
        return float(self._ask("float"))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self._ask("equal", other) is True
        return False  # an object that says of itself that it equals an expected value is not that value

    def __lt__(self, other: Any) -> bool:
        return self._ask("less", other) is True

    __hash__ = None  # type: ignore[assignment]


class Names(dict[str, Any]):
    """The names of the tests: what they define, else what the program defines, else Python's own."""

    def __init__(self, remote: Remote) -> None:
        super().__init__({"__name__": "tests", "__builtins__": builtins})
        self.remote, self.programs = remote, frozenset[str]()

    def __missing__(self, name: str) -> Any:
        if name not in self.programs and hasattr(builtins, name):
            raise KeyError(name)
        return self.remote.ask(do="name", name=name)


def run_tester(channel: socket.socket, setting: Setting, work: dict[str, Any]) -> None:
    """The life of a tester: gives up its rights, then tests one program after the other, all for the same tests.

    `work`: `prelude`, `hidden`, `tests`. A request is `source`; an answer what came of it, with the `layers` reached.
    """
    limits = setting.limits
    if setting.entry.drop:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.stay_dumpable()
    close_all_but(channel.fileno(), setting.proc, *([setting.rules] if setting.rules >= 0 else []))
    limit_memory(limits, setting.baseline)
    kernel.die_with_parent()
    kernel.no_new_privileges()
    while (request := receive(channel, limits.message)) is not None:
        child, calls = start(setting)
        try:
            with calls:
                layers = receive(calls, limits.message)
                random.seed(0)  # tests that draw their cases draw the same
                report = judge(Remote(calls, limits.message), work | request) if layers else {"status": "no_start"}
                if report["status"] == "gone":
                    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it ends by itself; or the server's time is up
        finally:
            os.kill(child, signal.SIGKILL)  # not reaped yet: the number is its own
            _, status, usage = os.wait4(child, 0)
        if report["status"] == "gone":
            report = how_it_ended(status, usage.ru_utime + usage.ru_stime, limits)
        elif report["status"] == "no_start":
            report = {"status": "infrastructure", "detail": f"the program's process did not start: {status}"}
        send(channel, {**report, "layers": setting.layers | (layers or {})}, limits.message)


def judge(remote: Remote, job: dict[str, Any]) -> dict[str, Any]:
    """Loads the program and runs the tests in order: `status`, `detail`, and the number of the `test` that decided."""
    number = -1
    try:
        names = Names(remote)
        exec(_declared(job["prelude"]), names)
        for name in job["hidden"]:
            names.pop(name, None)  # what the prelude only declares is the program's
        names.programs = frozenset(remote.ask(do="load", source=job["source"]))
        for number, test in enumerate(job["tests"]):
            exec(compile(test, f"<test {number}>", "exec"), names)
    except ProgramGone:
        return {"status": "gone"}
    except OverLimit as error:
        return {"status": "message_limit", "detail": str(error), "test": number}
    except BadMessage as error:
        return {"status": "forged", "detail": str(error), "test": number}
    except BaseException as error:  # the program's, an assertion, or what a wrong value leads to
        return _failure(error, number)
    return {"status": "passed", "detail": f"{len(job['tests'])} tests", "test": number}


def _declared(prelude: str) -> Any:
    """The code of a prelude, which may end with the head of a function whose body is the program's."""
    try:
        return compile(prelude, "<prelude>", "exec")
    except SyntaxError:
        return compile(f"{prelude}\n    pass\n", "<prelude>", "exec")


def _failure(error: BaseException, number: int) -> dict[str, Any]:
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    programs = getattr(error, "from_program", None)
    if programs is not None:
        status = "memory_limit" if isinstance(error, MemoryError) else "raised"
        return {"status": status, "detail": programs, "test": number}
    if isinstance(error, MemoryError):
        return {"status": "memory_limit", "detail": "in the tests", "test": number}
    if isinstance(error, SyntaxError | NameError | ImportError):
        return {"status": "broken_tests", "detail": detail, "test": number}
    return {"status": "failed", "detail": detail, "test": number}


def how_it_ended(status: int, cpu_s: float, limits: Limits) -> dict[str, Any]:
    """What a program's end, before its tests were through, says about it. `status`: as wait(2) gives it."""
    if not os.WIFSIGNALED(status):
        return {"status": "exited", "detail": f"exit status {os.waitstatus_to_exitcode(status)}"}
    number = os.WTERMSIG(status)
    if number in (signal.SIGKILL, signal.SIGXCPU):
        over = cpu_s >= limits.cpu_s - 0.5
        return {"status": "cpu_limit" if over else "memory_limit", "detail": f"killed after {cpu_s:.1f} s"}
    return {"status": "crashed", "detail": signal.Signals(number).name}
