"""What was learned from what: a mixture's shares, a training's curves, and what its gates said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import WindowStatistics
from gristmill.model.runs.curve import Curve
from gristmill.orchestration.report.html import Content, Html, element, joined
from gristmill.orchestration.report.pieces import (
    NOTHING,
    count,
    facts,
    figure,
    name,
    section,
    side_by_side,
    span,
    table,
)
from gristmill.orchestration.report.records import key
from gristmill.orchestration.report.svg import Part, Series, bar, lines
from gristmill.orchestration.show.tables import percent
from gristmill.orchestration.show.windows import media_facts

_GATE_WORDS = {True: ("passed", "good"), False: ("failed", "bad"), None: ("does not apply", "dim")}


def mixture(m: Manifest) -> Html:
    """What was asked for, and what was drawn, by source."""
    if m.layout.statistics is not WindowStatistics:
        return NOTHING
    about = WindowStatistics.of(m.statistics)
    whole = sum(source.drawn for source in about.mixture) or 1
    rows: list[list[Content]] = []
    for source in about.mixture:
        epochs = f"{source.drawn / source.there:.2f}" if source.there else "-"
        part = Part(source.drawn / whole, "kept", f"{source.drawn:,} tokens drawn")
        cells = (f"{source.share:.1%}", percent(source.drawn, whole), count(source.drawn), epochs)
        rows.append([name(source.source), *cells, bar(part)])
    heads = ("Source", "planned>", "drawn>", "tokens>", "epochs>", "of all tokens|")
    cut = f"{about.documents_cut:,} of {about.documents:,} documents drawn"
    known: dict[str, Content] = {
        "windows": f"{about.windows:,}, {about.waste:.2%} of their places empty",
        "tokens": f"{about.tokens:,}, of which {about.loss_tokens:,} are learned",
        "cut": f"{cut}; none of {about.samples:,} samples",
        **media_facts(about),
    }
    return section("Mixture", table(f"Sources of {m}", heads, rows), facts(known))


def training(m: Manifest, curve: Curve | None) -> Html:
    """Of a model: its parts, how it was trained, curves, gates."""
    return joined([_training(m, curve), gates(m), parts(m)])


def parts(m: Manifest) -> Html:
    """Parameters by part."""
    counts: Mapping[str, int] = m.statistics.get("parts") or {}
    whole = sum(counts.values()) or 1
    rows = [
        [name(part), count(n), percent(n, whole), bar(Part(n / whole, "kept", f"{n:,}"))] for part, n in counts.items()
    ]
    return section("Parts", table(f"Parameters of {m}", ("Part", "parameters>", "share>", "of all|"), rows))


def gates(m: Manifest) -> Html:
    """What each gate said, and why."""
    verdicts: Mapping[str, Any] = m.statistics.get("gates") or {}
    rows: list[list[Content]] = []
    for gate, verdict in verdicts.items():
        words, class_ = _GATE_WORDS[verdict["passed"]]
        rows.append(
            [name(gate.replace("_", " ")), element("span", words, class_=class_), element("bdi", verdict["why"])]
        )
    return section("Gates", table(f"Gates of {m}", ("Gate", "verdict", "why"), rows))


def _training(m: Manifest, curve: Curve | None) -> Html:
    about: Mapping[str, Any] | None = m.statistics.get("training")
    known: dict[str, Content] = {}
    if about:
        seconds = about["seconds"]
        pace = f", {about['tokens'] / seconds:,.0f} tokens a second" if seconds else ""
        skipped = f", {about['skipped']:,} of them skipped" if about["skipped"] else ""
        loss = about["final_loss"]
        known = {
            "steps": f"{about['steps']:,}{skipped}",
            "tokens": f"{about['tokens']:,}, {about['targets']:,} {about.get('counted', 'tokens')} counted by the loss",
            "loss of the last step": "none that is a number" if loss is None else f"{loss:.4f}",
            "time": f"{span(seconds)} on {about['world']:,} rank{'s' if about['world'] > 1 else ''}{pace}",
        }
    drawn = NOTHING if curve is None else curves(curve, str(m))
    return section("Training", drawn, facts(known))


def curves(curve: Curve, of: str) -> Html:
    """The loss of every step and smoothed, the learning rate, and what else the objective measured."""
    marks = [(float(step), f"resumed after step {step:,}") for step in curve.resumed]
    steps = [float(step) for step in curve.steps]
    each, smooth = Series("each step", "pale", steps, curve.losses), Series("smoothed", "kept", steps, curve.smoothed)
    end = f" {curve.final_loss:.4f} over the last steps." if math.isfinite(curve.final_loss) else ""
    legend = key([("pale", "each step"), ("kept", "smoothed")])
    resumed = f" Resumed {len(marks):,} times, at the dashed lines." if marks else ""
    skipped = f" {len(curve.skipped):,} steps skipped." if curve.skipped else ""
    charts = [
        figure(
            joined([f"Loss of {of}.", end, resumed, skipped, legend]),
            lines("Loss", (each, smooth), "step", "loss", marks),
        ),
        figure("Learning rate.", lines("Learning rate", [Series("rate", "other", steps, curve.rates)], "step", "rate")),
    ]
    for measure, values in curve.measures.items():
        called = measure.replace("_", " ")
        line = lines(called, [Series(called, "kept", steps, values)], "step", called[:30])
        charts.append(figure(f"{called.capitalize()}, smoothed.", line))
    return side_by_side(charts)


def small_curve(curve: Curve, ref: str, link: str) -> Html:
    """The loss of one stage among others."""
    steps = [float(step) for step in curve.steps]
    series = (Series("each step", "pale", steps, curve.losses), Series("smoothed", "kept", steps, curve.smoothed))
    end = f": {curve.final_loss:.4f} over the last steps" if math.isfinite(curve.final_loss) else ""
    return figure(joined([element("a", ref, href=f"#{link}"), end]), lines(f"Loss of {ref}", series, "step", "loss"))
