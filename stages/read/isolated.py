"""A process beside this one for work on foreign bytes: it may crash or hang, and costs one record.

C parsers crash, and regular expressions run for ever, on bytes that somebody chose. So records are read and judged in
a child, started once a process and kept, that sends each result as it is ready. Its time is kept by the kernel: a timer
that is granted to each record, and that stands still while the child waits for a store, ends it. What is missing then
is the record at fault; a new child goes on behind it. The child never outlives a record that hangs, nor its parent.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO

MODULE = "gristmill.stages.read.isolated"
"""What the child runs: this file."""
PIPE = 64 << 10
"""Bytes of answers that wait in a pipe, as Linux makes them."""
SHORTEST, LONGEST = 0.001, 0.032
"""Seconds for which answers are left to gather: a batch is not felt where a chunk takes seconds."""


class _Watchdog:
    """Ends this process unless it is fed in time. Armed in children only: their death is handled."""

    armed = False

    def arm(self) -> None:
        """To be called in the main thread."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the kernel's own action: C code cannot put it off
        self.armed = True

    def feed(self, seconds: float) -> None:
        """Grants `seconds` from now; 0 sends the dog away until it is fed again."""
        if self.armed:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Time that passes in here counts for no record."""
        left = signal.setitimer(signal.ITIMER_REAL, 0)[0] if self.armed else 0.0
        try:
            yield
        finally:
            if left:
                self.feed(left)


watchdog = _Watchdog()


class _Gathered(io.RawIOBase):
    """Answers out of a pipe, many at a time.

    Who waits for each answer is woken for each, which costs some tenth of a millisecond where a page takes two. So they
    are left to gather, the longer the fewer there are: a full pipe would hold the child up. What it answered before it
    died is in the pipe, and is read.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._pause = pipe, 0.0

    def hurry(self) -> None:
        """The next answers are wanted at once: there may be one alone."""
        self._pause = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        time.sleep(self._pause)
        size = os.readv(self._pipe.fileno(), [buffer])
        if size > PIPE // 4:
            self._pause = self._pause / 2 if self._pause > SHORTEST else 0.0
        else:
            self._pause = min(LONGEST, max(SHORTEST, 2 * self._pause))
        return size


class ChildDied(Exception):
    """The child was killed by a signal, or ended without an answer."""


class ChildTimeout(Exception):
    """The child used up the time that it was granted."""


class Child:
    """A process that iterates for this one. Functions and arguments travel by pickle; what it prints goes to stderr."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._gathered: _Gathered | None = None
        self._answers: BinaryIO = io.BytesIO()
        self._surroundings: tuple[object, ...] = ()

    def iterate(self, function: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
        """What the generator yields, as it yields it; its exceptions are raised here.

        Raises ChildDied or ChildTimeout in place of the item at which it died; the next call starts anew.
        """
        process = self._running()
        assert process.stdin is not None and self._gathered is not None
        self._gathered.hurry()
        whole = False
        try:
            # Pickled twice: the child's loop reads a whole call as bytes before it tries to unpickle it, so a function
            # that cannot be imported there is an error that it can answer with, not a stream out of step.
            pickle.dump(pickle.dumps((function, arguments)), process.stdin)
            process.stdin.flush()
            while True:
                kind, result = pickle.load(self._answers)
                if kind == "item":
                    yield result
                    continue
                whole = True
                if kind == "error":
                    raise result
                return
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise self._death() from None
        finally:
            if not whole:  # the caller left the loop: answers that are still to come would be taken for the next call's
                self.close()

    def close(self) -> None:
        """Ends the process, if there is one; the next call starts another."""
        self._end()

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return self._process.pid if self._process else None

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, a new one if there is none, or if what a process inherits has changed since it was started."""
        # The pid: after a fork this object is in two processes, and the pipes belong to the one that opened them.
        surroundings = (os.getpid(), os.getcwd(), tuple(sys.path), dict(os.environ))
        if self._process is not None and (self._process.poll() is not None or self._surroundings != surroundings):
            self.close()
        if self._process is None:
            path = os.pathsep.join(entry for entry in sys.path if entry)
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert self._process.stdout is not None
            self._gathered = _Gathered(self._process.stdout)
            self._answers = io.BufferedReader(self._gathered, PIPE)
            self._surroundings = surroundings
            self._greeted()
        return self._process

    def _greeted(self) -> None:
        """Waits until the child has started, so that a Python which cannot start is no record's fault."""
        try:
            pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError):
            error = self._death()
            raise RuntimeError(
                f"the process that records are read in ({sys.executable} -m {MODULE}) did not start: {error};"
                " what it printed stands above"
            ) from None

    def _death(self) -> Exception:
        code = self._end()
        if code == -signal.SIGALRM:
            return ChildTimeout("no answer in time")
        return ChildDied(f"died of {signal.Signals(-code).name}" if code < 0 else f"died with exit code {code}")

    def _end(self) -> int:
        """Ends the process; its exit code, negative for a signal (SIGKILL if it was this one)."""
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):  # it died before it read what was buffered for it
            process.stdin.close()
        try:
            code = process.wait(0.2)  # dead already, as a rule; its own signal is the better witness
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        process.stdout.close()
        return code


_children = threading.local()


def child() -> Child:
    """The child of this thread; it is ended with this process."""
    if not hasattr(_children, "child"):
        _children.child = Child()
        atexit.register(_children.child.close)
    kept: Child = _children.child
    return kept


def serve() -> None:
    """What the child does: runs one generator after another until its parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    watchdog.arm()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints, C code too, must not stand between two answers
    _send(answers, "ready", None)
    while True:
        try:
            call = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            function, arguments = pickle.loads(call)
            for item in function(*arguments):
                _send(answers, "item", item)
            _send(answers, "end", None)
        except BrokenPipeError:  # the parent is gone
            return
        except Exception as error:  # travels back and is raised there
            watchdog.feed(0)
            error.add_note("in the child:\n" + traceback.format_exc())
            _send(answers, "error", error)


def _send(answers: BinaryIO, kind: str, result: Any) -> None:
    """Writes one answer: `ready`, `item`, `end` or `error`, with its result."""
    with watchdog.asleep():  # the parent takes what it is sent when it has time
        try:
            data = pickle.dumps((kind, result))
        except Exception as error:
            if kind != "error":  # raised at the item, it is sent as an error; one that cannot be sent goes as its text
                raise
            data = pickle.dumps((kind, RuntimeError(f"{type(result).__name__}: {result} ({error})")))
        answers.write(data)
        answers.flush()


if __name__ == "__main__":
    # `-m` runs this file as __main__, a second copy beside the module that stages import: its own watchdog would never
    # be fed. So the module's `serve` runs.
    from gristmill.stages.read.isolated import serve as serve_as_module

    serve_as_module()
