"""Drawing of a lineage: `grist lineage` as a tree.

A dataset that grew every night is a thousand versions deep. What only extends the one before it, and has no other
origin and nothing wrong with it, is one line with how many there are and what they brought in; the version at its end
has a line of its own again. Of a record a branch ends in its place in an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text
from rich.tree import Tree

from gristmill.lake.query.query import Node
from gristmill.lake.query.why import Place
from gristmill.lake.versions.manifest import InputFile
from gristmill.orchestration.show.records import where
from gristmill.orchestration.show.tables import SHOWN, counted
from gristmill.orchestration.show.terminal import plain

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
