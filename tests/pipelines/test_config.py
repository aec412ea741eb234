"""Configuration: what is laid over what, and that every mistake names its path, its value and what is allowed."""

from __future__ import annotations

import json
import os
from dataclasses import fields

import pytest
from configs import CONF, keys, resolved

from gristmill.filters.gopher import GopherQuality
from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import (
    BadConfig,
    check_inputs_absolute,
    inside_job,
    lake_uri,
    load,
    override,
    validate,
)
from gristmill.pipelines.web import WebConfig, WebRecipe
from gristmill.stages.text.html import ExtractConfig


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_file_that_is_shipped_says_every_key_and_its_default(pipeline):
    data, default = load(CONF.with_name(f"{pipeline}.yaml")), PIPELINES[pipeline]()
    config = validate(PIPELINES[pipeline], data)
    assert config.recipe == default.recipe and config.run == default.run
    assert keys(data) == keys(default.model_dump())


def test_every_pipeline_has_a_file():
    """A recipe that comes along is called after its pipeline: `train-nano`. Kickoffs are of several."""
    files = {path.stem for path in CONF.parent.glob("*.yaml") if not path.stem.startswith("everything")}
    assert {name.partition("-")[0] for name in files} == set(PIPELINES) <= files


@pytest.mark.parametrize("path", sorted(CONF.parent.glob("[!e]*-*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_that_comes_along_can_be_read(path):
    config = resolve(Request(path, (), "/lake"))
    assert config.pipeline == path.stem.partition("-")[0]


# Typos


@pytest.mark.parametrize(
    ("typo", "allowed"),
    [
        ("recipes", ["pipeline", "recipe", "run"]),
        ("run.worker", ["lake", "patience_seconds", "shared_filesystem", "workers"]),
        ("recipe.input", sorted(WebRecipe.model_fields)),
        ("recipe.scan.chunkbytes", ["chunk_bytes", "chunk_records"]),
        (
            "recipe.extract.htm",
            ["html", "http_statuses", "language_first", "read", "rights", "seconds_per_record", "truncated"],
        ),
        ("recipe.extract.html.foo", sorted(f.name for f in fields(ExtractConfig))),
        ("recipe.gopher_quality.min_word", sorted(f.name for f in fields(GopherQuality))),
        ("recipe.gopher_quality.VERSION", sorted(f.name for f in fields(GopherQuality))),
        ("recipe.exact.by", ["none"]),
    ],
)
def test_a_typo_names_its_path_and_the_allowedkeys(typo, allowed):
    with pytest.raises(BadConfig) as caught:
        resolved(f"{typo}=1")
    assert str(caught.value) == f"{typo}: unknown key; allowed here: {', '.join(allowed)}"


def test_every_mistake_has_a_line():
    with pytest.raises(BadConfig) as caught:
        resolved("recipe.foo=1", "run.workers=-1", "recipe.extract.html.main=0")
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["recipe.extract.html.main", "recipe.foo", "run.workers"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.scan.chunk_bytes=much", "recipe.scan.chunk_bytes: .*integer.* found 'much'"),
        ("recipe.scan.chunk_bytes=0", "recipe.scan: chunk_bytes=0: at least 1"),
        ("recipe.scan.chunk_records=0", "recipe.scan: chunk_records=0: at least 1"),
        ("recipe.scan=3", "recipe.scan: expected a section with chunk_bytes, chunk_records, found 3"),
        ("recipe.exact=3", "recipe.exact: expected a section with no keys, found 3"),
        ("recipe=null", "recipe: expected a section with allow_empty, c4_lines, c4_quality, .*, found None"),
        ("recipe.inputs=crawl/a.warc", r"recipe.inputs: expected a list such as \[a, b\], found 'crawl/a.warc'"),
        ("recipe.inputs=[1]", "recipe.inputs.0: .*string, found 1"),
        ("recipe.extract.http_statuses=[200, ok]", "recipe.extract.http_statuses.1: .*integer.* found 'ok'"),
        (
            "recipe.extract.html.method=magic",
            "recipe.extract.html.method: Input should be 'resiliparse', 'trained' or 'trafilatura', found 'magic'",
        ),
        ("recipe.extract.seconds_per_record=0", "recipe.extract: seconds_per_record=0.0: more than 0"),
        ("recipe.extract.seconds_per_record=.inf", "recipe.extract.seconds_per_record: .*finite number, found inf"),
        ("recipe.gopher_quality.max_symbol_ratio=.nan", "recipe.gopher_quality.max_symbol_ratio: .*finite"),
        ("recipe.language.min_score=2", "recipe.language: language.min_score is 2.0; .* from 0 to 1"),
        ("recipe.max_quarantine_rate=1.5", "recipe.max_quarantine_rate: .*less than or equal to 1, found 1.5"),
        ("recipe.limit=0", "recipe.limit: .*greater than or equal to 1, found 0"),
        ("recipe.dataset=My Web", "recipe.dataset: dataset name 'My Web': lower-case letters"),
        ("recipe.dataset=../web", "recipe.dataset: dataset name"),
        (
            "recipe.dataset=web.limit",
            "recipe.dataset: dataset name 'web.limit': names in .limit are for runs with a limit",
        ),
        ("run.workers=-1", "run.workers: .*greater than or equal to 0, found -1"),
    ],
)
def test_a_wrong_value_names_its_path_the_value_and_what_is_allowed(setting, message):
    with pytest.raises(BadConfig, match=f"^{message}"):
        resolved(setting)


def test_the_config_cannot_be_changed_afterwards():
    config = resolved()
    with pytest.raises(ValueError, match="frozen"):
        config.recipe.limit = 3
    with pytest.raises(AttributeError):
        config.recipe.scan.chunk_bytes = 3


def test_null_switches_a_threshold_off_and_lists_become_tuples():
    config = validate(WebConfig, {"recipe": {"gopher_quality": {"min_words": None, "languages": ["en", "de"]}}})
    assert config.recipe.gopher_quality.min_words is None
    assert config.recipe.gopher_quality.languages == ("en", "de")


# Identity


def test_addresses_and_everything_in_run_are_no_part_of_the_recipe(tmp_path):
    here = resolved("recipe.inputs=[/a]", "run.workers=7", f"recipe.language.model_path={tmp_path}").recipe.identity()
    assert here == WebRecipe().identity() and "inputs" not in here
    assert resolved("recipe.gopher_quality.min_words=49").recipe.identity() != here


def test_a_limit_goes_to_a_dataset_of_its_own():
    assert resolved().recipe.target == "web"
    assert resolved(limit=10).recipe.target == "web.limit" and resolved("recipe.limit=3", limit=10).recipe.limit == 10
    with pytest.raises(BadConfig, match=r"recipe\.limit"):
        resolved(limit=0)


# The lake


def test_the_lake_is_the_option_then_the_config_then_the_environment(monkeypatch):
    monkeypatch.setenv("GRIST_LAKE", "/from/environment")
    assert lake_uri("/option", "/config", in_job=False) == "/option"
    assert lake_uri(None, "/config", in_job=False) == "/config"
    assert lake_uri(None, "", in_job=False) == "/from/environment"
    assert lake_uri("s3://bucket/x", "", in_job=True) == "s3://bucket/x"
    assert resolved("run.lake=/config", lake=None).run.lake == "/config"


def test_without_a_lake_every_way_to_name_one_is_told():
    with pytest.raises(BadConfig, match=r"no lake: give --lake, run\.lake in the config, or \$GRIST_LAKE"):
        lake_uri(None, "", in_job=False)


def test_a_relative_lake_is_made_absolute_but_refused_inside_a_job(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert lake_uri("here", "", in_job=False) == str(tmp_path / "here")
    with pytest.raises(BadConfig, match="the lake 'here' is relative; inside a job"):
        lake_uri("here", "", in_job=True)


def test_a_relative_input_is_refused_inside_a_job_only(monkeypatch):
    assert not inside_job()
    resolved("recipe.inputs=[crawl/a]")
    monkeypatch.setitem(os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert inside_job()
    resolved("recipe.inputs=[/crawl/a, 's3://b/c']")
    with pytest.raises(BadConfig, match=r"recipe\.inputs: 'crawl/a' is relative; inside a job give an absolute path"):
        resolved("recipe.inputs=[/a, crawl/a]")
    with pytest.raises(BadConfig, match="the lake 'here' is relative"):
        resolved(lake="here")
    check_inputs_absolute(["file:///a/b"])


def test_the_shipped_config_has_every_key_with_its_default():
    shipped = load(CONF)
    assert validate(WebConfig, shipped) == WebConfig()
    assert shipped == json.loads(WebConfig().model_dump_json())


def test_an_entry_of_a_list_goes_by_its_number():
    data = {"recipe": {"stages": [{"steps": 3, "optim": {"lr": 1}}, {"steps": 4}]}}
    laid = override(data, ["recipe.stages.1.steps=9", "recipe.stages.0.optim.lr=2", "recipe.stages.0.name=a"])
    assert laid == {"recipe": {"stages": [{"steps": 3, "optim": {"lr": 2}, "name": "a"}, {"steps": 9}]}}
    assert data["recipe"]["stages"][1]["steps"] == 4
    assert override(data, ["recipe.stages.1=x"])["recipe"]["stages"][1] == "x"
    for wrong in ("recipe.stages.2.steps=1", "recipe.stages.-1.steps=1", "recipe.stages.first=1", "recipe.stages.2=1"):
        with pytest.raises(BadConfig, match="is no entry of this list: there are 0 to 1"):
            override(data, [wrong])
    with pytest.raises(BadConfig, match="there are none, it is empty"):
        override({"recipe": {"stages": []}}, ["recipe.stages.0=1"])
