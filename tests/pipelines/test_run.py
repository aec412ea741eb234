"""The frame: what a pipeline of a stage, a recipe and a config has without a line of its own."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from toy_pipeline import RUNS, Upper, UpperConfig, UpperRecipe

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.lease import live_work
from gristmill.lake.versions.manifest import Draft
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.ask import committed
from gristmill.pipelines.command import Request, main, resolve
from gristmill.pipelines.frame.assembly import GateFailed
from gristmill.pipelines.frame.recipe import BuildContext
from gristmill.pipelines.frame.result import Result
from gristmill.pipelines.frame.run import TakenDown, run_pipeline
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.settings.exits import BAD_CONFIG, CONFLICT, DONE
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "upper", UpperConfig)
    monkeypatch.setattr("gristmill.stages.read.scan.SETTLED", -1)  # the files were written just now
    RUNS.clear()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of two or three lines."""
    for name, lines in {"a": "one\ntwo\n", "b": "three\nfour\nfive\n", "c": "six\nseven\n"}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{line}"}}\n' for line in lines.split()))
    return [str(tmp_path / f"{name}.jsonl") for name in "abc"]


def config(files: list[str], **recipe: Any) -> UpperConfig:
    return UpperConfig.model_validate({"recipe": {"inputs": files, **recipe}})


def run(store: Store, files: list[str], *, plan: bool = False, **recipe: Any) -> Result:
    return run_pipeline(config(files, **recipe), store, Runner(store, workers=0, plan=plan))


def texts(store: Store, ref: str = "upper") -> list[str]:
    table = Dataset(store, Versions(store).resolve(ref)).to_arrow()
    return sorted(json.loads(text.lower())["text"] for text in table["text"].to_pylist())


def lose(store: Store, result: Result) -> str:
    """Deletes the newest shard of a version."""
    key = result.manifest.shards[-1].key
    store.delete(key)
    return key


# The command


def test_the_command_runs_plans_limits_and_refuses_it_like_any_other(files, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    conf = tmp_path / "upper.yaml"
    conf.write_text("pipeline: upper\nrun: {workers: 0}\n")

    def command(*more: str) -> tuple[int, str, str]:
        given = ["--lake", str(tmp_path / "lake"), "--set", f"recipe.inputs={json.dumps(files)}"]
        code = main(["run", str(conf), *given, *more])
        return code, *capsys.readouterr()

    code, out, _ = command("--plan")
    assert (code, json.loads(out)) == (DONE, {"plan": [{"stage": "scan", "done": 0, "todo": 3}]})
    code, out, _ = command()
    assert code == DONE and json.loads(out)["in"] == 7 and json.loads(out)["new"]
    code, out, _ = command()
    assert code == DONE and not json.loads(out)["new"]
    code, out, _ = command("--limit", "1")
    assert (json.loads(out)["dataset"], json.loads(out)["in"]) == ("upper.limit", 1)
    code, _, err = command("--set", "recipe.alphabets=greek")
    assert code == BAD_CONFIG and "recipe.alphabets: unknown key; allowed here: allow_empty, alphabet" in err
    code, _, err = command("--set", "pipeline=lower")
    assert code == BAD_CONFIG and f"'lower'; allowed: {', '.join(PIPELINES)}" in err
    monkeypatch.setattr(Upper, "meanwhile", staticmethod(takedown))
    code, _, err = command("--set", f"recipe.inputs={json.dumps(files[:1])}", "--set", "recipe.upper.note=again")
    assert code == CONFLICT and "taken down" in err


def test_a_relative_input_is_refused_in_a_job():
    with pytest.raises(BadConfig, match=r"recipe\.inputs: 'a\.jsonl' is relative"):
        resolve(Request({"pipeline": "upper", "recipe": {"inputs": ["a.jsonl"]}}, lake="/lake"), in_job=True)


# Once


def test_a_run_is_done_once_and_may_be_asked_about(store, files):
    assert committed(config(files), store) is None
    first = run(store, files)
    assert first.new and committed(config(files), store) == first.manifest and len(RUNS) == 3
    again = run(store, files[::-1])
    assert not again.new and again.manifest == first.manifest and len(RUNS) == 3
    assert committed(config(files[:2]), store) is None
    assert verify(store, deep=True) == []


def test_its_work_is_announced_while_it_runs_and_no_longer(store, files, monkeypatch):
    announced: list[int] = []
    monkeypatch.setattr(Upper, "meanwhile", staticmethod(lambda store: announced.append(len(live_work(store)))))
    run(store, files)
    assert announced == [3, 3, 3]
    assert not list(store.list("runs/"))


def test_a_plan_stops_at_the_first_stage_with_work(store, files):
    with pytest.raises(PlanOnly) as plan:
        run(store, files, plan=True)
    assert plan.value.title == "scan" and RUNS == [] and Versions(store).names() == []


def test_lost_shards_are_made_again(store, files):
    first = run(store, files)
    key = lose(store, first)
    assert committed(config(files), store) is None
    again = run(store, files)
    assert not again.new and again.manifest == first.manifest and store.info(key) is not None
    assert len(RUNS) == 4 and verify(store, deep=True) == []


def test_what_no_other_run_makes_is_not_tried_again(store, files, monkeypatch):
    monkeypatch.setattr(UpperRecipe, "reproducible", False)
    first = run(store, files)
    lose(store, first)
    with pytest.raises(BadConfig, match=r"upper@v1 lost objects \(shard .* missing\), and no other run makes the same"):
        run(store, files)
    assert len(RUNS) == 3


@pytest.mark.parametrize("field", ["dataset", "form", "run_key", "recipe", "stages"])
def test_a_draft_of_another_run_is_a_defect(store, files, monkeypatch, field):
    build, wrong = (
        UpperRecipe.build,
        {"dataset": "other", "form": "samples", "run_key": "0", "recipe": {}, "stages": ()},
    )

    def other(self: UpperRecipe, context: BuildContext) -> Draft:
        return build(self, context).model_copy(update={field: wrong[field]})

    monkeypatch.setattr(UpperRecipe, "build", other)
    with pytest.raises(ValueError, match=f"upper: the draft's {field} are not those of its run"):
        run(store, files)
    assert Versions(store).names() == []


# Takedowns


def takedown(store: Store) -> None:
    Suppression.of(urls=["https://example.org/"]).save(open_store(store.uri), "asked to")


def test_a_takedown_meanwhile_stops_the_commit(store, files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Upper, "meanwhile", staticmethod(takedown))
        with pytest.raises(TakenDown, match="run the same command again"):
            run(store, files)
    assert Versions(store).names() == []
    manifest = run(store, files).manifest
    assert manifest.recipe["suppression"] == Suppression.load(store).digest and len(RUNS) == 3


def test_a_version_that_was_withdrawn_does_not_come_back(store, files):
    run(store, files)
    Versions(store).withdraw("upper", 1, "a mistake")
    with pytest.raises(GateFailed, match="this very run made a version before, and upper@v1 was withdrawn: a mistake"):
        run(store, files)


def test_versions_beside_files_are_sources_and_part_of_the_key(store, files, monkeypatch):
    run(store, files[:1], dataset="other")
    first = run(store, files[1:], sources=["other@v1"]).manifest
    assert [str(ref) for ref in first.sources] == ["other@v1"]
    assert run(store, files[1:]).manifest.version == 2
    with pytest.raises(BadConfig, match=r"recipe\.sources: 'other' is no exact version"):
        run(store, files[1:], sources=["other"])

    def withdraw(store: Store) -> None:
        Versions(store).withdraw("other", 1, "a mistake")

    monkeypatch.setattr(Upper, "meanwhile", staticmethod(withdraw))
    with pytest.raises(TakenDown, match="other@v1, from which it was made, was withdrawn"):
        run(store, files[:1], sources=["other@v1"], upper={"note": "again"})


# Growing


def test_it_grows_by_what_is_new(store, files):
    first = run(store, files[:1], extends="upper").manifest
    second = run(store, files, extends="upper").manifest
    assert (second.version, second.parent) == (2, first.ref) and len(second.inputs) == 2 and len(RUNS) == 3
    assert texts(store) == sorted(["one", "two", "three", "four", "five", "six", "seven"])
    again = run(store, files[1:], extends="upper")
    assert not again.new and again.manifest == second == committed(config(files, extends="upper"), store)
    assert verify(store, deep=True) == []


def test_a_base_that_moves_on_is_built_upon_anew(store, files, monkeypatch):
    run(store, files[:1], extends="upper")
    commit, raced = Versions.commit, list[int]()

    def after_another(self: Versions, draft: Draft, *, expected_parent: int | None = None) -> Any:
        if not raced:
            raced.append(0)
            raced.append(run(store, files[:2], extends="upper").manifest.version)
        return commit(self, draft, expected_parent=expected_parent)

    monkeypatch.setattr(Versions, "commit", after_another)
    mine = run(store, [files[0], files[2]], extends="upper").manifest
    assert (raced[1], mine.version, mine.parent.version) == (2, 3, 2)
    assert len(texts(store)) == 7 and len(RUNS) == 3


def test_a_lost_shard_of_the_latest_version_is_made_again_upon_its_base(store, files):
    run(store, files[:1], extends="upper")
    second = run(store, files, extends="upper")
    key = lose(store, second)
    again = run(store, files, extends="upper")
    assert not again.new and again.manifest == second.manifest and store.info(key) is not None
    takedown(store)
    lose(store, second)
    with pytest.raises(BadConfig, match=r"upper@v2 lost objects, and cannot be made again as it was: records were"):
        run(store, files, extends="upper")


def test_a_key_that_has_to_stay_is_named_with_its_reason_and_others_are_said(store, files, caplog):
    run(store, files[:1], extends="upper")
    with pytest.raises(
        BadConfig,
        match=r"recipe\.alphabet: upper@v1 has alphabet latin, this recipe has greek: letters of two alphabets do not"
        r" mix\. Take its settings, or make another dataset of all inputs",
    ):
        run(store, files, extends="upper", alphabet="greek")
    with caplog.at_level(logging.WARNING, "gristmill"):
        run(store, files, extends="upper", upper={"note": "again"})
    assert "upper@v1 was made with other upper.note; what is new follows this recipe" in caplog.text


def test_a_base_with_nothing_to_compare_with_is_built_on_with_a_warning(store, files, monkeypatch, caplog):
    run(store, files[:1], extends="upper")
    monkeypatch.setattr(UpperRecipe, "compared", property(lambda recipe: ("contents",)))
    with caplog.at_level(logging.WARNING, "gristmill"):
        assert run(store, files, extends="upper").manifest.version == 2
    assert "upper@v1 was made by a release that kept nothing to compare new records with" in caplog.text


def test_what_cannot_grow_is_said_before_anything_runs(files):
    with pytest.raises(ValueError, match="a dataset extends itself"):
        config(files, extends="other")
    with pytest.raises(ValueError, match="leave extends out"):
        config(files, extends="upper", limit=10)


@pytest.mark.parametrize("more", [0, 1], ids=["nothing new", "a new input"])
def test_a_dataset_of_another_form_is_not_extended(store, files, monkeypatch, more):
    before = run(store, files[:1], extends="upper").manifest
    monkeypatch.setattr(UpperRecipe, "form", "samples")
    message = (
        r"recipe\.extends: upper@v1 holds documents, this pipeline makes samples: one dataset cannot hold both\. Give"
        r" recipe\.dataset and recipe\.extends another name"
    )
    with pytest.raises(BadConfig, match=message):
        run(store, files[: 1 + more], extends="upper")
    assert Versions(store).resolve("upper") == before and RUNS == ["a.jsonl"]


def test_a_version_of_another_form_is_no_answer_to_what_a_run_would_come_to(store, files, monkeypatch):
    run(store, files[:1], extends="upper")
    monkeypatch.setattr(UpperRecipe, "form", "samples")
    with pytest.raises(BadConfig, match="upper@v1 holds documents, this pipeline makes samples"):
        committed(config(files[:1], extends="upper"), store)
