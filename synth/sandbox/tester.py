"""The tester's process: it has programs forked, runs the tests of one problem, and decides.

Tests are Python statements that raise where the program is wrong. They run here, with the functions of the program
replaced by stand-ins that send a call and receive a value; so a program that prints the words of success, ends itself
with 0 or redefines `assert` has changed nothing that decides.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import random
import signal
import socket
import sys
from typing import Any

from gristmill.synth.sandbox.isolation import Limits
from gristmill.synth.sandbox.nursery import End, Nursery, NurseryLost, give_up_rights
from gristmill.synth.sandbox.program import Entry, Setting, close_all_but
from gristmill.synth.sandbox.remote import OverLimit, ProgramGone, Remote
from gristmill.synth.sandbox.values import BadMessage, receive, send

ENTRIES = (Entry(True, True), Entry(False, True), Entry(True, False), Entry(False, False))
"""From the best. Only root has a uid to drop."""


class Names(dict[str, Any]):
    """The names of the tests: what they define, else what the program defines, else Python's own.

    `replaced`: the names of Python's own that a program may stand in for; another that it defines is not the tests'
    (`def set(items): return 1` makes no two sets equal). `modules`: those that the tests judge by, whoever imports
    them: `math.isclose(f(2), 1.41)`, asked of the program, would tell it what is expected, and believe it.
    """

    def __init__(self, remote: Remote, replaced: frozenset[str], modules: frozenset[str]) -> None:
        super().__init__({"__name__": "tests", "__builtins__": builtins})
        self.remote, self.replaced, self.modules = remote, replaced, modules
        self.programs = frozenset[str]()

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) and not (name in self.programs and name in self.replaced):
            raise KeyError(name)
        if name in self.modules:
            return importlib.import_module(_ALIASES.get(name, name))
        return self.remote.ask(do="name", name=name)


def _nodes(work: dict[str, Any]) -> list[ast.AST]:
    """What the tests of a problem consist of; nothing of tests that do not run, which decide nothing."""
    try:
        trees = [ast.parse(text) for text in (work["prelude"], *work["tests"])]
    except (SyntaxError, ValueError):
        return []
    return [node for tree in trees for node in ast.walk(tree)]


def used_modules(work: dict[str, Any]) -> frozenset[str]:
    """The names of modules that the tests of a problem use as such (`math.isclose`), and that they do not test."""
    nodes = _nodes(work)
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    owners = [node.value for node in nodes if isinstance(node, ast.Attribute)]
    used = {owner.id for owner in owners if isinstance(owner, ast.Name)}
    return frozenset(used & {*sys.stdlib_module_names, *_ALIASES} - called - {*work["hidden"]})


def replaceable(work: dict[str, Any]) -> frozenset[str]:
    """The names of Python's own that are what the tests of a problem test: the function that is asked for, if that is
    known; else all that they name, where they name nothing but these: `assert sum(10, 15) == 6`."""
    if work["hidden"]:
        return frozenset(work["hidden"])
    nodes = _nodes(work)
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
_ALIASES = {"np": "numpy", "numpy": "numpy", "pd": "pandas"}
"""What modules beyond the standard library are called."""


def run_tester(channel: socket.socket, setting: Setting, nursery: Nursery, work: dict[str, Any]) -> None:
    """The life of a tester: gives up its rights, then tests one program after the other, all for the same tests.

    `work`: `prelude`, `hidden`, `tests`. A request is `source`; an answer what came of it, with the `layers` reached.
    """
    limits = setting.limits
    close_all_but(channel.fileno(), nursery.asks.fileno(), setting.proc)
    give_up_rights(setting)
    work = work | {"replaced": replaceable(work), "modules": used_modules(work)}
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
        names = Names(remote, job["replaced"], job["modules"])
        exec(_declared(job["prelude"]), names)
        for name in job["hidden"]:
            names.pop(name, None)  # what the prelude only declares is the program's
        names.programs = frozenset(remote.ask(do="load", source=job["source"]))
        for number, test in enumerate(job["tests"]):
            exec(compile(test, f"<test {number}>", "exec"), names)
            if remote.lost is not None:  # and the test caught it
                raise remote.lost
    except BaseException as error:  # the program's, an assertion, or what a wrong value leads to
        return _failure(remote.lost or error, number)
    return {"status": "passed", "detail": f"{len(job['tests'])} tests", "test": number}


def _declared(prelude: str) -> Any:
    """The code of a prelude, which may end with the head of a function whose body is the program's."""
    try:
        return compile(prelude, "<prelude>", "exec")
    except SyntaxError:
        return compile(f"{prelude}\n    pass\n", "<prelude>", "exec")


def _failure(error: BaseException, number: int) -> dict[str, Any]:
    if isinstance(error, ProgramGone):
        return {"status": "gone"}
    if isinstance(error, OverLimit | BadMessage):
        status = "message_limit" if isinstance(error, OverLimit) else "forged"
        return {"status": status, "detail": str(error), "test": number}
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    programs = getattr(error, "from_program", None)
    if programs is not None:
        status = "memory_limit" if isinstance(error, MemoryError) else "raised"
        return {"status": status, "detail": programs, "test": number}
    if isinstance(error, MemoryError):
        return {"status": "memory_limit", "detail": "in the tests", "test": number}
    catches = isinstance(error, TypeError) and str(error).startswith("catching classes")  # of the program: it has none
    if catches or isinstance(error, SyntaxError | NameError | ImportError):
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
