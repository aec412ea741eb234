"""The tester's process: it forks the program into namespaces of its own, runs the tests, and decides.

Tests are Python statements that raise where the program is wrong. They run here, with the functions of the program
replaced by stand-ins that send a call and receive a value; so a program that prints the words of success, ends itself
with 0 or redefines `assert` has changed nothing that decides.
"""

from __future__ import annotations

import builtins
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any

from gristmill.synth.sandbox import kernel
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.jail import map_identity
from gristmill.synth.sandbox.program import Program, close_all_but, confine, limit
from gristmill.synth.sandbox.values import BadMessage, decode, encode, receive, send

NOBODY = 65534
"""The user and group that programs have where the server is root."""


@dataclass(frozen=True)
class Entry:
    """How a tester enters namespaces. `user`: a user namespace; `drop`: the uid of NOBODY; `spaces`: the other ones."""

    drop: bool
    user: bool
    spaces: bool


ENTRIES = (
    Entry(True, True, True), Entry(True, False, True), Entry(False, True, True),
    Entry(True, False, False), Entry(False, False, False),
)  # fmt: skip
"""From the best; the last two have no namespaces, and only root has a uid to drop."""


@dataclass(frozen=True)
class Setting:
    """What every execution of a server has in common. `proc`: /proc, opened; `readable`: folders of the libraries."""

    limits: Limits
    entry: Entry
    layers: dict[str, Any]
    readable: list[str]
    proc: int
    baseline: int


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


def _raised(content: Any) -> BaseException:
    name, message = content if isinstance(content, list) and len(content) == 2 else ("Exception", "")
    kind = getattr(builtins, str(name), None)
    usual = isinstance(kind, type) and issubclass(kind, Exception)
    try:
        error = kind(str(message)) if usual else Exception(f"{name}: {message}")
    except TypeError:  # UnicodeDecodeError wants more
        error = Exception(f"{name}: {message}")
    error.from_program = f"{name}: {message}"[:300]
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


def enter(entry: Entry, proc: int, scratch: int) -> dict[str, Any]:
    """Moves this process into new namespaces, and what it forks from here on. Raises OSError. Returns the layers."""
    spaces = kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNS if entry.spaces else 0
    if not entry.user and spaces:
        kernel.unshare(spaces)
        _scratch(scratch)
    if entry.drop:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.stay_dumpable()
    if entry.user:
        uid, gid = os.getuid(), os.getgid()
        kernel.unshare(spaces | kernel.CLONE_NEWUSER)
        map_identity(uid, gid, proc)
        _scratch(scratch)
    return {
        "uid_dropped": entry.drop, "user_namespace": entry.user,
        "pid_namespace": entry.spaces, "ipc_namespace": entry.spaces,
    }  # fmt: skip


def _scratch(size: int) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("scratch", "/tmp", "tmpfs", flags, f"size={size},nr_inodes=1000,mode=1777")


def run_tester(report: socket.socket, setting: Setting, job: dict[str, Any]) -> None:
    """The life of a tester: forks the program, says who that is, tests it, says what came of it."""
    limits = setting.limits
    layers = dict(setting.layers)
    for name, reached in enter(setting.entry, setting.proc, limits.scratch).items():
        layers[name] = reached or layers.get(name, False)
    mine, programs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            _run_program(programs, setting)
        finally:
            os._exit(0)
    programs.close()
    close_all_but(mine.fileno(), report.fileno())
    kernel.die_with_parent()
    limit(limits, setting.baseline, limits.processes, 1)
    kernel.no_new_privileges()
    ready = receive(mine, limits.message)
    if ready is None:
        send(report, {"status": "infrastructure", "detail": "the program's process did not start"}, limits.message)
        return
    send(report, {"program": child, "layers": layers | ready}, limits.message)
    result = judge(Remote(mine, limits.message), job)
    if result["status"] == "gone":
        result = _how_it_ended(child)
    send(report, result, limits.message)


def _run_program(channel: socket.socket, setting: Setting) -> None:
    limits = setting.limits
    close_all_but(channel.fileno())
    os.environ.clear()
    if setting.layers.get("jail") or setting.entry.spaces:
        os.chdir("/tmp")
    limit(limits, setting.baseline, limits.processes, limits.scratch)
    layers = confine([*setting.readable, "/dev", "/etc/localtime"], ["/tmp"] if setting.entry.spaces else [])
    kernel.die_with_parent()
    send(channel, layers | {"limits": True}, limits.message)
    Program(channel, limits.message).serve()


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


def _how_it_ended(child: int) -> dict[str, Any]:
    """How the program's process ended. It is not reaped: its number has to stay its own until the server did."""
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    if ended is None or ended.si_code == os.CLD_EXITED:
        return {"status": "exited", "detail": f"exit status {ended.si_status if ended else '?'}"}
    if ended.si_status == signal.SIGKILL:
        return {"status": "killed", "detail": "SIGKILL"}
    return {"status": "crashed", "detail": signal.Signals(ended.si_status).name}
