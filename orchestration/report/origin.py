"""Where a version comes from and what it took: lineage, inputs, recipe, code, and the time of its works by receipts."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from gristmill.lake.query.query import Node, stored_bytes
from gristmill.orchestration.report.html import Content, Html, element, foreign, joined
from gristmill.orchestration.report.pieces import (
    MOST_ROWS,
    NOTHING,
    anchor,
    count,
    facts,
    folded,
    name,
    section,
    size,
    span,
    table,
)
from gristmill.orchestration.report.subject import StageTime, Subject, Work, nodes, times
from gristmill.orchestration.report.svg import Part, bar
from gristmill.orchestration.show.tables import counted, percent, when

FILES = 10
"""Input files that are named one by one."""
NODES = 300
"""Of a lineage, that are drawn."""
RECIPE = 20_000
"""Characters of a recipe."""


def cost(works: Sequence[Work], of: str) -> Html:
    """Time of works by stage, as receipts say."""
    rows = times(works)
    whole = sum(row.seconds for row in rows)
    if not rows:
        return NOTHING
    with_gpu = any(row.gpu_seconds for row in rows)
    heads = ("Stage", "works>", "records>", "time of workers>", *(("time of GPUs>",) if with_gpu else ()), "of all|")
    lines = [[*_stage(row, with_gpu), _bar(row, whole)] for row in rows[:MOST_ROWS]]
    gpu = f" and {span(sum(row.gpu_seconds or 0 for row in rows))} of GPUs" if with_gpu else ""
    notes = (
        f"{span(whole)} of workers{gpu}, by the receipts of {len({work.key for work in works}):,} works. Work that was"
        " done before, by another run or for an earlier version, is counted with its own time."
    )
    return section("What it took", table(f"Time by stage of {of}", heads, lines, len(rows) - len(lines)), note=notes)


def _stage(row: StageTime, with_gpu: bool) -> list[Content]:
    gpu = ["-" if row.gpu_seconds is None else span(row.gpu_seconds)] if with_gpu else []
    return [name(row.stage.replace("_", " ")), count(row.works), count(row.records), span(row.seconds), *gpu]


def _bar(row: StageTime, whole: float) -> Html:
    return bar(Part(row.seconds / (whole or 1), "kept", f"{span(row.seconds)}, {percent(row.seconds, whole)}"))


def lineage(subjects: Sequence[Subject]) -> Html:
    """The trees of what versions were made from, down to input files, with links to what is on the page; one that is
    part of another stands in that alone."""
    refs = {subject.ref for subject in subjects} if len(subjects) > 1 else set()  # a single one has no place to go to
    trees = [_tree(subject.origins, refs) for subject in _last(subjects)]
    return section("Where it comes from", *trees)


def _last(subjects: Sequence[Subject]) -> list[Subject]:
    """Those that nothing else on the page was made from."""
    origins = {node.ref for subject in subjects for node in nodes(subject.origins)[1:]}
    return [subject for subject in subjects if subject.ref not in origins]


def _tree(node: Node, on_page: Collection[str]) -> Html:
    if not (node.origins or node.inputs):
        return NOTHING
    left = [NODES]
    tree = element("ul", _branch(node, on_page, left), class_="tree")
    more = NOTHING if left[0] > 0 else element("p", f"More than {NODES:,}: `grist lineage` has all.", class_="dim")
    title = joined(["Lineage of ", name(node.ref), ", down to input files"])
    return folded(title, tree, more, open_=NODES - left[0] <= MOST_ROWS)


def _branch(node: Node, on_page: Collection[str], left: list[int]) -> Html:
    """A version as an item of a list. `left`: how many more may be drawn, in its only place."""
    left[0] -= 1
    label = element("a", node.ref, href=f"#{anchor(node.ref)}") if node.ref in on_page else element("b", name(node.ref))
    parts: list[Content] = [element("span", f"{node.role} ", class_="dim") if node.role else None, label]
    if node.kept:
        parts.append(element("span", f" {node.kept:,} records", class_="dim"))
    parts += [
        element("strong", f" {text}")
        for text in (node.problem, node.withdrawn and f"withdrawn: {node.withdrawn}")
        if text
    ]
    if node.repeated:
        parts.append(element("span", " (its origins stand above)", class_="dim"))
    below = []
    for origin in node.origins:
        if left[0] > 0:
            below.append(_branch(origin, on_page, left))
    for file in node.inputs[:FILES]:
        called = name(file.names[0]) if file.names else "unnamed"
        about = element("span", f", {file.records:,} records, {size(file.bytes)}", class_="dim")
        below.append(element("li", called, about))
    if len(node.inputs) > FILES:
        below.append(element("li", f"and {len(node.inputs) - FILES:,} more input files", class_="dim"))
    return element("li", *parts, element("ul", *below) if below else None)


def provenance(subject: Subject) -> Html:
    """Digest, time, place and code; recipe and packages folded."""
    m = subject.manifest
    dirty = " (with uncommitted changes)" if m.made.get("dirty") else ""
    known: dict[str, Content] = {
        "digest": element("code", m.digest),
        "run key": element("code", m.run_key),
        "made": f"{when(m.made.get('at'))} UTC",
        "code": f"{m.made['commit']}{dirty}" if m.made.get("commit") else "no git commit known",
        "stored": f"{size(stored_bytes(m))} in {counted(len(m.shards), 'shard')}, with the ledger",
    }
    if "seconds" in m.made:
        known["took"] = span(m.made["seconds"])
    if m.parent is not None:
        known["extends"] = name(str(m.parent))
    if subject.about.tags:
        known["tags"] = name(", ".join(subject.about.tags))
    recipe = json.dumps(m.recipe, indent=1, ensure_ascii=False)
    packages = ", ".join(f"{package} {number}" for package, number in sorted((m.made.get("packages") or {}).items()))
    stages = ", ".join(f"{stage.name} v{stage.version}" for stage in m.stages)
    return section(
        "How it was made",
        facts(known),
        folded("Recipe", element("pre", foreign(recipe, RECIPE))),
        folded("Stages and packages", element("p", stages), element("p", packages)),
    )
