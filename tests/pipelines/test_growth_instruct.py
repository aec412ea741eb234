"""A dataset of samples grows as one of pages does: by what is new, compared with all that was kept before."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import mixtures
import pytest

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.frame.growth import growth_report
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.instruct import InstructConfig
from gristmill.stages.run.runner import Runner


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files: the second has a sample of the first again, the third one of each and one of its own twice."""
    rows = {
        "a": [mixtures.chat(i, id=f"a{i}") for i in range(6)],
        "b": [mixtures.chat(i, id=f"b{i}") for i in range(5, 9)],
        "c": [mixtures.chat(i, id=f"c{at}") for at, i in enumerate([0, 8, 20, 20, 21])],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return [str(tmp_path / f"{name}.jsonl") for name in rows]


def run(store: Store, files: list[str], **recipe: Any) -> Result:
    given = {"dataset": "chat", "inputs": files, **recipe}
    return run_pipeline(InstructConfig.model_validate({"recipe": given}), store, Runner(store, workers=0))


def increment(store: Store, files: list[str], **recipe: Any) -> Manifest:
    return run(store, files, extends="chat", **recipe).manifest


def texts(store: Store, ref: str = "chat") -> list[str]:
    return sorted(Dataset(store, Versions(store).resolve(ref)).to_arrow()["text"].to_pylist())


def test_three_increments_keep_the_texts_of_one_run(store, files):
    increments = [increment(store, files[:n]) for n in (1, 2, 3)]
    whole = run(store, files, dataset="whole").manifest
    last = increments[-1]
    assert [m.version for m in increments] == [1, 2, 3] and last.parent == increments[1].ref
    assert (last.received, last.kept.count, last.dropped.count) == (whole.received, 11, 4)
    assert texts(store) == texts(store, "whole") and len(texts(store)) == 11
    assert last.statistics["documents"] == 11 == last.funnel[-1].passed
    ledger = Dataset(store, last).ledger().to_pylist()
    kept = {row["id"] for row in ledger if row["fate"] == "kept"}
    lost = [row for row in ledger if row["fate"] == "dropped"]
    assert {row["reason"] for row in lost} == {"exact.duplicate"} and {row["survivor"] for row in lost} <= kept
    assert "grown by increments" in (growth_report(last) or "") and growth_report(whole) is None
    assert verify(store, deep=True) == []


def test_an_increment_without_news_makes_no_version_and_lost_shards_are_made_again(store, files):
    increment(store, files[:1])
    second = increment(store, files)
    again = run(store, files[1:], extends="chat")
    assert not again.new and again.manifest == second
    own = [ref for ref in second.shards if ref not in Versions(store).manifest("chat", 1).shards]
    store.delete(own[0].key)
    again = run(store, files, extends="chat")
    assert not again.new and again.manifest == second and verify(store, deep=True) == []


def test_a_whole_run_can_be_extended_and_another_recipe_is_said(store, files, caplog):
    first = run(store, files[:1]).manifest
    with caplog.at_level(logging.WARNING, "gristmill"):
        second = increment(store, files[:2], instruct={"reasoning": "omit"})
    assert second.parent == first.ref and second.kept.count == 9
    assert "chat@v1 was made with other instruct.reasoning; what is new follows this recipe" in caplog.text


def test_what_was_taken_down_stays_out_of_later_increments(store, files):
    increment(store, files[:1])
    gone = Dataset(store, Versions(store).resolve("chat")).to_arrow().to_pylist()[0]
    versions = Versions(store)
    forget(versions, plan_forget(versions, Suppression(ids=frozenset({gone["id"]}))), "a request")
    clean = versions.resolve("chat")
    last = increment(store, files)
    assert last.parent == clean.ref
    assert gone["id"] not in Dataset(store, last).to_arrow()["id"].to_pylist()
    assert Counter(row["fate"] for row in Dataset(store, last).ledger().to_pylist())["kept"] == last.kept.count
    assert verify(store, deep=True) == []


def test_a_version_of_a_release_that_kept_no_hashes_is_extended_with_a_warning(store, files, caplog):
    first = run(store, files[:1]).manifest
    fields = {name: getattr(first, name) for name in Draft.model_fields}
    attachments = tuple(ref for ref in first.attachments if ref.kind != "contents")
    Versions(store).commit(Draft(**fields | {"run_key": "of a release before", "attachments": attachments}))
    with caplog.at_level(logging.WARNING, "gristmill"):
        assert increment(store, files[:2]).kept.count == 10
    assert "chat@v2 was made by a release that kept nothing to compare new records with" in caplog.text
    assert run(store, files[:2]).manifest.kept.count == 9
