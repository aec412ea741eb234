"""What came in and what became of it: fates, the funnel by stage, reasons, distributions, clusters of duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.lake.query.examples import reasons_of
from gristmill.lake.versions.manifest import FunnelRow, Manifest
from gristmill.lake.versions.statistics import TextStatistics
from gristmill.orchestration.report.html import Content, Html, element, joined
from gristmill.orchestration.report.pieces import (
    MOST_ROWS,
    NOTHING,
    caution,
    count,
    figure,
    name,
    remark,
    section,
    side_by_side,
    table,
    tiles,
)
from gristmill.orchestration.report.subject import Scores, Subject
from gristmill.orchestration.report.svg import Part, bar, columns, short, ticks
from gristmill.orchestration.show.tables import counted, percent

LANGUAGES = 20
BINS = 20
FATES = ("kept", "dropped", "quarantined")


def fates(m: Manifest) -> Html:
    """How many records came in, and what became of them."""
    if not m.received.count:
        return NOTHING
    whole = m.received.count
    rows = [("Came in", count(whole), f"records of {counted(len(m.inputs), 'file')}" if m.inputs else "records")]
    for fate in FATES:
        n = getattr(m, fate).count
        rows.append((fate.capitalize(), count(n), f"{percent(n, whole)} of what came in"))
    return tiles(rows)


def fates_bar(m: Manifest) -> Html:
    """The three fates as parts of a bar."""
    whole = m.received.count or 1
    counts = [(fate, getattr(m, fate).count) for fate in FATES]
    return bar(*(Part(n / whole, fate, f"{fate}: {n:,} ({percent(n, whole)})") for fate, n in counts))


def funnel(m: Manifest) -> Html:
    """Stage by stage what went on and what did not, as parts of all that came in."""
    if not m.funnel:
        return NOTHING
    whole = m.funnel[0].received or 1
    rows = [_stage(row, whole) for row in m.funnel]
    heads = ("Stage", "came in>", "passed>", "dropped>", "quarantined>", "passed, of stage>", "of all that came in|")
    notes = "Each bar is as wide as what came into the stage; the first stage's is whole."
    return section("Funnel", _key(m), table(f"Records by stage of {m}", heads, rows), note=notes)


def _stage(row: FunnelRow, whole: int) -> list[Content]:
    dropped, quarantined = sum(row.dropped.values()), sum(row.quarantined.values())
    counts = (("passed", "kept", row.passed), ("dropped",) * 2 + (dropped,), ("quarantined",) * 2 + (quarantined,))
    parts = [Part(n / whole, kind, f"{say}: {n:,}, {percent(n, row.received)} of the stage") for say, kind, n in counts]
    numbers = [count(n) for n in (row.received, row.passed, dropped, quarantined)]
    return [name(row.stage), *numbers, percent(row.passed, row.received), bar(*parts)]


def _key(m: Manifest) -> Html:
    """What the colours are; of quarantined records only where there are any."""
    kinds = [("kept", "passed"), ("dropped", "dropped")]
    kinds += [("quarantined", "quarantined: could not be read")] if m.quarantined.count else []
    return key(kinds)


def key(kinds: Sequence[tuple[str, str]]) -> Html:
    """A legend of (class, what it means)."""
    items = []
    for kind, meaning in kinds:
        swatch = element("rect", class_=kind, width=14, height=14, rx=3)
        items.append(element("li", element("svg", swatch, aria_hidden="true"), meaning))
    return element("ul", *items, class_="key")


def reasons(m: Manifest) -> Html:
    """Why records went, the most frequent reason first."""
    counts = reasons_of(m)
    gone = sum(counts.values())
    if not gone:
        return NOTHING
    unreadable = {reason for row in m.funnel for reason in row.quarantined}
    most = max(counts.values())
    rows: list[list[Content]] = []
    for reason, n in list(counts.items())[:MOST_ROWS]:
        kind = "quarantined" if reason in unreadable else "dropped"
        cells = (kind, count(n), percent(n, gone), percent(n, m.received.count))
        rows.append([name(reason), *cells, bar(Part(n / most, kind, f"{n:,} records"))])
    heads = ("Reason", "fate", "records>", "of these>", "of all>", "compared|")
    body = table(f"Records of {m} by the reason that they went for", heads, rows, len(counts) - len(rows))
    notes = f"{count(gone)} records did not get through; each has one reason, that of the first rule which it broke."
    return section("Why the rest went", body, note=notes)


def distributions(subject: Subject) -> Html:
    """Languages, lengths, scores."""
    m = subject.manifest
    if m.layout.statistics is not TextStatistics:
        return NOTHING
    texts = TextStatistics.of(m.statistics)
    charts = []
    if len(texts.bytes_from) > 1:
        rows = _edges(texts.bytes_from)
        charts.append(figure("Length of a text", columns("Length of a text", rows, "bytes of text, from")))
    charts += [_scores(scores) for scores in subject.scores]
    return section("What was kept is like", side_by_side(charts), _languages(texts))


def _edges(bins: Mapping[str, int]) -> list[tuple[str, float]]:
    return [(short(edge), float(n)) for edge, n in sorted((int(edge), n) for edge, n in bins.items())]


def _languages(texts: TextStatistics) -> Html:
    if not texts.languages:
        return NOTHING
    whole, most = sum(texts.languages.values()), max(texts.languages.values())
    rows = [
        [name(label), count(n), percent(n, whole), bar(Part(n / most, "kept", f"{n:,} records"))]
        for label, n in list(texts.languages.items())[:LANGUAGES]
    ]
    return table(
        "Languages of kept records",
        ("Language", "records>", "share>", "compared|"),
        rows,
        len(texts.languages) - len(rows),
    )


def _scores(scores: Scores) -> Html:
    values = np.array(scores.values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() == values.max():
        return NOTHING
    ends = _round_edges(float(values.min()), float(values.max()))
    counts, _ = np.histogram(values, ends)
    rows = [(short(low), float(n)) for low, n in zip(ends, counts, strict=False)]
    spoken = scores.column.replace("_", " ")
    quartiles = ", ".join(f"{value:.3g}" for value in np.quantile(values, (0.25, 0.5, 0.75)))
    drawn = "" if scores.rows >= scores.of else f"; {scores.rows:,} records out of {scores.of:,}"
    caption = joined([name(spoken.capitalize()), f": quartiles {quartiles}{drawn}"])
    return figure(caption, columns(spoken, rows, f"{spoken[:40]}, from"))


def _round_edges(low: float, high: float) -> list[float]:
    """Edges of about BINS bins at round numbers, around all values."""
    inner = ticks(low, high, BINS)
    step = inner[1] - inner[0] if len(inner) > 1 else (high - low)
    below = [inner[0] - step] if inner[0] > low else []
    return [round(edge, 12) for edge in (*below, *inner, *([inner[-1] + step] if inner[-1] <= high else []))]


def clusters(m: Manifest) -> Html:
    """How large clusters of near duplicates are; the survivor counts."""
    about: Mapping[str, Any] | None = m.statistics.get("clusters")
    if not about or not about["clusters"]:
        return NOTHING
    sizes = {int(edge): n for edge, n in about["sizes_from"].items()}
    most = max(sizes.values())
    rows = [
        # up to 4 each size has a line, then they double: 5 to 8, 9 to 16, ...
        [f"{low:,} to {2 * (low - 1):,}" if low > 4 else f"{low}", count(n), bar(Part(n / most, "kept", f"{n:,}"))]
        for low, n in sorted(sizes.items())
    ]
    notes = f"{about['clusters']:,} clusters of texts that are nearly the same, the largest of {about['largest']:,}."
    body = table(
        "Clusters by how many records they have, with the survivor", ("Records", "clusters>", "compared|"), rows
    )
    return section("Near duplicates", body, note=notes)


def cautions(subject: Subject, growth: str | None) -> Html:
    """What has to be known before the rest is read."""
    m, lines = subject.manifest, []
    if subject.about.withdrawn is not None:
        lines.append(f"this version was withdrawn ({subject.about.withdrawn}), and its data is not given out")
    if m.machine_fates:
        lines.append(f"{m.machine_fates:,} fates were decided by limits of the machine: digests may differ")
    return joined([*(caution(line) for line in lines), remark(growth) if growth else NOTHING])
