"""Drawing of evaluations: a model's scores in `grist show`, and two models item by item in `grist diff`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from gristmill.lake.versions.statistics import EvaluationStatistics
from gristmill.orchestration.show.tables import counted, draw_facts, grid, heading, ruled
from gristmill.orchestration.show.terminal import plain

if TYPE_CHECKING:  # `grist show` needs no model
    from gristmill.stages.evaluate.compare import Comparison, Example

CUT = 300
"""Characters of a text that are shown."""
NUMBERS = ("perplexity", "nats_per_token", "bits_per_byte")
"""Metrics that are no share of items."""


def draw_evaluation(console: Console, statistics: EvaluationStatistics) -> None:
    """The scores of a model by task and source, and what to know before reading them."""
    facts = {"items": f"{statistics.items:,}", "answers": f"{statistics.written:,} written, {statistics.cut:,} cut off"}
    if statistics.unscored:
        facts["not scored"] = f"{statistics.unscored:,}"
    if statistics.devices:
        facts["on"] = ", ".join(statistics.devices)
    draw_facts(console, facts)
    heading(console, "Scores")
    table = grid("  task", "metric", "source~", "value>", "interval>", "items>")
    for task, scores in groupby(statistics.scores, key=lambda score: score.task):
        for score in scores:
            interval = f"{shown(score.metric, score.low)} to {shown(score.metric, score.high)}"
            part = score.source or score.group
            value = Text(shown(score.metric, score.value), style="" if part else "bold")
            source = plain(part) or Text("all", style="dim")
            table.add_row(f"  {task}", score.metric, source, value, interval, f"{score.items:,}")
    console.print(table)
    for warning in statistics.warnings:
        console.print(Text(f"  caution: {plain(warning)}", style="yellow"))


def shown(metric: str, value: float) -> str:
    """A value, or an end of its interval, in the unit of its metric."""
    if metric in NUMBERS:
        return f"{value:,.3f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:.1%}"


def draw_comparison(console: Console, comparison: Comparison) -> None:
    """`grist diff` of two evaluations."""
    c = comparison
    console.print(
        Text.assemble(
            (c.a, "bold"), f" ({c.model_a}) to ", (c.b, "bold"), f" ({c.model_b}): ", counted(c.items, "item")
        )
    )
    for n, name in ((c.only_a, c.a), (c.only_b, c.b)):
        if n:
            console.print(Text(f"  {counted(n, 'item')} only in {name}, left out", style="yellow"))
    heading(console, "Scores")
    table = grid(
        "  task", "metric", "source~", f"{c.a}>", f"{c.b}>", "difference>", "interval>", "right>", "wrong>", "p>"
    )
    for d in c.differences:
        change, low, high = (_change(d.metric, value) for value in (d.after - d.before, d.low, d.high))
        changes = ("", "", "")
        if d.p_value is not None:
            changes = (f"+{d.became_right:,}", f"-{d.became_wrong:,}", f"{d.p_value:.2g}")
        source = plain(d.source or d.group) or Text("all", style="dim")
        scores = (shown(d.metric, d.before), shown(d.metric, d.after))
        clear = "bold" if d.low > 0 or d.high < 0 else ""
        row = (f"  {d.task}", d.metric, source, *scores, Text(change, style=clear), f"{low} to {high}", *changes)
        table.add_row(*row)
    console.print(table)
    about = "right, wrong: items that became so; p: McNemar's exact test, two-sided; bold: the interval excludes 0"
    console.print(Text(f"  {about}", style="dim"))
    _draw_examples(console, c.examples)


def _change(metric: str, value: float) -> str:
    """In points of per cent for a share."""
    return f"{value:+,.3f}" if metric in NUMBERS else f"{100 * value:+.1f} pp"


def _draw_examples(console: Console, examples: Iterable[Example]) -> None:
    for example in examples:
        console.print()
        verdict = "became right" if example.right else "became wrong"
        ruled(console, f"{example.task}, {verdict}: {example.id} of {plain(example.source)}")
        lines = {
            "question": example.question,
            "expected": example.expected,
            "before": example.before,
            "after": example.after,
        }
        draw_facts(console, {name: _cut(text) for name, text in lines.items()})


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}... ({len(text):,} characters)"
