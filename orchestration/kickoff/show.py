"""How a kickoff is shown: while it runs, what it came to, and what it would do.

On a terminal each end is a line that stays, and below stand the nodes under way, with the last line that each said; in
a log a line a start and an end, and one a minute for each node under way: both on stderr. What it came to is stdout's.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gristmill.orchestration.show.terminal import PIPE_WIDTH, Terminal, plain
from gristmill.pipelines.kickoff.bring import End
from gristmill.pipelines.kickoff.estimate import Estimate
from gristmill.pipelines.kickoff.plan import Plan, Planned

log = logging.getLogger("gristmill")

WORDS = {
    "there": "done before",
    "made": "done now",
    "gated": "held back",
    "failed": "failed",
    "held": "held",
    "stopped": "stopped",
}
_STYLES = {"there": "green", "made": "bold green", "gated": "yellow", "failed": "bold red", "held": "yellow"}
EVERY = 60.0
"""Seconds between two lines on a node in a log."""


def stderr() -> Console:
    """Where a kickoff is shown."""
    width = None if sys.stderr.isatty() else PIPE_WIDTH
    return Terminal(stderr=True, width=width, markup=False, emoji=False, highlight=False)


class Shown:
    """Told of starts, lines and ends, from any thread. `logs`: a folder that gets what each node said; `live`: whether
    a terminal shows who is under way, which it cannot where nodes draw bars of their own on it."""

    def __init__(
        self, total: int, console: Console, logs: Path | None = None, every: float = EVERY, live: bool = True
    ) -> None:
        self.total, self.console, self.logs, self.every = total, console, logs, every
        self.live = live and console.is_terminal
        self.running: dict[str, tuple[float, str]] = {}
        self.over = 0
        self._lock = threading.Lock()
        self._until_end = ExitStack()
        self._live: Live | None = None

    def __enter__(self) -> Shown:
        if self.logs is not None:
            self.logs.mkdir(parents=True, exist_ok=True)
        if self.live:
            self._live = Live(get_renderable=self._under_way, console=self.console, transient=True)
            self._until_end.enter_context(self._live)
        else:
            quiet = threading.Event()
            threading.Thread(target=self._tell, args=(quiet,), name="kickoff", daemon=True).start()
            self._until_end.callback(quiet.set)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._until_end.close()

    def started(self, node: str) -> None:
        """A node starts."""
        with self._lock:
            self.running[node] = (time.monotonic(), "")
        if self._live is None:
            log.info("%s: starts", node)

    def line(self, node: str, line: str) -> None:
        """A line of a node."""
        with self._lock:
            if node in self.running:
                self.running[node] = (self.running[node][0], line)
        if self.logs is not None:
            with (self.logs / f"{node}.log").open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def ended(self, end: End) -> None:
        """A node ended, or will not start."""
        with self._lock:
            self.running.pop(end.node, None)
            self.over += 1
        if self._live is None:
            log.info("%s: %s", end.node, _in_words(end))
        else:
            self.console.print(_line(end))

    def _under_way(self) -> Table:
        table = Table.grid(padding=(0, 2))
        with self._lock:
            running, over = dict(self.running), self.over
        for node, (since, line) in running.items():
            table.add_row(
                node, f"{time.monotonic() - since:.0f} s", Text(plain(line), overflow="ellipsis", no_wrap=True)
            )
        table.add_row(Text(f"{over} of {self.total} nodes", style="bold"), "", "")
        return table

    def _tell(self, quiet: threading.Event) -> None:
        while not quiet.wait(self.every):
            with self._lock:
                running = dict(self.running)
            for node, (since, line) in running.items():
                log.info("%s: %d s; %s", node, time.monotonic() - since, line or "nothing said yet")


def _in_words(end: End) -> str:
    versions = ", ".join(map(str, end.versions))
    took = f", {lasting(end.seconds)}" if end.state in ("made", "failed") else ""
    why = f"by {end.why}" if end.state == "held" else end.why
    return ": ".join(part for part in (f"{WORDS[end.state]}{took}", versions, why) if part)


def _line(end: End) -> Text:
    return Text.assemble(
        (f"{WORDS[end.state]:<12}", _STYLES.get(end.state, "")), f"{end.node}: ", plain(_in_words(end))
    )


def draw_ends(console: Console, ends: Sequence[End]) -> None:
    """What every node came to."""
    table = Table("node", "", "versions, or why not", "time", box=None, header_style="dim")
    for end in ends:
        why = f"by {end.why}" if end.state == "held" else end.why
        text = "\n".join(part for part in (", ".join(map(str, end.versions)), plain(why)) if part)
        took = lasting(end.seconds) if end.state in ("made", "failed") else ""
        table.add_row(end.node, Text(WORDS[end.state], style=_STYLES.get(end.state, "")), text, took)
    console.print(table)


def draw_plan(console: Console, plan: Plan) -> None:
    """The graph in the order in which it would run, what is done, and what the rest will take."""
    table = Table("node", "needs", "", "time", "work", "cost", "as", box=None, header_style="dim")
    for each in plan.nodes:
        table.add_row(each.node, " ".join(each.needs), *_row(each))
    console.print(table)
    done, todo = sum(each.done for each in plan.nodes), sum(each.to_run for each in plan.nodes)
    held = sum(bool(each.held) for each in plan.nodes)
    console.print(f"{len(plan.nodes)} nodes, {done} done, {f'{held} held, ' if held else ''}{todo} to run")
    if todo:
        console.print(_sums(plan, todo))


def _row(each: Planned) -> tuple[Text | str, ...]:
    if each.done:
        return Text("done", style="green"), "", "", "", ", ".join(map(str, each.versions))
    if each.held:
        return Text("held", style="yellow"), "", "", "", plain(each.held)
    state = "left out" if not each.chosen else "ready" if each.ready else "follows"
    if each.estimate is None:
        return state, "unknown", "unknown", "unknown", "no receipts"
    estimate = each.estimate
    cost = "unknown" if each.cost is None else money(each.cost)
    return state, lasting(estimate.seconds), _work(estimate), cost, _basis(estimate)


def _work(estimate: Estimate) -> str:
    on = "" if estimate.cpus == 1 and not estimate.gpus else f" on {estimate.cpus:g} CPUs, {estimate.gpus:g} GPUs"
    return f"{lasting(estimate.work)}{on}"


def _basis(estimate: Estimate) -> str:
    scale = "as much as" if estimate.scale is None else f"{estimate.scale:.2g} times"
    return f"{scale} {', '.join(estimate.basis)}"


def _sums(plan: Plan, todo: int) -> str:
    if plan.unknown == todo:
        return "time and cost: unknown, no receipt tells of any of them"
    at_least = f"at least, and {plan.unknown} of {todo} nodes are unknown" if plan.unknown else "by receipts"
    cost = "unknown" if plan.cost is None else money(plan.cost)
    return f"time: {lasting(plan.seconds)} ({at_least}); cost: {cost}"


def money(amount: float) -> str:
    """In whatever the configured prices are in."""
    return f"{amount:,.2f}" if amount >= 0.01 or not amount else f"{amount:.2g}"


def lasting(seconds: float) -> str:
    """As people say it."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
