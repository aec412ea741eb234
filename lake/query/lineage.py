"""A lineage as a graph, and the part of it that one record went through.

The tree of versions (lake/query/query.py) goes from a trained model down to input files. As a graph each version stands
once, with edges to what it was made from: so it is written as JSON, and as DOT for Graphviz. Of a record it is the
paths on which every version kept it: a version that has a ledger says so itself, and a model, which has none, was made
from it where something that it was trained on, or began with, was. The way up is the same edges, from a record to the
models that learned from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gristmill.lake.query.learned import Holders, teaches
from gristmill.lake.query.query import Node, tree_of
from gristmill.lake.query.why import Place, Story, why
from gristmill.lake.versions.catalogue import Catalogue
from gristmill.lake.versions.versions import NoSuchVersion, Versions


@dataclass(frozen=True)
class Edge:
    """`version` was made from `origin`, which played `role`."""

    version: str
    role: str
    origin: str


@dataclass(frozen=True)
class RecordPath:
    """`tree`: the part of a version's lineage that kept a record; `places`: where it lies, by version that brought its
    input in."""

    query: str
    tree: Node
    places: Mapping[str, tuple[Place, ...]]

    def to_json(self) -> dict[str, Any]:
        """As `grist lineage --record --json` prints it."""
        places = {ref: [vars(place) for place in at] for ref, at in self.places.items()}
        return {"record": self.query, **graph(self.tree), "places": places}


def walk(tree: Node) -> Iterator[tuple[Node, Node | None]]:
    """Every node of a tree with the one above it, from the root on; however deep it is."""
    todo: list[tuple[Node, Node | None]] = [(tree, None)]
    while todo:
        node, above = todo.pop()
        yield node, above
        todo += [(origin, node) for origin in reversed(node.origins)]


def graph(tree: Node) -> dict[str, Any]:
    """`version`: the root; `nodes`: every version once, with its input files; `edges`: what was made from what."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for node, above in walk(tree):
        if node.ref not in nodes or nodes[node.ref].repeated:
            nodes[node.ref] = node
        if above is not None:
            edges.append(Edge(above.ref, node.role, node.ref))
    return {
        "version": tree.ref,
        "nodes": [_fields(node) for node in nodes.values()],
        "edges": [vars(edge) for edge in edges],
    }


def _fields(node: Node) -> dict[str, Any]:
    about = {name: getattr(node, name) for name in ("ref", "digest", "kept", "withdrawn", "problem")}
    return {**about, "inputs": [file.model_dump(mode="json") for file in node.inputs]}


def dot(tree: Node, places: Mapping[str, Sequence[Place]] | None = None) -> str:
    """A lineage in Graphviz's language: versions as boxes, input files (with `places` the records in them) as notes
    below the version that brought them in. Many files of one version are one note."""
    data = graph(tree)
    lines = ["digraph lineage {", "  rankdir=BT;", '  node [shape=box, fontname="sans-serif"];']
    for node in data["nodes"]:
        about = f"withdrawn: {node['withdrawn']}" if node["withdrawn"] is not None else node["problem"]
        label = "\n".join(filter(None, (node["ref"], f"{node['kept']:,} records", about)))
        style = ", style=dashed" if about else ""
        lines.append(f"  {_quoted(node['ref'])} [label={_quoted(label)}{style}];")
    for edge in data["edges"]:
        lines.append(f"  {_quoted(edge['origin'])} -> {_quoted(edge['version'])} [label={_quoted(edge['role'])}];")
    for node in data["nodes"]:
        for label in _notes(node["inputs"], None if places is None else places.get(node["ref"], ())):
            key = f"{node['ref']} {label}"
            lines.append(f"  {_quoted(key)} [label={_quoted(label)}, shape=note];")
            lines.append(f"  {_quoted(key)} -> {_quoted(node['ref'])};")
    return "\n".join([*lines, "}"])


def _notes(inputs: Sequence[Mapping[str, Any]], places: Sequence[Place] | None) -> Iterator[str]:
    if places is not None:
        for place in places:
            yield f"{place.names[0] if place.names else place.input[:12]}\nrecord {place.ordinal:,} ({place.id})"
    elif len(inputs) == 1:
        (file,) = inputs
        yield f"{file['names'][0] if file['names'] else file['digest'][:12]}\n{file['records']:,} records"
    elif inputs:
        yield f"{len(inputs):,} input files\n{sum(file['records'] for file in inputs):,} records"


def _quoted(text: str) -> str:
    """A string of DOT: whatever was in it is text, and no character acts on a terminal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c.isprintable() else "?" for c in escaped) + '"'


def record_path(versions: Versions, ref: str, query: str) -> RecordPath:
    """Through which versions a record (a URL, a source key or an id) came into this one, down to its place in an input.

    Raises NoSuchVersion where the version does not have it, with what `why` knows then; ValueError as `why`.
    """
    manifest = versions.resolve(ref)
    catalogue = Catalogue(versions)
    tree = tree_of(catalogue, manifest)
    answer = why(versions, query)
    kept: dict[str, list[Story]] = {}
    for story in answer.stories:
        if story.fate == "kept":
            for number in story.versions:
                kept.setdefault(f"{story.dataset}@v{number}", []).append(story)
    pruned = _pruned(tree, Holders(catalogue, kept.keys()))
    if pruned is None:
        known = "; `grist why` says what became of it" if answer.stories else ": no version of this lake has it"
        raise NoSuchVersion(f"{manifest} was not made from {query!r}{known}")
    places = {node.ref: _places(node, kept.get(node.ref, ())) for node, _ in walk(pruned)}
    return RecordPath(query, pruned, {ref: at for ref, at in places.items() if at})


def _places(node: Node, stories: Iterable[Story]) -> tuple[Place, ...]:
    """Of the record in the inputs that this version brought in."""
    own = {file.digest for file in node.inputs}
    return tuple(story.place for story in stories if story.place.input in own)


def _pruned(tree: Node, holders: Holders) -> Node | None:
    """The tree without what does not hold the record; None where nothing does."""
    rebuilt: dict[int, Node | None] = {}
    # From the leaves up: what is below a node comes after it in the walk.
    for node in reversed([node for node, _ in walk(tree)]):
        is_model = bool(holders.through(node.version))
        below = [o for o in node.origins if not is_model or teaches(o.role)]
        origins = tuple(o for o in (rebuilt[id(origin)] for origin in below) if o is not None)
        rebuilt[id(node)] = replace(node, origins=origins) if holders.holds(node.version) else None
    return rebuilt[id(tree)]
