"""The tester's process: it has programs forked, runs the tests of one problem, and decides.

Tests are Python statements that raise where the program is wrong. They run here, with the functions of the program
replaced by stand-ins that send a call and receive a value; so a program that prints the words of success, ends itself
with 0 or redefines `assert` has changed nothing that decides.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import os
import random
import signal
import socket
from typing import Any

from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.nursery import End, Nursery, NurseryLost, give_up_rights
from gristmill.synth.sandbox.program import Entry, Setting, close_all_but
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


class Names(dict[str, Any]):
    """The names of the tests: what they define, else what the program defines, else Python's own.

    `replaced`: the names of Python's own that a program may stand in for; another that it defines is not the tests'
    (`def set(items): return 1` makes no two sets equal).
    """

    def __init__(self, remote: Remote, replaced: frozenset[str]) -> None:
        super().__init__({"__name__": "tests", "__builtins__": builtins})
        self.remote, self.replaced = remote, replaced
        self.programs = frozenset[str]()

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) and not (name in self.programs and name in self.replaced):
            raise KeyError(name)
        return self.remote.ask(do="name", name=name)


def replaceable(work: dict[str, Any]) -> frozenset[str]:
    """The names of Python's own that are what the tests of a problem test: the function that is asked for, if that is
    known; else all that they name, where they name nothing but these: `assert sum(10, 15) == 6`."""
    if work["hidden"]:
        return frozenset(work["hidden"])
    try:
        trees = [ast.parse(text) for text in (work["prelude"], *work["tests"])]
    except (SyntaxError, ValueError):  # tests that do not run decide nothing, as will be seen
        return frozenset()
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    defined = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    defined |= {
        (name.asname or name.name).partition(".")[0]
        for node in nodes
        if isinstance(node, _IMPORTS)
        for name in node.names
    }
    asked = used - defined
    return frozenset(asked) if all(hasattr(builtins, name) for name in asked) else frozenset()


_IMPORTS = (ast.Import, ast.ImportFrom)


def run_tester(channel: socket.socket, setting: Setting, nursery: Nursery, work: dict[str, Any]) -> None:
    """The life of a tester: gives up its rights, then tests one program after the other, all for the same tests.

    `work`: `prelude`, `hidden`, `tests`. A request is `source`; an answer what came of it, with the `layers` reached.
    """
    limits = setting.limits
    close_all_but(channel.fileno(), nursery.asks.fileno(), setting.proc)
    give_up_rights(setting)
    work = work | {"replaced": replaceable(work)}
    while (request := receive(channel, limits.message)) is not None:
        try:
            report = _tested(nursery, limits, work | request)
        except NurseryLost as error:
            report = {"status": "infrastructure", "detail": str(error)}
        send(channel, report | {"layers": setting.layers | report.get("layers", {})}, limits.message)


def _tested(nursery: Nursery, limits: Limits, job: dict[str, Any]) -> dict[str, Any]:
    """What came of a program, which has ended by then. Raises NurseryLost."""
    with nursery.start() as calls:
        layers = receive(calls, limits.message)
        random.seed(0)  # tests that draw their cases draw the same
        report = judge(Remote(calls, limits.message), job) if layers else {"status": "no_start"}
        end = nursery.end(by_itself=report["status"] == "gone")  # or the server's time is up
    if report["status"] == "gone":
        report = how_it_ended(end, limits)
    elif report["status"] == "no_start":
        report = {"status": "infrastructure", "detail": f"the program's process did not start: {end.status}"}
    return report | {"layers": layers or {}}


def judge(remote: Remote, job: dict[str, Any]) -> dict[str, Any]:
    """Loads the program and runs the tests in order: `status`, `detail`, and the number of the `test` that decided."""
    number = -1
    try:
        names = Names(remote, job["replaced"])
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


def how_it_ended(end: End, limits: Limits) -> dict[str, Any]:
    """What a program's end, before its tests were through, says about it."""
    status, cpu_s = end.status, end.cpu_s
    if not os.WIFSIGNALED(status):
        return {"status": "exited", "detail": f"exit status {os.waitstatus_to_exitcode(status)}"}
    number = os.WTERMSIG(status)
    if number in (signal.SIGKILL, signal.SIGXCPU):
        over = cpu_s >= limits.cpu_s - 0.5
        return {"status": "cpu_limit" if over else "memory_limit", "detail": f"killed after {cpu_s:.1f} s"}
    return {"status": "crashed", "detail": signal.Signals(number).name}
