"""The fork server: a fresh interpreter that imports what programs use, shuts itself in, and forks for each execution.

It runs one execution at a time, waits for its report or its limit of time, and kills all that is left of it before it
answers. It ends with whoever started it: the channel closes, in the middle of an execution too.

    python -P -m gristmill.synth.sandbox.server DESCRIPTOR NAME
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from gristmill.synth.sandbox import groups, jail, kernel
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.tester import ENTRIES, Entry, Setting, run_tester
from gristmill.synth.sandbox.values import BadMessage, receive, send

IMPORTED = """array bisect cmath collections copy datetime decimal functools heapq itertools math operator random re
string typing"""
"""Modules that every program finds imported, since most want them. Others are imported when they are asked for: a fork
costs in proportion to what is there."""
_TRIAL = {"source": "def double(n):\n    return 2 * n\n", "tests": ["assert double(21) == 42"]}


def main() -> None:
    """Serves executions over the socket whose number is the first argument, until the other end closes it.

    The second is a name, by which all its processes can be found.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    first = receive(channel, 1 << 20)
    if first is None:
        return
    try:
        setting, layers = prepare(first)
    except Exception:  # whoever started this learns why it cannot be
        send(channel, {"failed": traceback.format_exc()}, 1 << 20)
        return
    send(channel, {"layers": layers}, 1 << 20)
    while (job := receive(channel, setting.limits.message)) is not None:
        result = execute(channel, setting, job)
        if result is None:
            return
        send(channel, result, setting.limits.message)


def prepare(first: dict[str, Any]) -> tuple[Setting, dict[str, Any]]:
    """Imports, shuts in, and tries which way into namespaces this machine allows. Returns the layers reached."""
    limits = Limits(**first["limits"])
    for name in (*IMPORTED.split(), *first["modules"]):
        importlib.import_module(name)
    kernel.adopt_orphans()
    layers: dict[str, Any] = {"bubblewrap": first["bubblewrap"], "cgroup": bool(first["groups"])}
    groups.join(first["groups"])
    proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    baseline = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    folders = jail.readable_folders()
    left = jail.leave()
    if left:
        jail.enter(folders)
    if left or first["bubblewrap"]:
        layers |= {"network_namespace": True, "mount_namespace": True, "jail": left}
    if first["bubblewrap"]:  # one namespace a server is less than one an execution, which is still tried below
        layers |= {"pid_namespace": True, "ipc_namespace": True}
    with contextlib.suppress(OSError):  # another architecture: then no program has it, and the level says so
        kernel.filter_program()
    gc.collect()
    gc.freeze()  # so that a fork does not copy what is never freed
    setting = Setting(limits, Entry(False, False, False), layers, folders, proc, baseline)
    for entry in ENTRIES:
        if entry.drop and os.getuid():
            continue
        trial = replace(setting, entry=entry)
        result = execute(None, trial, job(_TRIAL))
        if result is not None and result["status"] == "passed":
            return trial, result["layers"]
    raise RuntimeError(f"the trial program does not run: {result}")


def job(fields: dict[str, Any]) -> dict[str, Any]:
    """A job with the defaults of what `fields` leaves out."""
    return {"prelude": "", "hidden": [], "tests": [], **fields}


def execute(channel: socket.socket | None, setting: Setting, work: dict[str, Any]) -> dict[str, Any] | None:
    """Runs a job and leaves no process of it. None: whoever asked is gone. `channel`: watched for that."""
    reports, testers = socket.socketpair()
    tester = os.fork()
    if not tester:
        try:
            reports.close()
            run_tester(testers, setting, work)
        except BaseException as error:  # reported as what it is: no verdict on the program
            with contextlib.suppress(OSError, BadMessage):
                send(testers, {"status": "infrastructure", "detail": repr(error)[:500]}, 1 << 20)
        finally:
            os._exit(0)
    testers.close()
    processes = [tester]
    try:
        with reports:
            report = _awaited(channel, reports, setting.limits, processes)
    finally:
        used = _end(processes, setting.proc)
    if report is not None and report["status"] == "killed":
        over = used.get(processes[-1], 0.0) >= setting.limits.cpu_s - 0.5
        report |= {"status": "cpu_limit" if over else "memory_limit"}
    return report


def _end(processes: list[int], proc: int) -> dict[int, float]:
    """Kills and reaps every process below this one. Returns the processor seconds that each used.

    Nobody else reaps, so a number in `processes` is still that of its process. Without a namespace of processes,
    orphans come to this process as its children, and go the same way.
    """
    used: dict[int, float] = {}
    targets = set(processes)
    while True:
        for process in targets | _children(proc):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            process, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return used
        targets.discard(process)
        used[process] = usage.ru_utime + usage.ru_stime


def _children(proc: int) -> set[int]:
    try:
        file = os.open(f"self/task/{os.getpid()}/children", os.O_RDONLY, dir_fd=proc)
    except FileNotFoundError:  # a kernel without this file, or a /proc of other namespaces
        return set()
    with open(file) as children:
        return {int(number) for number in children.read().split()}


def _awaited(
    channel: socket.socket | None, reports: socket.socket, limits: Limits, processes: list[int]
) -> dict[str, Any] | None:
    """The tester's report, with the layers; the program's process is added to `processes` when it is known."""
    deadline = time.monotonic() + limits.wall_s
    layers: dict[str, Any] = {}
    watched = [reports] if channel is None else [reports, channel]
    while True:
        ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return {"status": "wall_limit", "detail": f"{limits.wall_s} s", "layers": layers}
        if channel in ready:
            return None
        try:
            report = receive(reports, limits.message)
        except BadMessage as error:
            report = {"status": "infrastructure", "detail": str(error)}
        if report is None:
            report = {"status": "infrastructure", "detail": "the tester ended without a report"}
        if "program" in report:
            processes.append(int(report["program"]))
            layers = report["layers"]
        else:
            return {**report, "layers": layers}


if __name__ == "__main__":
    main()
