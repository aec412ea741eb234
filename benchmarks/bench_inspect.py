"""How long does somebody wait who looks into a lake of a thousand versions and a hundred million ledger rows?

Each command is run as a user runs it: a new process, from the shell's start of Python to the last line, with the
compiled modules that the first start leaves behind (whatever $PYTHONDONTWRITEBYTECODE says here). Figures are its CPU
time (user and system, of all its threads), which a busy machine changes least; wall times and memory stand in the
details. The answers are read as JSON and compared with what the lake was made of. Building the lake takes some minutes
and 4 GB (benchmarks/nightly_lake.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Figure, Report, Row, figure, require_equal
from benchmarks.ledgers import DATASET
from benchmarks.nightly_lake import Nights, build, probe
from gristmill.lake.store.objects import scratch
from gristmill.lake.store.opening import open_store

ROOT = Path(__file__).resolve().parents[1]
FULL = Nights(crawl=98_000_000, nights=1000, night=2000)
TINY = Nights(crawl=20_000, nights=20, night=200)


class Command(NamedTuple):
    """A command, and what is to be true of its answer."""

    arguments: tuple[str, ...]
    read: Callable[[Any], Any]
    expected: Any


class Run(NamedTuple):
    """One process. Seconds; megabytes of memory at most."""

    cpu: float
    wall: float
    memory: float
    answer: str


def commands(size: Nights) -> list[Command]:
    """Each question of the lake, with its answer."""
    last, middle = size.nights, size.nights // 2
    newest, before, url = f"{DATASET}@v{last}", f"{DATASET}@v{last - 1}", probe(middle, 1)
    return [
        Command(("ls",), lambda rows: rows[0]["versions"], last),
        Command(("ls", DATASET), len, last),
        Command(("log", DATASET), lambda rows: [row["version"] for row in rows], list(range(last, 0, -1))),
        Command(("show", DATASET), lambda about: about["version"], last),
        Command(("show", f"{DATASET}@v{middle}"), lambda about: about["version"], middle),
        Command(("stats", DATASET), lambda about: about["version"], newest),
        Command(("diff", before, newest), lambda diff: len(diff["inputs_added"]), 1),
        Command(("why", url), lambda why: why["stories"][0]["versions"], list(range(middle + 1, last + 1))),
        Command(("sample", DATASET), lambda drawn: len(drawn["samples"]), 5),
        Command(("sample", DATASET, "--fate", "dropped"), _fates, ["dropped"] * 5),
        Command(("sample", DATASET, "--reason", "exact.same_text"), _reasons, ["exact.same_text"] * 5),
        Command(("lineage", DATASET), lambda graph: len(graph["nodes"]), last),
        Command(("lineage", newest, "--record", url), lambda graph: len(graph["nodes"]), last - middle),
    ]


def _fates(drawn: Any) -> list[str]:
    return [record["fate"] for record in drawn["samples"]]


def _reasons(drawn: Any) -> list[str]:
    return [record["reason"] for record in drawn["samples"]]


def timed(folder: Path, arguments: tuple[str, ...]) -> Run:
    """The whole command, in a process of its own. Raises CalledProcessError."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "compiled")
    line = [sys.executable, "-m", "gristmill.orchestration.cli.main", *arguments, "--lake", str(folder)]
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(line, cwd=ROOT, stdout=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, line)
        output.seek(0)
        return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1000, output.read())


def measure(folder: Path, size: Nights, rounds: int) -> Report:
    """The report on a lake that is there."""
    rows, details = [], dict[str, Any]()
    for command in commands(size):
        name = " ".join(("grist", *command.arguments))
        answer = json.loads(timed(folder, (*command.arguments, "--json")).answer)
        require_equal(name, [command.read(answer)], [command.expected])
        runs = [timed(folder, command.arguments) for _ in range(rounds)]
        cpu = figure([1000 * run.cpu for run in runs])
        rows.append(Row(f"{name}: CPU", cpu, "ms", "its answer, against what the lake was made of"))
        details[name] = {
            "wall_ms": [1000 * run.wall for run in runs],
            "memory_mb": max(run.memory for run in runs),
        }
    slowest = max(row.figure.median for row in rows if row.figure)
    rows.append(Row("slowest of them: CPU", Figure(slowest, slowest, slowest), "ms"))
    data = f"{size.nights:,} versions of a dataset, {size.rows:,} ledger rows in the newest, local disk"
    load = f"{os.getloadavg()[0]:.0f} processes wanted the machine's {os.cpu_count()} cores at the end"
    return Report("inspect", data, rounds, tuple(rows), (load,), details)


def run(tiny: bool) -> Report:
    """The report; `tiny` with 20 versions."""
    size, rounds = (TINY, 1) if tiny else (FULL, 5)
    with scratch() as folder:
        store = open_store(str(folder / "lake"))
        for _ in build(store, size):
            pass
        return measure(folder / "lake", size, rounds)
