"""Drawing of classifiers: what one was trained on, and how it ranks documents with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from gristmill.orchestration.show.tables import draw_facts, grid, heading

_AREAS = {
    "auc": "area under the curve",
    "auc_of_length": "of text length alone",
    "auc_over_length": "over text length",
    "auc_within_length": "within length quintiles",
    "auc_over_length_within": "over length, within them",
}


def draw_training(console: Console, facts: Mapping[str, Any]) -> None:
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
