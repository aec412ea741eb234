"""Drawing of how a model was trained, as far as its manifest says: `grist show` of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from gristmill.orchestration.show.tables import counted, draw_facts, heading


def draw_training(console: Console, statistics: Mapping[str, Any]) -> None:
    """The sections `training`, `bases` and `gates` of a model's statistics; nothing of one that was taken in."""
    if training := statistics.get("training"):
        heading(console, f"Training  {training['stage']}")
        draw_facts(console, _facts(training))
    if bases := statistics.get("bases"):
        heading(console, "Adapters, by the digest of the language model that each was trained upon")
        draw_facts(console, dict(bases))
    if gates := statistics.get("gates"):
        heading(console, "Gates")
        draw_facts(console, {name: verdict_line(verdict) for name, verdict in gates.items()})


def verdict_line(verdict: Mapping[str, Any]) -> str:
    """What a gate said, with its reason; one that does not apply says so itself."""
    return str(verdict["why"]) if verdict["passed"] is None else f"passed: {verdict['why']}"


def _facts(training: Mapping[str, Any]) -> dict[str, str]:
    loss, seconds = training["final_loss"], training["seconds"]
    pace = f", {training['tokens'] / seconds:,.0f} tokens/s" if seconds else ""
    counted_in = training.get("counted", "tokens")  # not said before there were others
    learned = "of them to learn" if counted_in == "tokens" else counted_in
    skipped = f", {training['skipped']:,} of them skipped" if training["skipped"] else ""
    return {
        "steps": f"{training['steps']:,}{skipped}",
        "tokens": f"{training['tokens']:,}, {training['targets']:,} {learned}",
        "windows": f"{training['positions']:,}, in the order {training['order']}",
        "peak rate": f"{training['peak_lr']:.3g}",
        "final loss": "none that is a number" if loss is None else f"{loss:.4f} nats a {counted_in.removesuffix('s')}",
        "time": f"{seconds:,.1f} s on {counted(training['world'], 'rank')}{pace}",
    }
