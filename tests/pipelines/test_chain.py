"""A chain in the frame: versions made one after the other, each with its own lease, key and commit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_chain import LinesConfig
from toy_pipeline import RUNS, Upper

from gristmill.lake.store.base import Store
from gristmill.lake.versions.lease import live_runs
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.ask import committed
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import Incomplete, PlanOnly


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    RUNS.clear()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of a line each."""
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    return [str(tmp_path / f"{name}.jsonl") for name in "abc"]


def run(store: Store, files: list[str], **how: Any) -> Result:
    """Runs the chain over these files."""
    config = LinesConfig.model_validate({"recipe": {"files": files}})
    return run_pipeline(config, store, Runner(store, workers=0, **how))


def test_a_version_a_link_each_made_from_those_before_it_and_none_twice(store, files):
    result = run(store, files)
    assert result.new and str(result.manifest) == "lines.c@v1" and RUNS == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [str(ref) for ref in result.manifest.sources] == ["lines.a@v1", "lines.b@v1"]
    again = run(store, files)
    assert not again.new and again.manifest == result.manifest and len(RUNS) == 3
    assert [Versions(store).numbers(f"lines.{name}") for name in "abc"] == [[1], [1], [1]]


def test_it_goes_on_at_the_first_link_without_a_version(store, files, monkeypatch):
    with monkeypatch.context() as patch:

        def broken(store: Store) -> None:
            if RUNS[-1] == "b.jsonl":
                raise OSError("the disk is full")

        patch.setattr(Upper, "meanwhile", staticmethod(broken))
        with pytest.raises(Incomplete, match="the disk is full"):
            run(store, files)
    config = LinesConfig.model_validate({"recipe": {"files": files}})
    assert Versions(store).names() == ["lines.a"] and committed(config, store) is None
    RUNS.clear()
    result = run(store, files)
    assert RUNS == ["b.jsonl", "c.jsonl"] and committed(config, store) == result.manifest


def test_each_link_has_a_lease_of_its_own(store, files, monkeypatch):
    holders: list[str] = []

    def look(store: Store) -> None:
        (alive,) = live_runs(store)
        holders.append(json.loads(store.get(f"{alive.folder}/lease.json"))["dataset"])

    monkeypatch.setattr(Upper, "meanwhile", staticmethod(look))
    run(store, files)
    assert holders == ["lines.a", "lines.b", "lines.c"] and not live_runs(store)


def test_a_plan_ends_at_the_first_link_with_work_to_do_and_says_what_the_config_knows(store, files):
    run(store, files[:1])
    RUNS.clear()
    with pytest.raises(PlanOnly) as plan:
        run(store, files, plan=True)
    assert plan.value.outlook == (("3 files",), [{"files": 3}]) and plan.value.title == "scan" and not RUNS


def test_all_links_are_checked_before_the_first_one_runs(store, files):
    with pytest.raises(BadConfig, match=r"recipe\.files: .*none is not there"):
        run(store, [*files, f"{files[0]}.none"])
    assert not RUNS and not Versions(store).names()


def test_a_version_of_a_link_that_changed_changes_all_after_it(store, files):
    run(store, files)
    RUNS.clear()
    Path(files[1]).write_text('{"text": "other"}\n')
    last = run(store, files).manifest
    assert RUNS == ["b.jsonl"]  # what c holds was read before: its receipt serves the new version
    assert [str(ref) for ref in last.sources] == ["lines.a@v1", "lines.b@v2"] and str(last) == "lines.c@v2"
