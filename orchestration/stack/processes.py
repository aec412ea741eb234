"""Processes by identity: a pid alone is no name, because pids are used again.

A process is its pid, the tick of its start and the boot that tick counts from. A signal goes through a pidfd that was
opened before the identity was checked, so that it cannot reach a stranger who got the pid meanwhile. Whole families
are found by a mark in their environment, which children inherit also where they leave session and parent behind, as
Ray's and Prefect's do. Linux only: all of this is read from /proc.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Identity(NamedTuple):
    """`started` in clock ticks since the boot named `boot`."""

    pid: int
    started: int
    boot: str


def identify(pid: int) -> Identity | None:
    """Who has this pid now; None if nobody, or only a zombie."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if state in "ZX" else Identity(pid, int(fields[18]), _boot())


def myself() -> Identity:
    """This process."""
    identity = identify(os.getpid())
    assert identity is not None
    return identity


def alive(process: Identity) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def _boot() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def marked(name: str, value: str) -> list[Identity]:
    """Processes of this user that were started with NAME=VALUE in their environment; this one is left out."""
    wanted = f"{name}={value}".encode()
    family = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        process = identify(int(entry.name))
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, or gone
            continue
        if process is not None and wanted in environment and alive(process):
            family.append(process)
    return family


def send(process: Identity, number: signal.Signals) -> bool:
    """Signals that very process. False if it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(fd, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def end(find: Callable[[], list[Identity]], seconds: float) -> int:
    """SIGTERM to all that `find` finds, SIGKILL to what is there `seconds` later; how many there were.

    Whoever turns up on the way (a child started just before its parent heard of it) is ended as well.
    """
    terminated: set[Identity] = set()
    deadline = time.monotonic() + seconds
    while there := find():
        late = time.monotonic() > deadline
        for process in there:
            if late:
                send(process, signal.SIGKILL)
            elif process not in terminated:
                send(process, signal.SIGTERM)
            terminated.add(process)
        time.sleep(0.1)
    return len(terminated)
