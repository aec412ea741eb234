"""Drawing of trainings: `grist runs`, three lines each that fit in 80 columns, and in `grist show` their curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.runs.curve import Curve, curve_of
from gristmill.orchestration.show.curves import draw_curve
from gristmill.orchestration.show.tables import counted, draw_facts, heading, indented
from gristmill.orchestration.show.terminal import plain
from gristmill.stages.train.seen import RunRow, find_run, metrics_of_run, metrics_of_version


@dataclass(frozen=True)
class Training:
    """A training as `grist show` has it: what is known of it, and its curve, None before the first step."""

    about: dict[str, str]
    curve: Curve | None

    def to_json(self) -> dict[str, Any]:
        """The curve's numbers by step."""
        return self.about | ({} if self.curve is None else self.curve.to_json())

    def draw(self, console: Console) -> None:
        """A heading, facts and curves."""
        heading(console, "Curves")
        if self.about:
            draw_facts(console, self.about)
        if self.curve is None:
            console.print("no step was done yet")
        else:
            draw_curve(console, self.curve)


def training_of_version(store: Store, manifest: Manifest) -> Training | None:
    """Of a version of a model; None where it was not trained here. Raises DamagedObject."""
    metrics = metrics_of_version(store, manifest)
    return Training({}, curve_of(metrics)) if metrics else None


def training_of_run(store: Store, prefix: str) -> Training | None:
    """Of a run without a result whose key begins so; None: there is none. Raises ValueError for several."""
    about = find_run(store, prefix)
    if about is None:
        return None
    metrics = metrics_of_run(store, about.key)
    return Training({"run": about.key, "for": about.dataset}, curve_of(metrics) if metrics else None)


_STYLES = {"running": "green", "silent": "yellow", "ended": "red"}


def draw_runs(console: Console, rows: Sequence[RunRow], uri: str) -> None:
    """`uri`: the lake's address."""
    if not rows:
        console.print(f"nothing is trained in {uri} now, and nothing was broken off")
        return
    for row in rows:
        words = {
            "running": "running",
            "silent": f"silent for {_ago(row.silent_for)}",
            "ended": f"ended {_ago(row.silent_for)} ago without a result",
        }[row.state]
        state = Text(words, style=_STYLES[row.state])
        console.print(Text.assemble((plain(row.dataset), "bold"), "  ", (row.key[:12], "dim"), "  ", state))
        indented(console, _numbers(row))
        indented(console, Text(_place(row), style="dim"))


def _numbers(row: RunRow) -> str:
    parts = [f"step {row.step:,} of {row.steps:,}"]
    if row.loss is not None:
        parts.append(f"loss {row.loss:.4f}")
    if row.tokens_per_second is not None:
        parts.append(f"{row.tokens_per_second:,.0f} tok/s")
    if row.skipped:
        parts.append(f"{row.skipped:,} skipped")
    if row.seconds_left is not None and row.state != "ended":
        parts.append(f"{timedelta(seconds=round(row.seconds_left))} left")
    return ", ".join(parts)


def _place(row: RunRow) -> str:
    since = datetime.fromtimestamp(row.started, UTC).strftime("%Y-%m-%d %H:%M")
    ranks = f"{counted(row.world, 'rank')} on " if row.world > 1 else "on "
    return (
        f"{ranks}{plain(row.host)}, process {row.pid}, since {since} UTC; last sign of life {_ago(row.silent_for)} ago"
    )


def _ago(seconds: float) -> str:
    """In the largest unit that fits: `40 s`, `12 min`, `3 h`, `2 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
