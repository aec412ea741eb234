"""A kickoff in which a classifier is trained and pages are judged by it, as one graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import classifiers
import pytest
from kickoffs import Graphs
from typer.testing import CliRunner

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import Versions
from gristmill.orchestration.cli.main import app

PAGES = 6
"""Of each kind; the first ones of both are what is kept and what is not."""


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    graphs = Graphs(tmp_path)
    for label in classifiers.LABELS:
        classifiers.lines_file(tmp_path / f"{label}.jsonl", classifiers.texts(label, 30))
    mixed = [text for label in classifiers.LABELS for text in classifiers.texts(label, PAGES, seed=9)]
    classifiers.lines_file(tmp_path / "pages.jsonl", mixed)
    return graphs


def nodes() -> dict[str, Any]:
    """The smallest classifier, and pages that it judges and nothing else does."""
    sides = {f"{label}s": [f"${{data}}/{label}.jsonl"] for label in classifiers.LABELS}
    judge = {"dataset": "quality", **sides, "train": {"fast_text": {"min_count": 1}}}
    pages = {
        "inputs": ["${data}/pages.jsonl"],
        "quality": {"model": "node:judge"},
        "extract": {"seconds_per_record": None},
        "language": {"keep": [], "min_score": None},
        "gopher_quality": None,
        "minhash": None,
    }
    # The node that is judged stands first: what it names decides the order.
    return {"pages": {"config": "web", "recipe": pages}, "judge": {"config": "classifier", "recipe": judge}}


def kickoff(graphs: Graphs, *options: str) -> Any:
    asked = graphs.asked(nodes())
    result = CliRunner().invoke(app, ["kickoff", str(asked.config), "--lake", str(asked.lake), "--json", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_pages_are_judged_by_the_classifier_of_the_graph_and_the_plan_knows_it_is_done(graphs: Graphs) -> None:
    assert [each["done"] for each in kickoff(graphs, "--plan")["plan"]] == [None, None]
    ends = {end["node"]: (end["state"], end["versions"]) for end in kickoff(graphs)["nodes"]}
    assert ends == {"judge": ("made", ["quality@v1"]), "pages": ("made", ["web@v1"])}
    store = open_store(str(graphs.folder / "lake"))
    manifest = Versions(store).resolve("web@v1")
    assert [(str(source), source.role) for source in manifest.sources] == [("quality@v1", "classifier")]
    kept = Dataset(store, manifest).to_arrow(["text"])["text"].to_pylist()
    assert sorted(kept) == sorted(classifiers.texts("positive", PAGES, seed=9))
    plan = kickoff(graphs, "--plan")
    assert {each["node"]: each["done"] for each in plan["plan"]} == {"judge": ["quality@v1"], "pages": ["web@v1"]}
    again = {end["node"]: end["state"] for end in kickoff(graphs)["nodes"]}
    assert again == {"judge": "there", "pages": "there"}
    assert Versions(store).numbers("quality") == Versions(store).numbers("web") == [1]
