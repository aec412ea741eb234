"""Sandboxes under test: what of them runs, and what is left once a program has ended."""

from __future__ import annotations

import os

import psutil

from gristmill.synth.sandbox.sandbox import Execution, Sandbox


def servers(sandbox: Sandbox) -> list[str]:
    """The names of its servers that are idle."""
    return [server.name for server in sandbox._idle.queue if server is not None]


def processes_of(names: list[str]) -> list[int]:
    """Every process of these servers, in whatever namespace, session or group: a fork keeps its command line."""
    numbers = []
    for process in psutil.process_iter():
        try:
            if set(process.cmdline()) & set(names) and process.status() != psutil.STATUS_ZOMBIE:
                numbers.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return numbers


def run(sandbox: Sandbox, source: str, *tests: str) -> Execution:
    """Runs a program; afterwards only the server and its nursery are there, at most with a tester that waits, and they
    serve."""
    execution = sandbox.run(source, tests)
    (server,) = [server for server in sandbox._idle.queue if server is not None]
    left = set(processes_of([server.name])) - {server.process.pid}
    assert 1 <= len(left) <= 2
    for process in left:
        assert psutil.Process(process).ppid() == server.process.pid
        assert os.readlink(f"/proc/{process}/ns/pid") == os.readlink("/proc/self/ns/pid")  # no program's
    assert sandbox.run("def double(n): return 2 * n", ["assert double(2) == 4"]).status == "passed"
    return execution
