"""The fork server: a fresh interpreter that imports what programs use, shuts itself in, and forks testers.

It runs one execution at a time and waits for its report or its limit of time; a tester that comes to no clean end is
killed with all that it started before there is an answer. It ends with whoever started it: the channel closes, in the
middle of an execution too.

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
import traceback
from pathlib import Path
from typing import Any

from gristmill.synth.sandbox import groups, jail, kernel
from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.nursery import Nursery, NurseryLost, children
from gristmill.synth.sandbox.program import Setting
from gristmill.synth.sandbox.tester import ENTRIES, run_tester
from gristmill.synth.sandbox.values import BadMessage, receive, send

IMPORTED = """array bisect cmath collections copy datetime decimal functools heapq itertools math operator random re
string typing"""
"""Modules that every program finds imported, since most want them. Others are imported when they are asked for: a fork
costs in proportion to what is there."""
_TRIAL = {"source": "def double(n): return 2 * n", "tests": ["assert double(2) == 4"], "prelude": "", "hidden": []}
_CLEAN = ("passed", "failed", "raised", "exited", "crashed")
"""After these the tester may test another program."""


def main() -> None:
    """Serves executions over the socket whose number is the first argument, until the other end closes it.

    The second is a name, by which all its processes can be found.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    first = receive(channel, 1 << 20)
    if first is None:
        return
    try:
        setting, nursery, layers = prepare(first)
    except Exception:  # whoever started this learns why it cannot be
        send(channel, {"failed": traceback.format_exc()}, 1 << 20)
        return
    send(channel, {"layers": layers}, 1 << 20)
    testers = Testers(setting, nursery, channel)
    while (work := receive(channel, setting.limits.message)) is not None:
        report = testers.execute(work)
        if report is None:
            break
        send(channel, report, setting.limits.message)
    testers.end()
    nursery.close()


def prepare(first: dict[str, Any]) -> tuple[Setting, Nursery, dict[str, Any]]:
    """Imports, shuts in, and tries which way into namespaces this machine allows. Returns the layers reached, and what
    forks programs: it is made here, before any test is known."""
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
    try:  # a jail holds nothing that may not be read, and nothing that can be written but its own /tmp
        rules = kernel.landlock_rules([] if left else [*folders, "/dev", "/etc/localtime"], ["/"] if left else [])
    except OSError:  # a kernel without it
        rules = -1
    with contextlib.suppress(OSError):  # another architecture: then no program has it, and the level says so
        kernel.filter_program()
    gc.collect()
    gc.freeze()  # so that a fork does not copy what is never freed
    report: dict[str, Any] | None = None
    for entry in ENTRIES:
        if entry.drop and os.getuid():
            continue
        setting = Setting(limits, entry, layers, proc, rules, baseline, left)
        nursery = Nursery.forked(setting)
        testers = Testers(setting, nursery, None)
        report = testers.execute(_TRIAL)
        testers.end()
        if report is not None and report["status"] == "passed":
            return setting, nursery, report["layers"]
        nursery.close()
    raise RuntimeError(f"the trial program does not run: {report}")


class Testers:
    """Runs jobs in testers, a tester a problem: samples of one problem that come one after the other share it.

    `nursery`: who forks the programs. `channel`: watched during an execution, since whoever asked may go.
    """

    def __init__(self, setting: Setting, nursery: Nursery, channel: socket.socket | None) -> None:
        self.setting, self.nursery, self.channel = setting, nursery, channel
        self.reports: socket.socket | None = None
        self.tester = 0
        self.work: dict[str, Any] = {}

    def execute(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Runs a job, and leaves no process of its program. None: whoever asked is gone, or no more can be run."""
        work = {key: value for key, value in job.items() if key != "source"}
        if self.reports is None or work != self.work:
            self.end()
            self._fork(work)
        assert self.reports is not None
        try:
            send(self.reports, {"source": job["source"]}, self.setting.limits.message)
            report = self._awaited(self.reports)
        except (BadMessage, ConnectionError) as error:
            report = {"status": "infrastructure", "detail": repr(error)}
        if report is None or report["status"] not in _CLEAN:
            self.end()
            try:
                self.nursery.end()
            except NurseryLost:  # a new one would be a fork of this process, which has seen tests
                return None
        return report

    def _fork(self, work: dict[str, Any]) -> None:
        self.reports, testers = socket.socketpair()
        self.work = work
        self.tester = os.fork()
        if self.tester:
            testers.close()
            return
        try:
            run_tester(testers, self.setting, self.nursery, work)
        except BaseException as error:  # reported as what it is: no verdict on the program
            with contextlib.suppress(OSError, BadMessage):
                send(testers, {"status": "infrastructure", "detail": repr(error)[:500]}, 1 << 20)
        finally:
            os._exit(0)

    def _awaited(self, reports: socket.socket) -> dict[str, Any] | None:
        wall_s = self.setting.limits.wall_s
        watched = [reports] if self.channel is None else [reports, self.channel]
        ready, _, _ = select.select(watched, [], [], wall_s)
        if not ready:
            return {"status": "wall_limit", "detail": f"{wall_s} s"}
        if self.channel in ready:
            return None
        report = receive(reports, self.setting.limits.message)
        if not isinstance(report, dict):
            return {"status": "infrastructure", "detail": "the tester ended without a report"}
        return report

    def end(self) -> None:
        """Kills and reaps the tester, and what its tests left, which becomes ours as it ends; the nursery stays."""
        if self.reports is None:
            return
        self.reports.close()
        self.reports = None
        left = {self.tester}
        while left:
            for process in left:
                os.kill(process, signal.SIGKILL)
            for process in left:
                os.waitpid(process, 0)
            left = children(self.setting.proc) - {self.nursery.process}


if __name__ == "__main__":
    main()
