"""The symbolic tier: math-verify in children that are killed when they take too long.

math-verify in the caller's process raises in a worker thread, takes the main thread's alarm away, and was seen to
compute `10^{10^{10}}` for ten seconds. Here threads share a few warm children; a child that ran out of time or
memory, or crashed, is replaced, and the answer stays undecided. A child ends when its stdin is closed, and by its own
timer.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from gristmill.synth.verify.answers.final import LONGEST_ANSWER

RELATIONS = (
    "same",
    "different",
    "unparseable_gold",
    "unparseable_answer",
    "failed",  # comparing raised: it would again
    "timeout",  # it took `cpu_s`: it would again
    "hung",  # `wall_s` passed before that: the machine is busy
    "crashed",
    "too_long",
)
RELEASES = ("latex2sympy2-extended", "math-verify", "sympy")
"""Distributions that say whether two answers are the same: by their releases they do."""
_CHILD = Path(__file__).with_name("symbolic_child.py")
_START_S = 120.0
"""Seconds that a child may take to import computer algebra on a loaded machine."""


@dataclass(frozen=True)
class SymbolicLimits:
    """`cpu_s`: processor seconds of a comparison, the limit that normally ends one: it does not depend on the load.

    `wall_s`: seconds by the clock, for a child that hangs. `memory`: bytes of a child's address space. `children`: how
    many there are at most, each started when it is first needed.
    """

    cpu_s: float = 5.0
    wall_s: float = 60.0
    memory: int = 4 << 30
    children: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.cpu_s <= self.wall_s:
            raise ValueError(f"SymbolicLimits: 0 < cpu_s <= wall_s, not cpu_s={self.cpu_s}, wall_s={self.wall_s}")
        if self.children < 1:
            raise ValueError(f"SymbolicLimits: children={self.children}: at least 1")


class Symbolic:
    """Compares two answers by computer algebra. Any thread may call it; `close` ends the children."""

    def __init__(self, limits: SymbolicLimits = SymbolicLimits()) -> None:
        self.limits = limits
        self.restarts = 0
        """Children that were replaced."""
        self._lock = threading.Lock()
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(limits.children):
            self._idle.put(None)  # started by whoever takes it

    def relation(self, gold: str, answer: str) -> str:
        """One of RELATIONS. What is longer than LONGEST_ANSWER is not compared."""
        if max(len(gold), len(answer)) > LONGEST_ANSWER:
            return "too_long"
        child = self._idle.get()
        try:
            if child is None:
                child = _Child(self.limits)
            relation = child.relation(gold, answer)
            if relation in ("timeout", "hung", "crashed"):
                child.end()
                child = None
                with self._lock:
                    self.restarts += 1
            return relation
        except BaseException:  # an interrupt in the middle of a request: its reply would be taken for the next one's
            if child is not None:
                child.end()
                child = None
            raise
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """Ends the children that are idle; who compares afterwards starts new ones."""
        for _ in range(self.limits.children):
            child = self._idle.get()
            if child is not None:
                child.end()
            self._idle.put(None)


class _Child:
    """A process, and one request to it at a time."""

    def __init__(self, limits: SymbolicLimits) -> None:
        self.limits = limits
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), str(limits.memory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=_environment(),
        )  # fmt: skip
        self._ended = weakref.finalize(self, _end, self.process)
        self.buffer = b""
        if self.line(_START_S) is None:
            self.end()
            raise RuntimeError(
                f"math-verify did not start within {_START_S:.0f} s (exit status {self.process.returncode}): "
                f"look at what `{sys.executable} -c 'import math_verify'` says"
            )

    def relation(self, gold: str, answer: str) -> str:
        request = json.dumps({"gold": gold, "answer": answer, "cpu_s": self.limits.cpu_s})
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it ended since the last request
            return "crashed"
        line = self.line(self.limits.wall_s)
        if line is None:
            status = self.process.poll()
            if status is None:
                return "hung"
            return "timeout" if status == -signal.SIGPROF else "crashed"  # its own limit ends it by SIGPROF
        return str(json.loads(line)["relation"])

    def line(self, wall_s: float) -> bytes | None:
        """The next line; None: the child ended, or `wall_s` seconds passed."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + wall_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    self.process.wait()
                    return None
                self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def end(self) -> None:
        self._ended()


def _environment() -> dict[str, str]:
    """A child's environment: nothing of ours, above all no secret, since it parses what a model wrote."""
    path = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:  # what was not flushed to a child that is gone
                continue
