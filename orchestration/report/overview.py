"""What is seen first: a version in a sentence, and of several versions a line each with what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gristmill.lake.versions.statistics import EvaluationStatistics, WindowStatistics
from gristmill.orchestration.report.evaluation import evaluated
from gristmill.orchestration.report.html import Content, Html, element
from gristmill.orchestration.report.pieces import anchor, section, table
from gristmill.orchestration.report.records import fates_bar, key
from gristmill.orchestration.report.subject import Subject
from gristmill.orchestration.show.evaluation import shown
from gristmill.orchestration.show.tables import percent, when


def summary(subject: Subject) -> Html:
    """One version in a sentence."""
    m = subject.manifest
    date = f" Made {when(m.made.get('at'))} UTC." if m.made.get("at") else ""
    return element("p", f"{sentence(subject)}{date}", class_="lead")


def sentence(subject: Subject) -> str:
    """What a version is, and what it came to."""
    m = subject.manifest
    called = m.layout.called[:1].upper() + m.layout.called[1:]
    if m.form == "model":
        return f"{called} of {m.statistics.get('parameters', 0):,} parameters{_learned(subject)}."
    if m.layout.statistics is WindowStatistics:
        windows = WindowStatistics.of(m.statistics)
        return f"{windows.windows:,} packed windows of {windows.tokens:,} tokens from {len(windows.mixture)} sources."
    if m.layout.statistics is EvaluationStatistics:
        return f"An evaluation of {evaluated(m)} on {EvaluationStatistics.of(m.statistics).items:,} items."
    if not m.received.count:
        return f"{called}."
    kept = f"{m.kept.count:,} ({percent(m.kept.count, m.received.count)}) were kept"
    return f"{called}: of {m.received.count:,} records that came in, {kept}."


def _learned(subject: Subject) -> str:
    training = subject.manifest.statistics.get("training")
    if not training:
        return ", taken in as it was"
    return f", trained for {training['steps']:,} steps on {training['tokens']:,} tokens, to {_loss(subject)}"


def _loss(subject: Subject) -> str:
    """The mean over the last steps, as the curve's caption has it."""
    final = math.nan if subject.curve is None else subject.curve.final_loss
    return f"a loss of {final:.3f}" if math.isfinite(final) else "no loss that is a number"


def overview(subjects: Sequence[Subject]) -> Html:
    """A line a version: what it holds, and what came of what came in, or what it learned."""
    rows = [_row(subject) for subject in subjects]
    heads = ("Version", "holds", "came in>", "kept>", "in short", "kept, dropped, quarantined|")
    legend = key([("kept", "kept"), ("dropped", "dropped"), ("quarantined", "quarantined")])
    return section("What came in, and what came of it", legend, table("All versions on this page", heads, rows))


def _row(subject: Subject) -> list[Content]:
    m = subject.manifest
    link = element("a", subject.ref, href=f"#{anchor(subject.ref)}")
    if not m.received.count:
        return [link, m.layout.called, "-", "-", _short(subject), ""]
    return [link, m.layout.called, f"{m.received.count:,}", f"{m.kept.count:,}", _short(subject), fates_bar(m)]


def _short(subject: Subject) -> str:
    """The figure that says most of it."""
    m = subject.manifest
    if m.layout.statistics is EvaluationStatistics:
        scores = [
            score for score in EvaluationStatistics.of(m.statistics).scores if not score.source and not score.group
        ]
        return "; ".join(
            f"{score.task} {score.metric.replace('_', ' ')} {shown(score.metric, score.value)}" for score in scores[:2]
        )
    if m.layout.statistics is WindowStatistics:
        return f"{WindowStatistics.of(m.statistics).tokens:,} tokens"
    training = m.statistics.get("training")
    if training:
        return f"{_loss(subject)} after {training['steps']:,} steps"
    if m.samples is not None and m.samples.count and "accepted" in m.verdicts:
        return f"{percent(m.verdicts['accepted'].count, m.samples.count)} of {m.samples.count:,} samples right"
    return percent(m.kept.count, m.received.count) + " kept" if m.received.count else ""
