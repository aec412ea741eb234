"""A lineage as a graph, and the way of one record: from a checkpoint down to its place in an input, and up again."""

from __future__ import annotations

import json
import re

import pytest
from drafts import draft
from lake_builder import Page, commit, page_id, pages
from typer.testing import CliRunner, Result

from gristmill.lake.query.learned import Learned
from gristmill.lake.query.lineage import dot, graph, record_path, walk
from gristmill.lake.query.query import lineage
from gristmill.lake.query.why import why
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.orchestration.cli.main import app

KEPT, DROPPED, MATHS = "https://example.org/3", "https://example.org/2", "https://example.org/m"
SHORT = Page(DROPPED, "quality.too_few_words", "12")


def model(store: Store, name: str, *sources: tuple[str, Manifest]) -> Manifest:
    """A model without weights that was made from these, each in its role."""
    refs = tuple(manifest.ref.model_copy(update={"role": role}) for role, manifest in sources)
    key = " ".join([name, *map(str, refs)])
    return Versions(store).commit(draft(name, key, [], form="model", sources=refs))


@pytest.fixture
def lake(store: Store) -> Store:
    """web@v1 and math@v1 mixed; a base trained on the mixture, an adapter that begins with the base and has math held
    out, and a model that learned from math alone, with the base as its reference."""
    web = commit(store, "web", pages(5, p2=SHORT), file="crawl/a.warc.gz")
    math = commit(store, "math", [Page(MATHS)], file="crawl/b.warc.gz")
    mixture = commit(store, "mix", pages(5, p2=Page(MATHS)), file="c", sources=[web.ref, math.ref])
    base = model(store, "base", ("trained_on", mixture))
    model(store, "adapter", ("init_from.language", base), ("held_out", math))
    model(store, "other", ("trained_on", math), ("reference", base))
    return store


def test_a_record_goes_from_a_checkpoint_down_to_its_place(lake: Store) -> None:
    path = record_path(Versions(lake), "adapter@v1", KEPT)
    assert [node.ref for node, _ in walk(path.tree)] == ["adapter@v1", "base@v1", "mix@v1", "web@v1"]
    (place,) = path.places["web@v1"]
    assert place.id == page_id(KEPT) and place.names == ("crawl/a.warc.gz",) and place.length > 0
    data = path.to_json()
    assert data["record"] == KEPT and data["places"]["web@v1"][0]["id"] == place.id
    assert {"version": "adapter@v1", "role": "init_from.language", "origin": "base@v1"} in data["edges"]


@pytest.mark.parametrize(
    ("version", "record"),
    [("base@v1", DROPPED), ("other@v1", KEPT), ("web@v1", MATHS), ("base@v1", "https://example.org/none")],
)
def test_what_a_version_was_not_made_from_is_refused(lake: Store, version: str, record: str) -> None:
    with pytest.raises(NoSuchVersion, match=f"{version} was not made from '{record}'"):
        record_path(Versions(lake), version, record)


def test_why_names_the_models_that_learned_from_a_record(lake: Store) -> None:
    assert why(Versions(lake), KEPT).models == (
        Learned("adapter@v1", "init_from.language", "base@v1"),
        Learned("base@v1", "trained_on", "mix@v1"),
    )
    assert {learned.model for learned in why(Versions(lake), MATHS).models} == {"adapter@v1", "base@v1", "other@v1"}
    assert why(Versions(lake), DROPPED).models == () == why(Versions(lake), KEPT, "web").models
    shown = grist(lake, "why", KEPT).stdout
    assert "models that learned from it" in shown and re.search(r"base@v1 +trained_on +mix@v1", shown)


def test_a_graph_has_each_version_once(lake: Store) -> None:
    data = graph(lineage(Versions(lake), "other"))
    refs = [node["ref"] for node in data["nodes"]]
    assert sorted(refs) == ["base@v1", "math@v1", "mix@v1", "other@v1", "web@v1"]
    assert sorted(edge["origin"] for edge in data["edges"]) == ["base@v1", "math@v1", "math@v1", "mix@v1", "web@v1"]
    (math,) = [node for node in data["nodes"] if node["ref"] == "math@v1"]
    assert math["inputs"][0]["names"] == ["crawl/b.warc.gz"]


TEXT = r'"((?:[^"\\]|\\.)*)"'
NODE = re.compile(rf"  {TEXT} \[label={TEXT}(?:, [a-z]+=[a-z]+)?\];")
EDGE = re.compile(rf"  {TEXT} -> {TEXT}(?: \[label={TEXT}\])?;")


def test_dot_is_a_graph_whose_edges_join_what_it_declares(lake: Store) -> None:
    for record in (None, KEPT):
        path = None if record is None else record_path(Versions(lake), "adapter", record)
        text = dot(lineage(Versions(lake), "adapter")) if path is None else dot(path.tree, path.places)
        first, *lines, last = text.splitlines()
        assert (first, last) == ("digraph lineage {", "}")
        nodes = {match[1] for line in lines if (match := NODE.fullmatch(line))}
        edges = [match.groups()[:2] for line in lines if (match := EDGE.fullmatch(line))]
        assert len(nodes) + len(edges) == len(lines) - 2  # settings of the graph
        assert {end for edge in edges for end in edge} == nodes and ("base@v1", "adapter@v1") in edges
        assert ("record 3" in text) is (record is not None)


def test_hostile_names_are_text_in_dot(store: Store) -> None:
    commit(store, "web", pages(2), file='a"]; evil [label="\\\x1b[2J')
    lines = dot(lineage(Versions(store), "web")).splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum(bool(NODE.fullmatch(line) or EDGE.fullmatch(line)) for line in lines) == 3


def test_the_command_draws_prints_json_and_dot(lake: Store) -> None:
    shown = grist(lake, "lineage", "adapter", "--record", KEPT).stdout
    assert "crawl/a.warc.gz, record 3, bytes" in shown and "math@v1" not in shown
    assert json.loads(grist(lake, "lineage", "adapter", "--record", KEPT, "--json").stdout)["places"]
    assert grist(lake, "lineage", "adapter", "--dot").stdout.startswith("digraph lineage {")
    assert "give one of them" in grist(lake, "lineage", "adapter", "--dot", "--json", code=2).stderr
    assert "why" in grist(lake, "lineage", "base", "--record", DROPPED, code=1).stderr


def test_a_dataset_of_many_nights_is_a_line(store: Store) -> None:
    base = commit(store, "web", pages(1), file="crawl/0.warc.gz")
    for night in range(1, 12):
        more = [*pages(night + 1)]
        base = commit(store, "web", more, file=f"{night}", parent=base)
    shown = grist(store, "lineage", "web").stdout
    assert "web@v11 down to v3" not in shown and "web@v11 down to v2" in shown and "10 versions" in shown
    assert "web@v12" in shown and "web@v1 " in shown and "crawl/0.warc.gz" in shown and len(shown.splitlines()) < 8


def grist(store: Store, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*args, "--lake", store.uri])
    assert result.exit_code == code, result.output
    return result
