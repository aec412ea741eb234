"""What the benchmarks share: contests in turns, figures with their spread, and the proof that the work is the same.

Contestants run in one process, in turns, so that the machine's load falls on all of them; CPU time of this process
and of its children that have ended. A ratio is taken within a round; its median is the figure, minimum and maximum
over the rounds its spread. The outcomes of every round are compared before a figure exists: contestants that do
not do the same work raise `Differ`. Absolute seconds depend on the machine, so trust ratios.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.cpu_time import cpu_seconds

PACKAGES = (
    "gristmill",
    "datatrove",
    "fastwarc",
    "fasttext-numpy2-wheel",
    "numpy",
    "pyarrow",
    "resiliparse",
    "spacy",
    "tokenizers",
    "webdataset",
)
FORKED = False
"""Whether `own_process` forks one from a server that has imported already: for tests, which look at no memory."""
T = TypeVar("T")


class Differ(Exception):
    """The contestants did not do the same work, so that their times say nothing; the message shows a difference."""


class Arm(NamedTuple):
    """One contestant. `prepare` is not timed: it brings caches to the state that `run` is to find."""

    run: Callable[[], Any]
    prepare: Callable[[], object] = lambda: None


class Figure(NamedTuple):
    """A median with the range it was seen in."""

    median: float
    low: float
    high: float


class Places:
    """A new folder for every run, with what it starts from under another name: no receipt of a run serves the next."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, count()

    def fresh(self, origin: Path | None = None) -> Path:
        """A folder that is not there yet or, with an origin, holds links to its files."""
        place = self.folder / str(next(self.numbers))
        if origin is not None:
            shutil.copytree(origin, place, copy_function=os.link)
        return place


@dataclass(frozen=True)
class Row:
    """One line of the table. unit: "x" (how often), "/s", "ms", "MB/s", "%" or "KB". same: how equal work was seen.
    `figure` None: it was not measured, and `why` says the reason; `failed`: that is a fault of what is measured, not of
    a peer or of the machine."""

    what: str
    figure: Figure | None
    unit: str
    same: str = ""
    why: str = ""
    failed: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is stored; without the reason of a row that needs none."""
        values = {**asdict(self), "figure": rounded(self.figure._asdict()) if self.figure else None}
        return values if self.why else {name: value for name, value in values.items() if name not in ("why", "failed")}


@dataclass(frozen=True)
class Report:
    """What a benchmark found. `data` says what it ran on; `notes` qualify the figures; `details` are for machines."""

    name: str
    data: str
    rounds: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is stored in benchmarks/results."""
        rows = [row.to_json() for row in self.rows]
        return {**asdict(self), "rows": rows, "details": rounded(self.details), "machine": machine()}


@dataclass(frozen=True)
class Times:
    """Seconds of each arm, one entry a round, and what the last round came to."""

    cpu: Mapping[str, Sequence[float]]
    wall: Mapping[str, Sequence[float]]
    outcomes: Mapping[str, Any]

    def seconds(self, *arms: str) -> Figure:
        """CPU seconds of the arms together."""
        return figure([sum(parts) for parts in zip(*(self.cpu[arm] for arm in arms), strict=True)])

    def ratio(self, above: str | tuple[str, ...], below: str | tuple[str, ...]) -> Figure:
        """CPU time of `above` over that of `below`, round by round; several arms add up."""
        return figure([a / b for a, b in zip(self._sums(above), self._sums(below), strict=True)])

    def _sums(self, arms: str | tuple[str, ...]) -> list[float]:
        names = (arms,) if isinstance(arms, str) else arms
        return [sum(parts) for parts in zip(*(self.cpu[name] for name in names), strict=True)]


def measured(name: str, tiny: bool) -> Report:
    """What the benchmark of this name finds. Raises Differ."""
    report: Report = importlib.import_module(f"benchmarks.bench_{name}").run(tiny)
    return report


def measured_alone(name: str) -> Report:
    """The same in a process of its own: what the benchmarks before it left behind is not its memory, nor its cache."""
    return alone(measured, name, False)


def own_process() -> SpawnContext | ForkServerContext:
    """How a process of its own is started: it has seen nothing, and imports anew."""
    return multiprocessing.get_context("forkserver") if FORKED else multiprocessing.get_context("spawn")


def alone(call: Callable[..., T], *arguments: Any) -> T:
    """What a call comes to in a process of its own, whose memory is gone with it. Raises what the call raises."""
    with ProcessPoolExecutor(1, own_process()) as pool:
        return pool.submit(call, *arguments).result()


def clocked(function: Callable[..., Any], seconds: dict[str, float], part: str) -> Callable[..., Any]:
    """The function, whose calls add their CPU seconds, of this process, to those of a part."""

    def run(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.process_time() - started

    return run


def parts_of(
    build: Callable[[], object], timed: Callable[[], AbstractContextManager[Mapping[str, float]]], rounds: int
) -> list[dict[str, float]]:
    """CPU seconds of each part of a build in this process, of all `else` and of the `whole`, round by round. `timed`:
    gives those of the parts once it was open over a build."""
    rows = []
    for n in range(rounds + 1):
        started = time.process_time()
        with timed() as seconds:
            build()
        whole = time.process_time() - started
        if n:  # the first one imports
            rows.append({**seconds, "else": whole - sum(seconds.values()), "whole": whole})
    return rows


def forget_peak() -> None:
    """From here on `resident("VmHWM")` is the most since now: what imports took at their peak is left out. On Linux
    alone."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(name: str = "VmRSS") -> int:
    """Bytes of memory that this process has, or had at most ("VmHWM"). Not `ru_maxrss`, which a child inherits: it
    would be the peak of what ran before. On Linux alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def contest(arms: Mapping[str, Arm], rounds: int, check: Callable[[Mapping[str, Any]], None]) -> Times:
    """Runs the arms in turns. `check` sees the outcomes of each round and raises Differ.

    A first round is run and checked but not counted: imports, models and page faults are nobody's speed.
    """
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    wall: dict[str, list[float]] = {name: [] for name in arms}
    outcomes: dict[str, Any] = {}
    for n in range(rounds + 1):
        outcomes.clear()
        for name, arm in arms.items():
            arm.prepare()
            gc.collect()  # nobody pays for what the one before left
            started, used = time.perf_counter(), cpu_seconds()
            outcomes[name] = arm.run()
            if n:
                cpu[name].append(max(cpu_seconds() - used, 1e-6))
                wall[name].append(time.perf_counter() - started)
        check(outcomes)
    return Times(cpu, wall, outcomes)


def figure(values: Sequence[float]) -> Figure:
    """Median, least and greatest."""
    return Figure(statistics.median(values), min(values), max(values))


def percentiles(values: Sequence[float]) -> Figure:
    """Median, 5th and 95th percentile: for many single calls, of which some are always unlucky."""
    ordered = sorted(values)
    return Figure(
        statistics.median(ordered), ordered[round(0.05 * (len(ordered) - 1))], ordered[round(0.95 * (len(ordered) - 1))]
    )


def require_equal(what: str, left: Sequence[Any], right: Sequence[Any]) -> None:
    """Raises Differ at the first place where the two differ."""
    if len(left) != len(right):
        raise Differ(f"{what}: {len(left)} against {len(right)}")
    for n, (a, b) in enumerate(zip(left, right, strict=True)):
        if a != b:
            raise Differ(f"{what}: number {n} is {a!r:.200} against {b!r:.200}")


def alike(what: str) -> Callable[[Mapping[str, Any]], None]:
    """A check of outcomes: raises Differ unless all are one."""

    def check(outcomes: Mapping[str, Any]) -> None:
        first, *others = outcomes
        for other in others:
            require_equal(f"{what} of {first} and {other}", [outcomes[first]], [outcomes[other]])

    return check


def machine() -> dict[str, Any]:
    """What it ran on, without the name of the host."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions(names: Sequence[str]) -> dict[str, str]:
    """The version of each of these packages that is installed."""
    there: dict[str, str] = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            there[name] = importlib.metadata.version(name)
    return there


def rounded(value: Any) -> Any:
    """Numbers to four significant digits, however deep they lie: more would only be noise in a diff."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
