"""Drawing of evaluations: a model's scores in `grist show`, two models item by item in `grist diff`, and how a
classifier ranks documents with labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

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
_AREAS = {
    "auc": "area under the curve",
    "auc_of_length": "of text length alone",
    "auc_over_length": "over text length",
    "auc_within_length": "within length quintiles",
    "auc_over_length_within": "over length, within them",
}


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


def draw_classifier(console: Console, facts: Mapping[str, Any]) -> None:
    """Of a manifest's statistics: what the model was trained on, and its ranking of what was kept apart."""
    left_out = ", ".join(f"{reason} {count:,}" for reason, count in facts["left_out"].items() if count)
    draw_facts(
        console,
        {
            "trained on": f"{facts['positives']:,} positives, {facts['negatives']:,} negatives",
            "windows": f"{facts['lines']:,}",
            "left out": left_out or "nothing",
            "seed": str(facts["seed"]),
        },
    )
    if facts["held"] is None:
        heading(console, "Kept apart  no documents of both kinds to judge it by")
        return
    draw_ranking(console, facts["held"], "Kept apart")


def draw_ranking(console: Console, report: Mapping[str, Any], title: str = "Labelled") -> None:
    """A ranking as `stages.classify.train.as_json` gives it."""
    heading(console, f"{title}  {report['positives']:,} positives, {report['negatives']:,} negatives")
    areas = grid("  measure", "value>", "95% interval>")
    for name, called in _AREAS.items():
        if (estimate := report[name]) is not None:
            areas.add_row(
                f"  {called}", f"{estimate['value']:+.3f}" if "over" in name else _value(estimate), _ends(estimate)
            )
    console.print(areas)
    rows = grid("  from score", "taken>", "precision>", "95% interval>", "recall>", "95% interval>")
    for at in report["thresholds"]:
        precision, recall = at["precision"], at["recall"]
        shown = ("-", "-") if precision is None else (_value(precision), _ends(precision))
        rows.add_row(f"  {at['threshold']:g}", f"{at['taken']:.1%}", *shown, _value(recall), _ends(recall))
    console.print(rows)


def _value(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f}"


def _ends(estimate: Mapping[str, float]) -> str:
    return f"{estimate['low']:.3f} to {estimate['high']:.3f}"
