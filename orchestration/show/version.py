"""Drawing of one version: `grist show`, `stats` and `lineage`.

The funnel has a line for what passed each stage and one for each reason below it, in per cent of what came into
that stage, so that a line can be read by itself. Histograms are scaled to their longest bar. A dataset that grew every
night is a thousand versions deep: of a lineage, versions that do nothing but extend are one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text
from rich.tree import Tree

from gristmill.lake.query.query import Description, Node, stored_bytes
from gristmill.lake.query.why import Place
from gristmill.lake.versions.manifest import FunnelRow, InputFile, Manifest
from gristmill.lake.versions.statistics import EvaluationStatistics, TextStatistics, WindowStatistics
from gristmill.orchestration.show.children import draw_rollouts, draw_selection
from gristmill.orchestration.show.evaluation import draw_classifier, draw_evaluation
from gristmill.orchestration.show.tables import (
    SHOWN,
    bar,
    counted,
    draw_facts,
    grid,
    heading,
    indented,
    percent,
    when,
    where,
)
from gristmill.orchestration.show.terminal import plain
from gristmill.orchestration.show.training import draw_training
from gristmill.orchestration.show.windows import draw_mixture
from gristmill.pipelines.frame.growth import growth_report


def draw_description(console: Console, about: Description) -> None:
    """`grist show`."""
    m = about.manifest
    console.print(Text.assemble((str(m), "bold"), "  ", (", ".join(about.tags), "cyan")))
    if about.withdrawn is not None:
        console.print(Text(f"withdrawn: {plain(about.withdrawn)}", style="bold yellow"))
    draw_facts(console, _facts(m, about.changed))
    if m.funnel:  # a tokenizer or a model has neither
        heading(console, "Funnel")
        draw_funnel(console, m.funnel)
    if m.inputs or m.parent:
        _draw_inputs(console, m)
    heading(console, "Recipe")
    console.print(_recipe(m.recipe))
    heading(console, "Stages")
    indented(console, ", ".join(map(str, m.stages)))
    _draw_shards(console, m)
    draw_statistics(console, m)
    packages = m.made.get("packages") or {}
    if packages:
        heading(console, "Packages")
        indented(console, ", ".join(f"{k} {v}" for k, v in sorted(packages.items())))


def _facts(m: Manifest, changed: Sequence[str]) -> dict[str, str]:
    provenance = m.made
    dirty = {True: " (with uncommitted changes)", False: "", None: ""}[provenance.get("dirty")]
    fates = f"{m.received.count:,} in = {m.kept.count:,} kept + {m.dropped.count:,} dropped"
    facts = {
        "holds": m.layout.called,
        "records": f"{fates} + {m.quarantined.count:,} quarantined",
        "digest": m.digest,
        "run key": m.run_key,
        "made": f"{when(provenance.get('at'))} UTC"
        + (f", in {provenance['seconds']:,} s" if "seconds" in provenance else ""),
        "on": ", python ".join(str(provenance[k]) for k in ("host", "python") if provenance.get(k)) or "-",
        "code": f"{provenance['commit']}{dirty}" if provenance.get("commit") else "no git commit known",
        "parent": "-" if m.parent is None else str(m.parent),
    }
    if m.sources:
        facts["made from"] = ", ".join(f"{ref} ({ref.role})" for ref in m.sources)
    if report := growth_report(m, changed):
        facts["growth"] = report
    if m.machine_fates:
        facts["caution"] = f"{m.machine_fates:,} fates were decided by limits of the machine: digests may differ"
    return facts


def draw_funnel(console: Console, funnel: Iterable[FunnelRow]) -> None:
    """Stage by stage what passed, and below it what did not, in % of what came into that stage."""
    table = grid("stage and reason~", "records>", "of stage>", "|")
    for row in funnel:
        share = (
            f"{row.passed:,}",
            percent(row.passed, row.received),
            Text(bar(row.passed, row.received), style="green"),
        )
        table.add_row(Text.assemble((row.stage, "bold"), (" passed", "dim")), *share)
        for kind, style, reasons in (("", "red", row.dropped), (" (quarantined)", "yellow", row.quarantined)):
            for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                name = "  " + reason.removeprefix(f"{row.stage}.") + kind
                table.add_row(name, f"{n:,}", percent(n, row.received), Text(bar(n, row.received), style=style))
    console.print(table)


def _draw_inputs(console: Console, m: Manifest) -> None:
    what = "Inputs" if m.parent is None else f"New inputs, beside those of {m.parent}"
    heading(console, f"{what}  {counted(len(m.inputs), 'file')}, {decimal(sum(i.bytes for i in m.inputs))}")
    table = grid("  sha256", "records>", "size>", "found as~")
    for file in m.inputs[:SHOWN]:
        table.add_row(f"  {file.digest[:12]}", f"{file.records:,}", decimal(file.bytes), plain(", ".join(file.names)))
    console.print(table)
    _and_more(console, len(m.inputs))


def _draw_shards(console: Console, m: Manifest) -> None:
    heading(console, f"Shards  {counted(len(m.shards), 'file')}, {decimal(stored_bytes(m))} with the ledger")
    table = grid("  sha256", "kind", "records>", "size>")
    for ref in m.shards[:SHOWN]:
        table.add_row(f"  {ref.sha256[:12]}", ref.kind, f"{ref.records:,}", decimal(ref.bytes))
    console.print(table)
    _and_more(console, len(m.shards))
    for name, schema in m.schemas.items():
        fields = [line for line in schema.splitlines() if not line.startswith(" ")]  # a list's type names its children
        indented(console, f"schema of a {name}: " + ", ".join(fields))


def _and_more(console: Console, n: int) -> None:
    if n > SHOWN:
        console.print(Text(f"  and {n - SHOWN:,} more (--json has all)", style="dim"))


def _recipe(data: Mapping[str, Any], indent: str = "  ") -> str:
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", _recipe(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}")
    return plain("\n".join(lines))


def draw_statistics(console: Console, m: Manifest) -> None:
    """What the version's form counts, as facts and bars, and the numbers that only its pipeline knows."""
    numbers = {k.replace("_", " "): f"{v:,}" for k, v in m.statistics.items() if isinstance(v, int | float)}
    heading(console, "Statistics")
    if m.layout.statistics is WindowStatistics:
        windows = WindowStatistics.of(m.statistics)
        draw_facts(console, {"tokens": f"{windows.tokens:,}", "loss tokens": f"{windows.loss_tokens:,}"})
        draw_mixture(console, windows)
        return
    if m.layout.statistics is EvaluationStatistics:
        draw_evaluation(console, EvaluationStatistics.of(m.statistics))
        return
    if "text bytes" in numbers:
        numbers["text bytes"] += f" ({decimal(m.statistics['text_bytes'])})"
    draw_facts(console, numbers)
    if edits := m.statistics.get("edits"):
        heading(console, "Edits of texts")
        draw_facts(console, {name: f"{n:,}" for name, n in edits.items()})
    if parts := m.statistics.get("parts"):
        heading(console, "Parts, in parameters")
        draw_histogram(console, list(parts.items()))
    draw_training(console, m.statistics)
    if classifier := m.statistics.get("classifier"):
        draw_classifier(console, classifier)
    if "rollouts" in m.statistics:
        draw_rollouts(console, m)
    if "selection" in m.statistics:
        draw_selection(console, m)
    if clusters := m.statistics.get("clusters"):
        draw_clusters(console, clusters)
    if m.layout.statistics is TextStatistics:
        _draw_texts(console, TextStatistics.of(m.statistics))


def _draw_texts(console: Console, texts: TextStatistics) -> None:
    if texts.languages:
        heading(console, "Languages")
        draw_histogram(console, list(texts.languages.items())[:20])
    if texts.bytes_from:
        heading(console, "Bytes of text per document")
        edges = sorted((int(edge), n) for edge, n in texts.bytes_from.items())
        draw_histogram(console, [(f"from {low:,}", n) for low, n in edges])


def draw_clusters(console: Console, clusters: Mapping[str, Any]) -> None:
    """How large clusters of near duplicates are; the survivor counts."""
    heading(console, "Near duplicates")
    draw_facts(console, {"clusters": f"{clusters['clusters']:,}", "largest": f"{clusters['largest']:,} documents"})
    edges = [int(edge) for edge in clusters["sizes_from"]]
    # up to 4 each size has a line, then they double: 5 to 8, 9 to 16, ...
    rows = [(f"{low:,}-{2 * (low - 1):,}" if low > 4 else f"{low}", clusters["sizes_from"][str(low)]) for low in edges]
    draw_histogram(console, rows)


def draw_histogram(console: Console, rows: Sequence[tuple[str, int]]) -> None:
    """A bar a row of (label, count), with its share of all; the longest bar is the largest count."""
    whole, most = sum(n for _, n in rows), max((n for _, n in rows), default=0)
    table = grid(">", ">", ">", "|")
    for label, n in rows:
        table.add_row("  " + plain(label), f"{n:,}", percent(n, whole), Text(bar(n, most, 30), style="blue"))
    console.print(table)


LONG = 3
"""Versions in a row that become one line."""
EXTENDS = "extends"


def draw_lineage(console: Console, tree: Node, places: Mapping[str, Sequence[Place]] | None = None) -> None:
    """A version, and as branches the versions and input files that it was made from; with `places` (of a record, by
    version) these in place of files."""
    root = Tree(_label(tree), guide_style="dim")
    todo = [(tree, root)]
    while todo:
        node, branch = todo.pop()
        for origin in node.origins:
            run = [] if places is not None and _has_place(origin, places) else _run(origin, places)
            if len(run) >= LONG:
                branch.add(_run_label(run))
                origin = run[-1].origins[0]
            todo.append((origin, branch.add(_label(origin))))
        if places is None:
            _add_inputs(branch, node.inputs)
        else:
            for place in places.get(node.ref, ()):
                branch.add(Text.assemble(where(place), (f"  {place.id}", "dim")))
    console.print(root)


def _has_place(node: Node, places: Mapping[str, Sequence[Place]]) -> bool:
    return bool(places.get(node.ref))


def _run(node: Node, places: Mapping[str, Sequence[Place]] | None) -> list[Node]:
    """This version and those behind it that do nothing but extend, up to the last but one."""
    run: list[Node] = []
    while _only_extends(node) and not (places is not None and _has_place(node, places)):
        run.append(node)
        (node,) = node.origins
    return run


def _only_extends(node: Node) -> bool:
    plainly = node.role == EXTENDS and node.problem is None and node.withdrawn is None
    return plainly and len(node.origins) == 1 and node.origins[0].role == EXTENDS


def _run_label(run: Sequence[Node]) -> Text:
    """One line for many versions."""
    files = [file for node in run for file in node.inputs]
    newest, oldest = run[0], run[-1].ref.rpartition("@")[2]
    brought = f"  {counted(len(files), 'input file')}, {sum(file.records for file in files):,} records" if files else ""
    extends = Text.assemble(("extends ", "cyan"), (f"{newest.ref} down to {oldest}", "bold"))
    return extends.append(f"  {counted(len(run), 'version')}{brought}, and below them", style="dim")


def _label(node: Node) -> Text:
    label = Text.assemble((node.ref, "bold"), "  ", (node.digest[:12], "dim"))
    if node.kept or not node.problem:  # of one that cannot be read, how many is not known
        label.append(f"  {node.kept:,} records")
    if node.role:
        label = Text.assemble((f"{node.role} ", "cyan"), label)
    for text in (node.problem, None if node.withdrawn is None else f"withdrawn: {node.withdrawn}"):
        if text:
            label.append(f"  {plain(text)}", style="yellow")
    if node.repeated:
        label.append("  (its origins stand above)", style="dim")
    return label


def _add_inputs(branch: Tree, inputs: Sequence[InputFile]) -> None:
    for file in inputs[:SHOWN]:
        name = plain(file.names[0]) if file.names else "unnamed"
        about = f"  {file.digest[:12]}  {file.records:,} records, {decimal(file.bytes)}"
        branch.add(Text.assemble(name, (about, "dim")))
    if len(inputs) > SHOWN:
        branch.add(Text(f"and {len(inputs) - SHOWN:,} more input files", style="dim"))
