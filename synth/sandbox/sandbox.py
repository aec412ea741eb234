"""Runs programs against tests in fork servers, from any thread; the verdict is decided outside of the program.

    sandbox = Sandbox(Limits(cpu_s=5), minimum="namespaces")
    sandbox.run("def double(n): return n + n", tests=["assert double(21) == 42"]).status    # "passed"

A server is started when it is first needed, tells which isolation it reached, and is replaced when it is lost. Whatever
is not about the program (a lost server, a limit) has a status of its own, so that nobody takes it for a wrong answer.
"""

from __future__ import annotations

import os
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gristmill.synth.sandbox import groups
from gristmill.synth.sandbox.isolation import Isolation, Level, Limits, require
from gristmill.synth.sandbox.values import BadMessage, receive, send

Status = Literal[
    "passed", "failed", "raised", "exited", "crashed", "forged",
    "cpu_limit", "wall_limit", "memory_limit", "message_limit", "broken_tests", "infrastructure",
]  # fmt: skip
"""passed; then what is the program's fault: a test fails, it raises, ends itself, crashes the interpreter, sends what
is no value; then what says nothing about it: limits, tests that do not run, a sandbox that does not."""
DEFAULT_LIMITS = Limits()

_START_S = 120.0
_GRACE_S = 60.0
"""Seconds beyond its own limit that a server has to answer, on a machine under load."""


@dataclass(frozen=True)
class Execution:
    """What came of a program. `test`: the number of the test that decided, -1 before the first."""

    status: Status
    detail: str = ""
    test: int = -1


class Sandbox:
    """A few fork servers with the same limits. `close` ends them.

    `minimum`: the level of isolation below which nothing is run. `servers`: executions side by side. `modules`: what
    programs may import beyond the standard library; imported before the doors are shut.
    """

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        minimum: Level = "namespaces",
        servers: int = 1,
        modules: Sequence[str] = (),
    ) -> None:
        if servers < 1:
            raise ValueError(f"Sandbox: servers={servers}: at least 1")
        self.limits, self.minimum, self.servers, self.modules = limits, minimum, servers, tuple(modules)
        self.restarts = 0
        """Servers that were lost and replaced."""
        self._isolation: Isolation | None = None
        self._lock = threading.Lock()
        self._idle: queue.LifoQueue[_Server | None] = queue.LifoQueue()
        for _ in range(servers):
            self._idle.put(None)  # started by whoever takes it

    @property
    def isolation(self) -> Isolation:
        """What was reached on this machine. Raises NotIsolated below the minimum."""
        if self._isolation is None:
            server = self._idle.get()
            try:
                server = server or self._start()
            finally:
                self._idle.put(server)
        assert self._isolation is not None
        return self._isolation

    def run(self, source: str, tests: Sequence[str], prelude: str = "", hidden: Sequence[str] = ()) -> Execution:
        """Loads a program and runs the tests, in order, up to the first that fails.

        `prelude`: statements that the tests need before them; `hidden`: names in it that are the program's all the
        same. Raises NotIsolated.
        """
        work = {"source": source, "tests": list(tests), "prelude": prelude, "hidden": list(hidden)}
        server = self._idle.get()
        try:
            server = server or self._start()
            try:
                reply = server.ask(work, self.limits)
            except BadMessage as error:
                return Execution("message_limit", str(error))
            if reply is None:
                server.end()
                server = None
                with self._lock:
                    self.restarts += 1
                return Execution("infrastructure", "the fork server was lost")
            return Execution(reply["status"], str(reply.get("detail", "")), int(reply.get("test", -1)))
        except BaseException:  # an interrupt in the middle: the answer would be taken for the next one's
            if server is not None:
                server.end()
                server = None
            raise
        finally:
            self._idle.put(server)

    def _start(self) -> _Server:
        server = _Server(self.limits, self.modules, None)
        isolation = server.isolation
        if isolation is None or isolation.level != "namespaces":
            wrapper = shutil.which("bwrap")
            if wrapper:  # it may be allowed what we are not
                server.end()
                server = _Server(self.limits, self.modules, wrapper)
                isolation = server.isolation
        if isolation is None:
            server.end()
            raise RuntimeError(f"the fork server does not start: {server.failure}")
        try:
            require(isolation, self.minimum)
        except BaseException:
            server.end()
            raise
        self._isolation = isolation
        return server

    def close(self) -> None:
        """Ends the servers that are idle; who runs something afterwards starts new ones."""
        for _ in range(self.servers):
            server = self._idle.get()
            if server is not None:
                server.end()
            self._idle.put(None)


class _Server:
    """A fork server's process, and one job at a time. `isolation`: None if it did not start, with the `failure`."""

    def __init__(self, limits: Limits, modules: tuple[str, ...], wrapper: str | None) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.groups: list[str] = []
        if wrapper is None:  # within its namespaces no group can be joined
            self.groups = groups.make(self.name, 2 * limits.memory + (512 << 20), 2 * limits.processes + 16)
        self.channel, remote = socket.socketpair()
        with remote:
            self.process = subprocess.Popen(
                [*_wrapped(wrapper), *_command(), str(remote.fileno()), self.name],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=(remote.fileno(),), env=_environment(), start_new_session=True,
            )  # fmt: skip
        self._ended = weakref.finalize(self, _end, self.process, self.channel, self.groups)
        first = {
            "limits": asdict(limits), "modules": modules, "groups": self.groups, "bubblewrap": wrapper is not None,
        }  # fmt: skip
        answer = self._exchange(first, _START_S, 1 << 20) or {"failed": "no answer"}
        self.failure = answer.get("failed", "")
        self.isolation = Isolation(**answer["layers"]) if "layers" in answer else None

    def ask(self, work: dict[str, Any], limits: Limits) -> dict[str, Any] | None:
        """The answer to a job; None: the server is lost. Raises BadMessage if the job is too large."""
        return self._exchange(work, limits.wall_s + _GRACE_S, limits.message)

    def _exchange(self, message: dict[str, Any], wall_s: float, longest: int) -> Any:
        self.channel.settimeout(wall_s)
        try:
            send(self.channel, message, longest)
            return receive(self.channel, longest)
        except (TimeoutError, ConnectionError):
            return None

    def end(self) -> None:
        """Ends the server and all below it."""
        self._ended()


def _command() -> list[str]:
    return [sys.executable, "-P", "-m", "gristmill.synth.sandbox.server"]


def _end(process: subprocess.Popen[bytes], channel: socket.socket, folders: list[str]) -> None:
    """Closes the channel, upon which a server kills what it runs and ends; one that does not is killed.

    What it runs then ends with it: the tester asked the kernel for that, and a namespace of processes ends with its
    first.
    """
    channel.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    groups.remove(folders)


def _environment() -> dict[str, str]:
    """A server's environment: nothing of ours, above all no secret."""
    path = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": path, "PYTHONHASHSEED": "0"}


def _wrapped(wrapper: str | None) -> list[str]:
    """The command that starts a server in bubblewrap's namespaces; files are then Landlock's matter."""
    if wrapper is None:
        return []
    return [wrapper, "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"]
