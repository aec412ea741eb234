"""The kickoffs that come along: they can be read, every file of a sample is where they look for it, and their graph is
whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.kickoff.check import check
from gristmill.pipelines.kickoff.config import load_kickoff
from gristmill.pipelines.kickoff.graph import Graph
from gristmill.pipelines.settings.shipped import find_config

CONF = Path(__file__).parents[2] / "conf"
STAGES = ["pretrain", "posttrain", "warmup", "v1", "v2", "v3", "v4", "a1", "a2", "vs"]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Path]:
    """The graph over a folder in which each file that it names is there, and nothing in it."""
    folder = tmp_path_factory.mktemp("everything")
    text = (CONF / "everything.yaml").read_text()
    for name in re.findall(r"\$\{data\}/([^\"]+)", text):
        path = folder / name.replace("*", "part-0000.warc.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = load_kickoff(CONF / "everything.yaml", [f"paths.data={folder}"])
    return Graph.of(config, str(folder / "lake")), folder


def test_everything_goes_from_files_to_evaluated_models(everything):
    graph, folder = everything
    check(graph, list(graph.nodes), Versions(open_store(str(folder / "lake"))))
    of_files = {"web", "instruct", "vision", "speech", "reasoning"}
    of_versions = {"tokenizer", "mixture", "train", "evaluate"}
    assert {node.pipeline for node in graph.nodes.values()} == of_files | of_versions
    first = {name for name, node in graph.nodes.items() if not node.needs}
    assert {graph.nodes[name].pipeline for name in first} == of_files - {"reasoning"}
    assert {"objects", "frames", "asked", "reading", "digits"} <= graph.before("eval-vision")


def test_stages_follow_each_other_and_rounds_of_reasoning_draw_with_the_model_before(everything):
    graph, _ = everything
    for earlier, later in [
        ("posttrain", "warmup"),
        ("v1", "v2"),
        ("v4", "a2"),
        ("a1", "a2"),
        ("a2", "vs"),
        ("r2", "r3"),
    ]:
        assert earlier in graph.before(later)
    assert [f"hearing.{name}" for name in STAGES] == [list(graph.nodes[name].makes)[-1] for name in STAGES]
    assert "base" in graph.nodes["chains-first"].needs and "r1" in graph.nodes["chains-second"].needs
    assert "chains-third" in graph.before("r3") and "a1" not in graph.before("v4")


def test_the_papers_scale_is_the_same_graph_and_each_version_fits(tmp_path, monkeypatch):
    monkeypatch.setattr("gristmill.pipelines.kickoff.check._check_files", lambda config: None)  # they are nobody's here
    graph = Graph.of(load_kickoff(CONF / "everything-paper.yaml"), "/lake")
    assert [name for name in graph.nodes if name in STAGES] == [
        "pretrain",
        "posttrain",
        "v1",
        "v2",
        "v3",
        "v4",
        "a1",
        "a2",
        "vs",
    ]
    pairs = ["siglip v1", "posttrain v1", "v4 vs", "recogniser a1", "posttrain r1", "r2 own-chains", "own-chains r3"]
    for earlier, later in map(str.split, pairs):
        assert earlier in graph.before(later)
    check(graph, list(graph.nodes), Versions(open_store(str(tmp_path / "lake"))))
    assert not any("@v1" in str(node.data["recipe"]) for node in graph.nodes.values())


@pytest.mark.parametrize("name", ["everything", "everything-paper"])
def test_every_key_of_a_kickoff_stands_in_the_file(name):
    data = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    config = load_kickoff(CONF / f"{name}.yaml")
    assert set(data) == set(type(config).model_fields) and set(data["run"]) == set(type(config.run).model_fields)


def test_a_folder_of_the_same_name_is_no_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert find_config(Path("model")) == CONF / "model.yaml"
    (tmp_path / "web").write_text("pipeline: web\n")
    assert find_config(Path("web")) == Path("web")
