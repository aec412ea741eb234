"""Samples of a problem, as `grist why` shows them: each with its verdict, who drew and who judged it."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.text import Text

from gristmill.lake.query.families import Child
from gristmill.lake.query.why import Answer
from gristmill.orchestration.show.tables import counted, grid
from gristmill.orchestration.show.terminal import plain

STYLES = {"accepted": "green", "rejected": "red", "undecided": "yellow"}


def draw_children(console: Console, answer: Answer) -> None:
    """The samples of each problem, in order; nothing where there are none."""
    for (parent, dataset), group in groupby(answer.children, key=lambda child: (child.parent_id, child.dataset)):
        samples = list(group)
        versions = ", ".join(f"v{number}" for number in samples[0].versions)
        console.print(Text.assemble("samples of ", (parent, "bold"), f" in {dataset} {versions}"))
        table = grid("", ">", "", "", "~")
        for child in samples:
            verdict = Text(child.verdict, style=STYLES.get(child.verdict, ""))
            table.add_row("  ", f"{child.sample}", child.id, verdict, _because(child))
        console.print(table)


def _because(child: Child) -> str:
    """Why, by whom, and what it took."""
    parts = [child.reason, None if child.value is None else plain(child.value), f"by {child.verifier}"]
    parts.append(None if child.attempt in (None, 1) else f"attempt {child.attempt}")
    parts.append(None if child.tokens is None else counted(child.tokens, "token"))
    parts.append(None if child.engine is None else f"of {plain(child.engine)}")
    return ", ".join(part for part in parts if part)
