"""Evaluations: what a model scores, with intervals, and answers to look at; several models beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.statistics import EvaluationScore, EvaluationStatistics
from gristmill.orchestration.report.html import Content, Html, element, joined
from gristmill.orchestration.report.pieces import MOST_ROWS, NOTHING, anchor, caution, facts, name, section, table
from gristmill.orchestration.report.subject import Subject
from gristmill.orchestration.report.svg import interval
from gristmill.orchestration.show.evaluation import NUMBERS, shown

MOST_BARS = 1.0
"""Largest value that is drawn as a share."""


def evaluation(subject: Subject) -> Html:
    """The scores of a model by task and source, and what to know before reading them."""
    m = subject.manifest
    if m.layout.statistics is not EvaluationStatistics:
        return NOTHING
    about = EvaluationStatistics.of(m.statistics)
    known: dict[str, Content] = {
        "model": name(evaluated(m)),
        "items": f"{about.items:,}",
        "answers": f"{about.written:,} written, {about.cut:,} cut off",
    }
    if about.unscored:
        known["not scored"] = f"{about.unscored:,}"
    if about.devices:
        known["on"] = name(", ".join(about.devices))
    rows = [[name(_task(score)), *_cells(score)] for score in about.scores[:MOST_ROWS]]
    heads = ("Task and metric", "of", "value>", "95% interval>", "items>", "0 to 100%|")
    body = table(f"Scores of {m}", heads, rows, len(about.scores) - len(rows))
    return section("Scores", *(caution(warning) for warning in about.warnings), body, facts(known))


def evaluated(m: Manifest) -> str:
    """The model that was asked."""
    models = [str(ref) for ref in m.sources if ref.role == "evaluated"]
    return ", ".join(models) or str(m.recipe.get("model", "unknown"))


def _task(score: EvaluationScore) -> str:
    return f"{score.task}: {score.metric.replace('_', ' ')}"


def _cells(score: EvaluationScore) -> list[Content]:
    part = score.source or score.group
    of = name(part) if part else element("span", "all", class_="dim")
    low, high = shown(score.metric, score.low), shown(score.metric, score.high)
    value = shown(score.metric, score.value)
    return [of, value, f"{low} to {high}", f"{score.items:,}", _bar(score, f"{value} ({low} to {high})")]


def _bar(score: EvaluationScore, words: str) -> Html:
    """A share as a point on a line; what is no share has none."""
    if score.metric in NUMBERS or not 0 <= score.value <= MOST_BARS:
        return NOTHING
    return interval(score.value, score.low, score.high, words)


def answers(subject: Subject) -> Html:
    """A few questions with what was expected and what the model said."""
    m = subject.manifest
    if m.layout.statistics is not EvaluationStatistics or subject.kept is None:
        return NOTHING
    rows: list[list[Content]] = []
    for record in subject.kept.samples:
        fields = record.fields
        score = fields.get("score")
        question = str(fields.get("question") or fields.get("prompt") or "")
        answer = record.text if record.text is not None else "no answer in words"
        cells = (name(str(fields.get("expected") or "-")), name(answer))
        rows.append([name(question or record.id or "-"), *cells, "-" if score is None else f"{score:.3g}"])
    heads = ("Question", "expected", "answer", "score>")
    return section("Answers", table(f"Answers of {evaluated(m)}", heads, rows))


def beside(subjects: Sequence[Subject]) -> Html:
    """The scores of all items of every evaluation on the page, task by task."""
    rows: list[list[Content]] = []
    for subject in subjects:
        m = subject.manifest
        if m.layout.statistics is not EvaluationStatistics:
            continue
        for score in EvaluationStatistics.of(m.statistics).scores:
            if not score.source and not score.group:
                link = element("a", str(m), href=f"#{anchor(str(m))}")
                _, value, bounds, items, drawn = _cells(score)
                rows.append([joined([name(evaluated(m)), " in ", link]), _task(score), value, bounds, items, drawn])
    heads = ("Model", "task and metric", "value>", "95% interval>", "items>", "0 to 100%|")
    return section(
        "What the models score",
        table("Scores of all evaluations", heads, rows[:MOST_ROWS], max(0, len(rows) - MOST_ROWS)),
    )
