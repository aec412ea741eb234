"""Careful mode: one record at a time in a child process, for input that kills the process that reads it.

A page that makes a C parser crash or never return would kill its worker on every retry, and the run with it. When
Ray has retried in vain, the runner asks for the Work once more in this mode: each record is handled by a child that
may die; the record that killed it is quarantined, and its neighbours are as they would have been.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any


class _Watchdog:
    """Kills this process if it is not fed in time, so that a record that hangs becomes one that crashes.

    Armed in Ray's workers only: their death is handled, that of a user's own process would be rude.
    """

    armed = False

    def arm(self) -> None:
        """To be called in the main thread of a worker."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own action: C code cannot ignore it
        self.armed = True

    def feed(self, seconds: float) -> None:
        """Grants `seconds` from now; 0 sends the dog away until it is fed again."""
        if self.armed:
            signal.setitimer(signal.ITIMER_REAL, seconds)


watchdog = _Watchdog()


class ChildDied(Exception):
    """The child was killed by a signal, or ended without an answer."""


class ChildTimeout(Exception):
    """The child gave no answer in time and was killed."""


class Child:
    """`with Child(seconds) as child: child.call(function, argument)`; functions and arguments travel by pickle."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._kill()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result, or the exception, of the call. Raises ChildDied or ChildTimeout; the next call starts anew."""
        process = self._process or self._start(function.__module__)
        assert process.stdin is not None and process.stdout is not None
        try:
            pickle.dump((function, arguments), process.stdin)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], self.seconds)[0]:
                self._kill()
                raise ChildTimeout(f"no answer in {self.seconds:g} s")
            result = pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = self._kill()
            died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ChildDied(f"died of {died}") from None
        if isinstance(result, BaseException):
            raise result
        return result

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stages.careful"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((_warm_up, (module,)), self._process.stdin)  # its start and imports are not on the clock
        self._process.stdin.flush()
        pickle.load(self._process.stdout)
        return self._process

    def _kill(self) -> int:
        """Ends the child; its exit code, negative for a signal (SIGKILL if it was this one)."""
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            code = process.wait(0.2)  # dead already, as a rule; its own signal is the better witness
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        with suppress(BrokenPipeError):  # it died with our words unread
            process.communicate()
        return code


def _warm_up(module: str) -> None:
    importlib.import_module(module)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between two answers
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = function(*arguments)
        except Exception as error:  # travels back and is raised there
            result = error
        pickle.dump(result, answers)
        answers.flush()


if __name__ == "__main__":
    _serve()
