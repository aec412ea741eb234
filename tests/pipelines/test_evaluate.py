"""The evaluate pipeline: what it refuses before a model is loaded, what it commits, on Ray as in this process."""

from __future__ import annotations

import json
from dataclasses import replace

import evaluations
import pytest
import yaml
from models import NANO, small_tokenizer

from gristmill.lake.store.objects import read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import forget, plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import Draft
from gristmill.lake.versions.statistics import EvaluationStatistics
from gristmill.lake.versions.versions import Versions
from gristmill.model.hf.checkpoint import save_hf
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.pipelines.evaluate import EvaluateConfig, Evaluation
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRunConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    store = open_store(str(folder / "lake"))
    evaluations.lake(store, folder)
    base = load_model(store, "base@v1").model
    for name, network, tokenizer in (
        ("bare", base, None),
        ("foreign", Multimodal.seeded(NANO, 0), small_tokenizer()),
    ):
        save_hf(network, folder / name, tokenizer=tokenizer)
        config = ModelRunConfig.model_validate({"recipe": {"dataset": name, "folder": str(folder / name)}})
        run_pipeline(config, store, Runner(store, workers=0))
    return store


def test_no_key_of_the_recipe_is_a_truth_value_in_a_file():
    """Keys such as `on` and `no` are true and false in YAML."""
    keys = yaml.safe_load("\n".join(f"{name}: 1" for name in EvaluateConfig().recipe.model_dump()))
    assert all(isinstance(key, str) for key in keys)


@pytest.mark.parametrize(
    ("data", "recipe", "why"),
    [
        (["math@v1"], {"model": ""}, r"recipe\.model is empty"),
        (["math@v1"], {"model": "base"}, r"recipe\.model: 'base' is no exact version.*base@v1"),
        (["math@v1"], {"model": "math@v1"}, r"recipe\.model: math@v1 is no model: it holds samples"),
        ([], {}, r"recipe\.data is empty"),
        (["math"], {}, r"recipe\.data: 'math' is no exact version"),
        (
            ["bpe@v1"],
            {},
            r"recipe\.data: bpe@v1 holds a tokenizer; a model is evaluated on documents, samples, images, audio, ",
        ),
        (["web@v1"], {"tasks": {"web@v1": "exact"}}, r"recipe\.data: web@v1 holds documents, which have perplexity"),
        (["math@v1"], {"tasks": {"web@v1": "exact"}}, r"recipe\.tasks: web@v1 is not among recipe\.data: math@v1"),
        (["math@v1"], {"dtype": "float8"}, r"recipe\.dtype: 'float8'; allowed are"),
        (["math@v1"], {"window": 1 << 20}, r"recipe\.window: 1048576; the context of base@v1 is"),
        (
            ["math@v1"],
            {"generate": {"max_tokens": 4, "context": 1 << 20}},
            r"recipe\.generate\.context: 1048576; the context of base@v1 is",
        ),
        (["math@v1"], {"model": "bare@v1"}, r"recipe\.tokenizer is empty, and bare@v1 brings none"),
        (["math@v1"], {"model": "bare@v1", "tokenizer": "web@v1"}, r"web@v1 has no tokenizer: it holds documents"),
        (["math@v1"], {"model": "foreign@v1", "tokenizer": "bpe@v1"}, r"bpe@v1 is not the tokenizer that foreign@v1"),
        (["mix@v1"], {"model": "foreign@v1"}, r"the windows of mix@v1 are tokens of bpe@v1, and this is another"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_a_model_is_loaded(lake, data, recipe, why):
    with pytest.raises(BadConfig, match=why):
        evaluations.evaluate(lake, data, Runner(lake, workers=0, plan=True), dataset="refused", **recipe)


def test_versions_that_share_shards_are_refused(lake):
    versions = Versions(lake)
    manifest = versions.manifest("math", 1)
    fields = {
        name: value for name, value in manifest.model_dump().items() if name not in ("version", "previous", "digest")
    }
    versions.commit(Draft(**fields | {"dataset": "copy"}))
    with pytest.raises(BadConfig, match=r"recipe\.data: math@v1 and copy@v1 share shards.*asked twice: give one"):
        evaluations.evaluate(lake, ["math@v1", "copy@v1"], dataset="refused")


def test_a_tokenizer_without_the_tokens_of_the_template_is_named(lake, tmp_path):
    file = json.loads(small_tokenizer())
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] != "<|user|>"]
    save_hf(Multimodal.seeded(NANO, 0), tmp_path / "hf", tokenizer=json.dumps(file).encode())
    config = ModelRunConfig.model_validate({"recipe": {"dataset": "mute", "folder": str(tmp_path / "hf")}})
    run_pipeline(config, lake, Runner(lake, workers=0))
    with pytest.raises(BadConfig, match=r"recipe\.tokenizer: tokenizer \w+ has no special token '<\|user\|>'"):
        evaluations.evaluate(lake, ["math@v1"], model="mute@v1", dataset="refused")


@pytest.mark.parametrize(
    ("generate", "why"),
    [
        ({"max_tokens": 0}, "max_tokens=0: allowed are 1 to less than context"),
        ({"max_tokens": 128, "context": 128}, "max_tokens=128"),
        ({"context": 1000}, "context=1000: whole pages of 128 tokens"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(generate, why):
    with pytest.raises(ValueError, match=why):
        evaluations.config(["math@v1"], generate=generate)


def test_a_model_without_a_tokenizer_takes_one_of_the_lake(lake):
    manifest = evaluations.evaluate(lake, ["mix@v1"], model="bare@v1", tokenizer="bpe@v1", dataset="bare-eval").manifest
    assert [(str(ref), ref.role) for ref in manifest.sources] == [
        ("bare@v1", "evaluated"),
        ("mix@v1", "on"),
        ("bpe@v1", "tokenizer"),
    ]
    own = evaluations.evaluate(lake, ["mix@v1"], dataset="own-eval").manifest
    assert manifest.shards == own.shards, "the same weights, tokens and rows"


def test_an_evaluation_is_a_version_that_says_what_it_is_of(lake):
    manifest = evaluations.evaluate(lake, ["math@v1", "tools@v1"], dataset="said").manifest
    statistics = EvaluationStatistics.of(manifest.statistics)
    assert manifest.form == "verdicts" and statistics.devices == ("cpu",)
    assert (statistics.items, statistics.written, statistics.unscored) == (17, 17, 0)
    assert "exact: 12 items, fewer than 200: look at the interval, not at the score" in statistics.warnings
    assert manifest.recipe["model"] == "base@v1" and manifest.recipe["data"] == ["math@v1", "tools@v1"]
    assert [stage.name for stage in manifest.stages] == ["evaluate", "tabulate", "ledger"]
    assert manifest.received.count == manifest.kept.count == 17 == sum(ref.records for ref in manifest.fates)


def test_a_tag_and_the_version_that_it_names_are_the_same(lake):
    Versions(lake).tag("math", 1, "held-out")
    first = evaluations.evaluate(lake, ["math@v1"], dataset="tagged")
    again = evaluations.evaluate(lake, ["math@held-out"], dataset="tagged")
    assert first.new and not again.new


def test_a_preview_takes_the_first_records_of_each_version(lake):
    manifest = evaluations.evaluate(lake, ["math@v1", "tools@v1"], dataset="short", limit=3).manifest
    assert (manifest.dataset, manifest.received.count) == ("short.limit", 6)


def test_a_plan_says_which_pieces_are_left_and_loads_nothing(lake, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a plan loads no model")

    monkeypatch.setattr("gristmill.stages.evaluate.work.load_model", never)
    with pytest.raises(PlanOnly) as plan:
        evaluations.evaluate(lake, ["math@v1"], Runner(lake, workers=0, plan=True), dataset="planned", dtype="float16")
    assert plan.value.title == "evaluate" and len(plan.value.todo) == 3


def test_where_it_runs_is_no_part_of_the_key_of_a_piece(lake):
    recipe = evaluations.config(["math@v1"]).recipe
    evaluation = Evaluation.of(recipe, Versions(lake))
    here = replace(evaluation.stage, where=evaluation.where(evaluations.config(["math@v1"]).run))
    there = replace(here, where=replace(here.where, device="cuda", gpus=1, max_num_seqs=64))
    assert here.identity() == there.identity() == evaluation.stage.identity()
    assert there.resources.gpus == 1 and here.resources.gpus == 0


@pytest.mark.parametrize(
    "recipe",
    [
        {"dtype": "bfloat16"},
        {"generate": evaluations.SIZES | {"max_tokens": 7}},
        {"exact": {"pattern": r"(\d+)"}},
        {"judge": {"more": ["nope"]}},
        {"window": 65},
    ],
)
def test_whatever_decides_an_answer_is_in_the_key_of_a_piece(lake, recipe):
    stages = [
        Evaluation.of(evaluations.config(["math@v1"], **given).recipe, Versions(lake)).stage for given in ({}, recipe)
    ]
    assert stages[0].identity() != stages[1].identity()


def test_what_was_committed_is_whole(lake):
    manifest = evaluations.evaluate(lake, ["mix@v1", "math@v1"], dataset="whole").manifest
    assert [finding for finding in verify(lake, deep=True) if manifest.dataset in str(finding)] == []


def test_on_ray_it_is_the_same_evaluation(lake):
    data = ["math@v1", "choice@v1"]
    here = evaluations.evaluate(lake, data, dataset="here").manifest
    greedy = evaluations.SIZES | {"seed": 9}  # other works, and no other answers
    there = evaluations.evaluate(lake, data, Runner(lake, workers=2), dataset="there", generate=greedy).manifest
    columns = ["id", "task", "answer", "score"]
    rows = [read_table(lake, manifest.shards[0], columns) for manifest in (here, there)]
    assert rows[0].num_rows == 18 and rows[0].equals(rows[1])


def test_a_takedown_withdraws_the_evaluation_that_asked_about_the_record(tmp_path):
    store = open_store(str(tmp_path / "lake"))
    evaluations.lake(store, tmp_path)
    asked, other = (
        evaluations.evaluate(store, [name], dataset=name[:-3] + "-eval") for name in ("math@v1", "tools@v1")
    )
    record = read_table(store, asked.manifest.shards[0])["id"][3].as_py()
    versions = Versions(store)
    plan = plan_forget(versions, Suppression.of(ids=[record]))
    assert {dataset.dataset for dataset in plan.affected} >= {"math", "math-eval"}
    report = forget(versions, plan, "asked by mail")
    assert "math-eval@v1" in report.withdrawn and other.manifest.version not in versions.withdrawn("tools-eval")
    assert report.without_successor["math-eval@v1"] == "its records are a model's answers to others"
