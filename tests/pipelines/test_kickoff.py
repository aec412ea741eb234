"""A kickoff in this process: its order, exact versions in place of references, what fails, and what is done already."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from kickoffs import Graphs
from toy_chain import LinesConfig
from toy_pipeline import RUNS, Upper, UpperConfig

from gristmill.lake.store.base import Store
from gristmill.lake.store.outage import Unreachable
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.ask import all_committed
from gristmill.pipelines.frame.recipe import PipelineConfig
from gristmill.pipelines.kickoff import bring
from gristmill.pipelines.kickoff.prepare import prepare
from gristmill.pipelines.kickoff.run import code_of
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import INCOMPLETE


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    monkeypatch.setitem(PIPELINES, "lines", LinesConfig)
    RUNS.clear()
    return Graphs(tmp_path)


def diamond(graphs: Graphs) -> dict[str, object]:
    """d of b and c, both of a, in an order in which nothing could run."""
    return {
        "d": graphs.upper("d", "node:b", "node:c"),
        "b": graphs.upper("b", "node:a"),
        "c": graphs.upper("c", "node:a"),
        "a": graphs.upper("a"),
    }


def broken(name: str, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Lets the work on a file fail."""

    def meanwhile(store: Store) -> None:
        if RUNS[-1] == f"{name}.jsonl":
            raise error

    monkeypatch.setattr(Upper, "meanwhile", staticmethod(meanwhile))


def test_nodes_run_after_what_they_need_and_name_the_exact_versions(graphs):
    ends, watch = graphs.run(diamond(graphs))
    assert watch.starts == ["a", "b", "c", "d"] and {end.state for end in ends.values()} == {"made"}
    (version,) = ends["d"].versions
    assert [str(ref) for ref in version.sources] == ["b@v1", "c@v1"] and version.recipe["sources"] == ["b@v1", "c@v1"]


def test_what_is_done_is_not_done_again(graphs):
    first, _ = graphs.run(diamond(graphs))
    RUNS.clear()
    again, watch = graphs.run(diamond(graphs))
    assert {end.state for end in again.values()} == {"there"} and not RUNS
    assert watch.ends == ["a there", "b there", "c there", "d there"]
    assert {name: end.versions for name, end in first.items()} == {name: end.versions for name, end in again.items()}


def test_a_new_version_of_one_goes_on_to_what_is_made_of_it_and_no_further(graphs):
    graphs.run(diamond(graphs))
    graphs.lines("b", 2)
    RUNS.clear()
    ends, _ = graphs.run(diamond(graphs))
    assert {name: end.state for name, end in ends.items()} == {"a": "there", "b": "made", "c": "there", "d": "made"}
    assert [str(ref) for ref in ends["d"].versions[0].sources] == ["b@v2", "c@v1"]
    assert RUNS == ["b.jsonl"]  # the line of d is the same piece of work as before


def test_a_branch_goes_on_when_another_fails_and_the_same_command_finishes(graphs, monkeypatch):
    with monkeypatch.context() as patch:
        broken("b", patch, OSError("the disk is full"))
        ends, _ = graphs.run(diamond(graphs))
    assert {name: end.state for name, end in ends.items()} == {"a": "made", "b": "failed", "c": "made", "d": "held"}
    assert "the disk is full" in ends["b"].why and ends["b"].code == 5 and ends["d"].why == "b"
    assert code_of(list(ends.values())) == 5
    RUNS.clear()
    ends, watch = graphs.run(diamond(graphs))
    assert watch.ends == ["a there", "b made", "c there", "d made"] and RUNS == ["b.jsonl", "d.jsonl"]


def test_what_nobody_foresaw_in_a_node_is_its_own_failure(graphs, monkeypatch):
    broken("a", monkeypatch, TypeError("a defect"))
    nodes = {"a": graphs.upper("a"), "b": graphs.upper("b"), "c": graphs.upper("c", "node:a")}
    ends, _ = graphs.run(nodes)
    assert {name: end.state for name, end in ends.items()} == {"a": "failed", "b": "made", "c": "held"}
    assert ends["a"].why == "TypeError: a defect" and code_of(list(ends.values())) == 1


def test_an_interrupt_ends_the_kickoff_not_a_node(graphs, monkeypatch):
    broken("b", monkeypatch, KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        graphs.run(diamond(graphs))
    assert Versions(graphs.prepared(diamond(graphs)).store).names() == ["a"]


def test_a_link_of_a_chain_is_named_behind_its_node(graphs):
    files = [str(graphs.folder / f"{name}.jsonl") for name in "ab"]
    chain = {"config": str(graphs.folder / "lines.yaml"), "recipe": {"dataset": "lines", "files": files}}
    nodes = {"chain": chain, "c": graphs.upper("c", "node:chain.a", "node:chain"), "d": graphs.upper("d", needs=["c"])}
    ends, watch = graphs.run(nodes)
    assert [str(manifest) for manifest in ends["chain"].versions] == ["lines.a@v1", "lines.b@v1"]
    assert [str(ref) for ref in ends["c"].versions[0].sources] == ["lines.a@v1", "lines.b@v1"]
    assert watch.starts == ["chain", "c", "d"]
    with pytest.raises(
        BadConfig, match=r"^nodes.c: recipe.sources.0: node:chain.z: chain makes lines.a, lines.b, and no"
    ):
        graphs.prepared(nodes | {"c": graphs.upper("c", "node:chain.z")})
    graphs.lines("b.a", 1)
    chain["recipe"]["files"] = [files[0], str(graphs.folder / "b.a.jsonl")]
    ends, _ = graphs.run({"chain": chain, "c": graphs.upper("c", "node:chain.a")})
    assert [str(ref) for ref in ends["c"].versions[0].sources] == ["lines.a@v1"]  # and not that of lines.b.a


def test_a_run_says_what_it_made_where_the_lake_cannot_tell_of_files_as_new_as_these(graphs, monkeypatch):
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", 1e9)  # no file is old enough to be known again unread
    files = [str(graphs.folder / f"{name}.jsonl") for name in "ab"]
    nodes = {"chain": {"config": str(graphs.folder / "lines.yaml"), "recipe": {"dataset": "lines", "files": files}}}
    nodes["c"] = graphs.upper("c", "node:chain.a", "node:chain")
    ends, watch = graphs.run(nodes)
    assert watch.ends == ["chain made", "c made"]
    assert [str(ref) for ref in ends["c"].versions[0].sources] == ["lines.a@v1", "lines.b@v1"]
    again, watch = graphs.run(nodes)
    assert watch.ends == ["chain there", "c there"] and again["chain"].versions == ends["chain"].versions


def test_only_a_node_or_what_comes_after_it(graphs):
    with pytest.raises(BadConfig, match="d needs c, which is not done"):
        graphs.prepared(diamond(graphs), only=("d",))
    _, watch = graphs.run(diamond(graphs), only=("a", "b"))
    assert watch.starts == ["a", "b"]
    _, watch = graphs.run(diamond(graphs), since=("c",))
    assert watch.ends == ["c made", "d made"]
    with pytest.raises(BadConfig, match="e: there is no such node; there are a, b, c, d"):
        graphs.prepared(diamond(graphs), only=("e",))


def test_what_cannot_be_is_refused_by_its_key_before_anything_starts(graphs):
    def refused(nodes: dict[str, object]) -> str:
        with pytest.raises(BadConfig) as error:
            graphs.prepared(nodes)
        assert not RUNS and not list((graphs.folder / "lake").rglob("receipts"))
        return str(error.value)

    up = graphs.upper
    assert refused({}) == "nodes: nodes: none; give at least one"
    assert refused({"A b": up("a")}).startswith("nodes: nodes.'A b': a name has lower-case letters")
    circle = {"a": up("a", "node:b"), "b": up("b", "node:c"), "c": up("c", "node:a")}
    assert refused(circle) == "nodes: a needs b needs c needs a: nothing could come first"
    assert refused({"a": up("a", "node:x")}) == "nodes.a: recipe.sources.0: 'x': there is no such node; there are a"
    assert refused({"a": up("a", needs=["x"])}) == "nodes.a: needs: 'x': there is no such node; there are a"
    assert refused({"a": up("a", "node:")}).startswith("nodes.a: recipe.sources.0: 'node:': expected node:NAME")
    assert "nodes.a: recipe.inputs: input '" in refused({"a": up("a"), "e": up("e")}).replace("nodes.e", "nodes.a")
    misspelled = {**up("a"), "recipe": {"inptus": []}}
    assert refused({"a": misspelled}).startswith("nodes.a: recipe.inptus: unknown key; allowed here: ")
    unknown = {**up("a"), "recipe": {"inputs": ["${date}/a"]}}
    assert refused({"a": unknown}) == "nodes.a: recipe: ${date}: there is no such key in paths; there are data"
    limited = up("a")
    limited["recipe"]["limit"] = 3
    assert refused({"a": limited}).startswith("nodes.a: recipe.limit: a preview, on which nothing is built")
    assert "there is no such file" in refused({"a": {"config": "no.yaml"}})
    assert refused({"a": {"config": "web", "nedes": []}}).startswith("nodes.a.nedes: unknown key; allowed here: accept")


def test_a_version_is_held_against_what_its_node_makes(graphs):
    def refused(recipe: dict[str, object], config: str = "mixture") -> str:
        with pytest.raises(BadConfig) as error:
            graphs.prepared({"a": graphs.upper("a"), "x": {"config": config, "recipe": recipe}})
        return str(error.value)

    mixed = {"sources": {"node:a": 1}}
    empty = "nodes.x: recipe.tokenizer is empty: give node:NAME, or an exact version; it has to hold a tokenizer"
    assert refused(mixed) == empty
    assert refused({**mixed, "tokenizer": "node:a"}).startswith("nodes.x: recipe.tokenizer: node:a makes documents;")
    assert refused({**mixed, "tokenizer": "bpe@v1"}).startswith("nodes.x: recipe.tokenizer: there is no dataset 'bpe'")
    assert "recipe.model: node:a makes documents" in refused({"model": "node:a", "data": ["node:a"]}, "evaluate")


def test_a_stage_takes_its_parts_from_the_nodes_of_the_stages_before_it(graphs):
    def stage(name: str, **keys: object) -> dict[str, object]:
        recipe = {"tokenizer": "node:bpe"}
        return {"config": "train-nano", "recipe": recipe, "stage": {"name": name, "data": "node:mix", **keys}}

    held = {"held_out": [], "gates": ["frozen_parts"]}
    nodes = {
        "a": graphs.upper("a"),
        "bpe": {"config": "tokenizer", "recipe": {"sources": ["node:a"]}},
        "mix": {"config": "mixture", "recipe": {"tokenizer": "node:bpe", "sources": {"node:a": 1}, "window": 64}},
        "second": stage("posttrain", **held),
        "first": stage("pretrain", **held),
    }
    graph = graphs.prepared(nodes).graph
    assert list(graph.nodes) == ["a", "bpe", "mix", "first", "second"]
    second = graph.nodes["second"]
    assert set(second.needs) == {"bpe", "first", "mix"}
    assert dict(second.makes) == {"nano.posttrain": "model"}
    assert second.data["recipe"]["stages"][0]["init_from"] == {"language": "node:first"}
    with pytest.raises(BadConfig, match=r"nodes.second: stage.init_from: 'stage:pretrain': no node trains the stage"):
        graphs.prepared({name: node for name, node in nodes.items() if name != "first"})
    with pytest.raises(
        BadConfig, match=r"nodes.first: stage.name: 'third': the stages of config are pretrain, posttrain"
    ):
        graphs.prepared(nodes | {"first": stage("third")})
    with pytest.raises(
        BadConfig, match=r"nodes.first: recipe.stages.0.data: node:a makes documents; it has to hold packed"
    ):
        graphs.prepared(nodes | {"first": stage("pretrain", **held, data="node:a")})


# Gates


def texts(graphs: Graphs, distinct: int, **more: object) -> dict[str, object]:
    """A dataset of 20 rows, of which so many differ, and a tokenizer of it."""
    rows = ({"question": f"What is {n % distinct}?", "answer": f"It is {n % distinct}."} for n in range(20))
    (graphs.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = {"dataset": "rows", "inputs": ["${data}/rows.jsonl"], "instruct": {"form": "pair"}}
    rows_node = {"config": "instruct", "recipe": recipe, "gates": {"min_records": 10}, **more}
    bpe = {"config": "tokenizer", "recipe": {"dataset": "bpe", "sources": ["node:rows"], "train": {"vocab_size": 300}}}
    return {"rows": rows_node, "bpe": bpe, "a": graphs.upper("a")}


def test_a_version_that_drifted_is_made_and_holds_back_what_would_be_made_of_it_until_it_is_accepted(graphs):
    graphs.run(texts(graphs, 20))
    for _ in range(2):  # asked again, the lake gives the same answer
        drifted = texts(graphs, 5)
        ends, _ = graphs.run(drifted)
        assert {name: end.state for name, end in ends.items()} == {"rows": "gated", "bpe": "held", "a": "there"}
        assert ends["rows"].why.startswith("rows@v2: kept rate: rows@v2 kept 25.0% of its records, rows@v1 100.0%")
        assert ends["bpe"].why == "rows" and code_of(list(ends.values())) == 3
    rows, bpe, a = prepare(graphs.asked(drifted), for_plan=True).plan().nodes
    assert rows.held == ends["rows"].why and bpe.held == "by rows" and a.done
    assert not (rows.to_run or rows.estimate or bpe.to_run or bpe.estimate or a.held)
    with pytest.raises(BadConfig, match="bpe needs rows, which is not done, or held by a gate"):
        graphs.prepared(texts(graphs, 5), only=("bpe",))
    ends, _ = graphs.run(texts(graphs, 5, accept=["rows@v2"]))
    assert [str(ref) for ref in ends["bpe"].versions[0].sources] == ["rows@v2"]
    for more in ({}, {"gates": None}):  # accepted once, it need not be named any more
        ends, _ = graphs.run(texts(graphs, 5, **more))
        assert {end.state for end in ends.values()} == {"there"}


def test_a_store_that_went_away_is_incomplete_and_other_branches_are_asked_all_the_same(graphs, monkeypatch):
    def away(config: PipelineConfig, store: Store) -> list[Manifest] | None:
        if config.recipe.dataset == "b":
            raise ConnectionError("no route to the store")
        return all_committed(config, store)

    graphs.run(diamond(graphs))
    monkeypatch.setattr(bring, "all_committed", away)
    ends, _ = graphs.run(diamond(graphs))
    assert {name: end.state for name, end in ends.items()} == {"a": "there", "b": "failed", "c": "there", "d": "held"}
    assert "no route to the store" in ends["b"].why and ends["b"].code == 5


def test_a_store_that_goes_away_when_a_version_is_judged_is_incomplete_not_a_defect(graphs, monkeypatch):
    def away(*arguments: Any) -> None:
        raise Unreachable("the store unreachable for 600 s: refused")

    with monkeypatch.context() as patch:
        patch.setattr("gristmill.pipelines.kickoff.held.note_passed", away)
        (end,) = graphs.run({"a": graphs.upper("a")})[0].values()
    assert (end.state, end.code) == ("failed", INCOMPLETE) and end.why.startswith("the store unreachable for 600 s")
    assert graphs.run({"a": graphs.upper("a")})[0]["a"].state == "there"


def test_where_nodes_run_elsewhere_a_relative_address_is_refused(graphs):
    nodes = {"a": graphs.upper("a")}
    nodes["a"]["recipe"]["inputs"] = [os.path.relpath(graphs.folder / "a.jsonl")]
    with pytest.raises(BadConfig, match=r"nodes.a: recipe.inputs: '.*a.jsonl' is relative"):
        prepare(graphs.asked(nodes), in_job=True)
    assert graphs.prepared(nodes).chosen == ["a"]


def test_what_comes_before_a_node_is_found_in_a_graph_of_many_ways(graphs):
    layers = {"a": graphs.upper("a")}
    before = ["a"]
    for number in range(30):  # a thousand million ways from the last one to the first
        pair = [f"left-{number}", f"right-{number}"]
        layers |= {name: graphs.upper("b", needs=before) for name in pair}
        before = pair
    graph = graphs.prepared(layers).graph
    assert len(graph.before("left-29")) == 59 and graph.selected([], ["left-29"]) == ["left-29"]
