"""Drawing of samples of problems: of one problem, of a whole version, and what a selection made of them.

A version of rollouts says how its samples were judged and why; one of selected chains what share of each group of
problems was drawn, found right and selected, with 95% intervals. Groups are compared by their problems: by the share of
which something is selected, beside that of all others together (`synth.bias`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from gristmill.lake.query.chains import DrawnChains, SampledChain
from gristmill.lake.query.families import Child
from gristmill.lake.query.why import Answer
from gristmill.lake.versions.manifest import Manifest
from gristmill.orchestration.show.tables import (
    WIDE,
    bar,
    counted,
    draw_facts,
    grid,
    heading,
    indented,
    percent,
    ruled,
)
from gristmill.orchestration.show.terminal import plain
from gristmill.synth.sampling import DIFFICULTIES

STYLES = {"accepted": "green", "rejected": "red", "undecided": "yellow"}
STRIP = 24
"""Columns of the picture of an interval."""
_CUT = 600
"""Characters of a question or a chain shown without --full."""
_Share = Sequence[float]
"""A share, and the ends of its interval."""


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


def draw_chains(console: Console, drawn: DrawnChains, full: bool) -> None:
    """`grist sample --verdict`. `full`: texts are not cut."""
    console.print(Text(f"{len(drawn.chains)} of {counted(drawn.population, 'sample')} of {drawn.version}", style="dim"))
    for chain in drawn.chains:
        ruled(console, chain.id)
        draw_facts(console, _about(chain))
        indented(console, Text(_shown(chain.question, full), style="dim"))
        console.print()
        if chain.text is None:
            console.print(Text("no text: the engine gave none", style="yellow"))
        else:
            indented(console, _shown(chain.text, full))


def _about(chain: SampledChain) -> dict[str, str]:
    parts = [chain.verdict, chain.reason and f"by {chain.reason}", chain.value, f"judged by {chain.verifier}"]
    facts = {"verdict": ", ".join(part for part in parts if part), "of": f"{chain.parent_id}, sample {chain.sample}"}
    if chain.engine is not None:
        tokens = "" if chain.tokens is None else f", {counted(chain.tokens, 'token')}"
        facts["drawn by"] = f"{chain.engine}{tokens}"
    return facts | ({"gold answer": chain.gold} if chain.gold else {})


def _shown(text: str, full: bool) -> str:
    cut = plain(text if full else text[:_CUT])
    return cut if full or len(text) <= _CUT else f"{cut}\n... {len(text):,} characters in all; --full prints them"


def draw_family(console: Console, samples: Sequence[Mapping[str, Any]], full: bool) -> None:
    """The samples of a problem, as its row has them, in order; nothing where there are none."""
    for sample in samples:
        verdict = Text(f"\nsample {sample['sample']}, {sample['verdict']}", style=STYLES[sample["verdict"]])
        console.print(verdict.append(f" by {sample['reason']}" if sample["reason"] else ""))
        indented(console, "no text: the engine gave none" if sample["text"] is None else _shown(sample["text"], full))


def draw_rollouts(console: Console, m: Manifest) -> None:
    """Of a version of rollouts: verdicts, reasons, difficulties, what was drawn and by whom."""
    assert m.samples is not None
    rollouts = m.statistics["rollouts"]
    heading(console, f"Samples  {m.samples.count:,} of {counted(m.kept.count, 'problem')}")
    table = grid("", ">", ">", "|")
    for verdict, tally in sorted(m.verdicts.items()):
        picture = Text(bar(tally.count, m.samples.count), style=STYLES[verdict])
        table.add_row(f"  {verdict}", f"{tally.count:,}", percent(tally.count, m.samples.count), picture)
    console.print(table)
    new = "" if m.parent is None else ", of new problems"  # what a grown version counts is of its increment
    _draw_reasons(console, f"Why samples were not accepted{new}", rollouts["reasons"], rollouts["samples"])
    heading(console, f"Problems by how many of their samples are right{new}")
    problems = {name: rollouts["difficulties"][name] for name in DIFFICULTIES if name in rollouts["difficulties"]}
    _draw_counts(console, problems, sum(problems.values()), "blue")
    heading(console, f"Drawn{new}")
    draw_facts(console, _drawn(rollouts))
    for finding in rollouts["findings"]:
        console.print(Text(f"  caution: {plain(finding)}", style="yellow"))


def _drawn(rollouts: Mapping[str, Any]) -> dict[str, str]:
    facts = {"by": ", ".join(rollouts["engines"])}
    facts["tokens"] = f"{rollouts['tokens']:,}, after prompts of {rollouts['prompt_tokens']:,}"
    facts["surplus"] = (
        f"{counted(rollouts['surplus'], 'sample')} beyond the stop, {rollouts['surplus_tokens']:,} tokens"
    )
    if rollouts["cost"] is not None:
        facts["cost"] = f"{rollouts['cost']:,.4g} in {counted(rollouts['requests'], 'request')}"
    if rollouts["isolation"]:
        facts["programs ran in"] = ", ".join(rollouts["isolation"])
    return facts


def draw_selection(console: Console, m: Manifest) -> None:
    """Of a version of selected chains: why others were left out, what that did to groups, what shares cost."""
    selection = m.statistics["selection"]
    _draw_reasons(console, "Why samples were not selected", selection["reasons"], m.received.count)
    if selection["balance"]:
        _draw_costs(console, selection["balance"])
    alone = []
    for dimension, rows in groupby(selection["groups"], key=lambda row: row["dimension"]):
        groups = list(rows)
        if len(groups) > 1:
            _draw_groups(console, dimension, groups)
        else:
            alone.append(f"{dimension} ({plain(groups[0]['group'])})")
    if alone:
        console.print()
        indented(console, Text(f"one group only, and nothing to compare: {', '.join(alone)}", style="dim"))
    _draw_thinned(console, [row for row in selection["groups"] if row["thinned"]])


def _draw_groups(console: Console, dimension: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Shares of what was drawn, right and selected; then of its problems those with a selected chain, where there is
    room as a picture, too."""
    heading(console, f"Groups by {dimension}: % of what was drawn, right and selected; % of its problems that are kept")
    pictured = console.width >= WIDE
    axis = (f"{'0':<{STRIP - 3}}100",) if pictured else ()
    table = grid("  group", "problems>", "drawn>", "right>", "selected>", "kept>", *axis)
    for row in rows:
        style = "yellow" if row["thinned"] else ""
        shares = (_share(row[f"share_{what}"]) for what in ("proposed", "accepted", "selected"))
        picture = (Text(strip(row["kept"]), style=style or "blue"),) if pictured else ()
        name = Text(f"  {plain(row['group'])}", style=style)
        table.add_row(name, f"{row['problems']:,}", *shares, _share(row["kept"]), *picture)
    console.print(table)


def _share(share: _Share) -> Text:
    value, low, high = (100 * each for each in share)
    return Text.assemble(f"{value:.0f} ", (f"({low:.0f}-{high:.0f})", "dim"))


def strip(share: _Share) -> str:
    """A share with its interval on a line from 0 to 1: `|--o---|` somewhere on it."""
    value, low, high = (min(STRIP - 1, round(each * (STRIP - 1))) for each in share)
    cells = [" "] * STRIP
    cells[low : high + 1] = "-" * (high + 1 - low)
    cells[low] = cells[high] = "|"
    cells[value] = "o"
    return "".join(cells).rstrip()


def _draw_thinned(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    heading(console, "Thinned out")
    if not rows:
        indented(console, "No group: none keeps fewer of its problems than all others together, beyond chance.")
    for row in rows:
        apart, low, high = (100 * each for each in row["difference"])
        group = (f"{row['dimension']} {plain(row['group'])}", "bold yellow")
        kept = f"{row['kept'][0]:.1%} of its {counted(row['problems'], 'problem')} have a selected chain"
        indented(console, Text.assemble(group, f": {kept}, {apart:+.1f} pp ({low:+.1f} to {high:+.1f}) to all others"))


def _draw_costs(console: Console, costs: Sequence[Mapping[str, Any]]) -> None:
    heading(console, "What shares cost")
    table = grid("  group", "share>", "chains before>", "after>", "left out>")
    for cost in costs:
        lost = cost["before"] - cost["after"]
        table.add_row(
            f"  {plain(cost['group'])}",
            percent(cost["share"], 1),
            f"{cost['before']:,}",
            f"{cost['after']:,}",
            f"{lost:,} ({percent(lost, cost['before'])})",
        )
    console.print(table)


def _draw_reasons(console: Console, title: str, reasons: Mapping[str, int], samples: int) -> None:
    if reasons:
        heading(console, title)
        _draw_counts(console, dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))), samples, "red")


def _draw_counts(console: Console, counts: Mapping[str, int], whole: int, style: str) -> None:
    table = grid("", ">", ">", "|")
    for name, count in counts.items():
        table.add_row(f"  {plain(name)}", f"{count:,}", percent(count, whole), Text(bar(count, whole), style=style))
    console.print(table)
