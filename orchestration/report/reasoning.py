"""Chains of thought: how samples were judged, what is right round after round, what a selection did to groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gristmill.lake.versions.manifest import Manifest
from gristmill.orchestration.report.html import Content, Html, element, joined
from gristmill.orchestration.report.pieces import NOTHING, caution, count, facts, name, section, table
from gristmill.orchestration.report.records import key
from gristmill.orchestration.report.svg import Part, bar, interval
from gristmill.orchestration.show.tables import percent
from gristmill.synth.bias import share
from gristmill.synth.sampling import DIFFICULTIES

_KINDS = {"accepted": "kept", "rejected": "dropped", "undecided": "quarantined"}
_Share = Sequence[float]


def rollouts(m: Manifest) -> Html:
    """Of a version of rollouts: verdicts, reasons, difficulties, what was drawn and by whom."""
    about: Mapping[str, Any] | None = m.statistics.get("rollouts")
    if about is None or m.samples is None:
        return NOTHING
    cost = {} if about["cost"] is None else {"cost": f"{about['cost']:,.4g} in {about['requests']:,} requests"}
    drawn = {
        "samples": f"{m.samples.count:,} of {m.kept.count:,} problems",
        "drawn by": name(", ".join(about["engines"])),
        "tokens": f"{about['tokens']:,}, after prompts of {about['prompt_tokens']:,}",
        **cost,
    }
    problems = {level: about["difficulties"][level] for level in DIFFICULTIES if level in about["difficulties"]}
    return section(
        "Samples and how they were judged",
        _verdicts(m),
        facts(drawn),
        _counts("Why samples were not accepted", "Reason", about["reasons"], about["samples"], "dropped"),
        _counts(
            "Problems by how many of their samples are right", "Problems", problems, sum(problems.values()), "kept"
        ),
        *(caution(finding) for finding in about["findings"]),
    )


def _verdicts(m: Manifest) -> Html:
    assert m.samples is not None
    rows = [
        [verdict, count(tally.count), percent(tally.count, m.samples.count),
         bar(Part(tally.count / (m.samples.count or 1), _KINDS.get(verdict, "other"), f"{tally.count:,} samples"))]
        for verdict, tally in sorted(m.verdicts.items())
    ]  # fmt: skip
    return table(f"Samples of {m} by verdict", ("Verdict", "samples>", "share>", "of all|"), rows)


def _counts(caption: str, head: str, counts: Mapping[str, int], whole: int, kind: str) -> Html:
    rows = [
        [name(label), count(n), percent(n, whole), bar(Part(n / (whole or 1), kind, f"{n:,}"))]
        for label, n in counts.items()
    ]
    return table(caption, (head, "count>", "share>", "of all|"), rows)


def rounds(versions: Sequence[Manifest]) -> Html:
    """Acceptance by round: of several versions of rollouts, in the order in which they were drawn."""
    drawn = [m for m in versions if m.samples is not None and m.samples.count]
    if len(drawn) < 2:
        return NOTHING
    rows: list[list[Content]] = []
    for number, m in enumerate(drawn, 1):
        assert m.samples is not None
        problems, unsolved = m.kept.count, int(m.statistics["rollouts"]["difficulties"].get("unsolved", 0))
        accepted = m.verdicts["accepted"].count if "accepted" in m.verdicts else 0
        solved, low, high = share(problems - unsolved, problems)
        words = f"{solved:.1%} of problems solved ({low:.1%} to {high:.1%})"
        rows.append(
            [
                str(number),
                name(str(m)),
                name(", ".join(m.statistics["rollouts"]["engines"])),
                count(m.samples.count),
                percent(accepted, m.samples.count),
                f"{solved:.1%}",
                interval(solved, low, high, words),
            ]
        )
    heads = ("Round", "version", "drawn by", "samples>", "right>", "problems solved>", "0 to 100%|")
    notes = (
        "Of a problem that is solved at least one sample is right; more samples are drawn of a hard problem, so that"
        " shares of samples compare less well than those of problems. Intervals are of 95%."
    )
    return section("Acceptance by round", table("Rounds of sampling", heads, rows), note=notes)


def selection(m: Manifest) -> Html:
    """Of a version of selected chains: why others were left out, and what that did to groups."""
    about: Mapping[str, Any] | None = m.statistics.get("selection")
    if about is None:
        return NOTHING
    tables = []
    for dimension, group in groupby(about["groups"], key=lambda row: str(row["dimension"])):
        rows = list(group)
        if len(rows) > 1:
            tables.append(_groups(dimension, rows))
    thinned = [row for row in about["groups"] if row["thinned"]]
    return section(
        "What the selection did to groups",
        _counts("Why samples were not selected", "Reason", about["reasons"], m.received.count, "dropped"),
        _costs(about["balance"]),
        joined(tables),
        joined(_thinned(row) for row in thinned),
        element("p", "No group keeps fewer of its problems than all others together, beyond chance.")
        if tables and not thinned
        else NOTHING,
        note="Groups are compared by the share of their problems of which a chain is selected; intervals are of 95%.",
    )


def _groups(dimension: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    lines: list[list[Content]] = []
    for row in rows:
        kept, low, high = row["kept"]
        words = f"{kept:.1%} of problems kept ({low:.1%} to {high:.1%})"
        picture = interval(kept, low, high, words, "dropped" if row["thinned"] else "kept")
        flag = element("strong", " thinned out") if row["thinned"] else NOTHING
        shares = [_share(row[f"share_{what}"]) for what in ("proposed", "accepted", "selected")]
        lines.append(
            [joined([name(str(row["group"])), flag]), count(row["problems"]), *shares, _share(row["kept"]), picture]
        )
    heads = ("Group", "problems>", "of drawn>", "of right>", "of selected>", "problems kept>", "0 to 100%|")
    return table(f"Groups by {dimension}", heads, lines)


def _share(of: _Share) -> Html:
    value, low, high = of
    return joined([f"{value:.1%} ", element("span", f"({100 * low:.0f} to {100 * high:.0f})", class_="dim")])


def _thinned(row: Mapping[str, Any]) -> Html:
    apart, low, high = (100 * each for each in row["difference"])
    return caution(
        f"{row['dimension']} {row['group']} is thinned out: {row['kept'][0]:.1%} of its {row['problems']:,} problems"
        f" have a selected chain, {apart:+.1f} points ({low:+.1f} to {high:+.1f}) against all others together"
    )


def _costs(costs: Sequence[Mapping[str, Any]]) -> Html:
    rows = [
        [name(str(cost["group"])), percent(cost["share"], 1), count(cost["before"]), count(cost["after"])]
        for cost in costs
    ]
    return table("What the shares of the recipe cost", ("Group", "share>", "chains before>", "after>"), rows)


def verdict_key() -> Html:
    """What colours of verdicts are."""
    return key([(kind, verdict) for verdict, kind in _KINDS.items()])
