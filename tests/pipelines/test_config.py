"""Configuration: what is laid over what, and that every mistake names its path, its value and what is allowed."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest

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

CONF = Path(__file__).parents[2] / "conf" / "web.yaml"


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


def resolved(*settings: str, **request: object) -> WebConfig:
    return resolve(Request(CONF, settings, **{"lake": "/lake", **request}))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_file_that_is_shipped_says_every_key_and_its_default(pipeline):
    data, default = load(CONF.with_name(f"{pipeline}.yaml")), PIPELINES[pipeline]()
    config = validate(PIPELINES[pipeline], data)
    assert config.recipe == default.recipe and config.run == default.run
    assert _keys(data) == _keys(default.model_dump())


def _keys(data: object, at: str = "") -> set[str]:
    if not isinstance(data, dict) or not data:
        return {at}
    return {key for name, value in data.items() for key in _keys(value, f"{at}.{name}")}


def test_every_pipeline_has_a_file():
    assert {path.stem for path in CONF.parent.glob("*.yaml")} == set(PIPELINES)


# --set


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=2", {"a": {"b": 2, "c": [1]}}),
        ("a.c=[x, y]", {"a": {"b": 1, "c": ["x", "y"]}}),
        ("a.b=null", {"a": {"b": None, "c": [1]}}),
        ("a.b=", {"a": {"b": None, "c": [1]}}),
        ("a.b=x=y", {"a": {"b": "x=y", "c": [1]}}),
        ("a.new.deep='3'", {"a": {"b": 1, "c": [1], "new": {"deep": "3"}}}),
        ("a={d: true}", {"a": {"d": True}}),
    ],
)
def test_a_setting_is_laid_over_the_file(setting, expected):
    data = {"a": {"b": 1, "c": [1]}}
    assert override(data, [setting]) == expected
    assert data == {"a": {"b": 1, "c": [1]}}


def test_the_last_setting_wins():
    assert override({}, ["a.b=1", "a.b=2", "a.c=3"]) == {"a": {"b": 2, "c": 3}}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a.b", "'a.b': expected a.b=value"),
        ("=1", "'=1': expected a.b=value"),
        ("a..b=1", "expected a.b=value"),
        ("a.=1", "expected a.b=value"),
        ("a.b.c=1", "'b' is a value, not a section"),
        ("a.b=[", r"'a.b=\[': the value is not valid YAML"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting, message):
    with pytest.raises(BadConfig, match=message):
        override({"a": {"b": 1}}, [setting])


BOMB = "a.b={a: &a [x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b,*b,*b], \
d: &d [*c,*c,*c,*c,*c,*c,*c,*c], e: &e [*d,*d,*d,*d,*d,*d,*d,*d], f: [*e,*e,*e,*e,*e,*e,*e,*e]}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (BOMB, "too large: it stands for more than 100,000 values"),
        (f"a.b={'[' * 60}", "too deep: sections or lists within each other, more than 50"),
        (f"a.b={'[' * 100_000}", "too deep"),
        (f"a.b={'x' * (1 << 20)}y", "too long: more than 1,048,576 characters"),
        ("a.b=&x [*x]", "leads back to itself"),
        ("a.b=[*.jsonl]", r"not valid YAML: .*, line 1, column 3; a pattern such as .* wants quotes"),
        ("a.b=*x", "undefined alias 'x', line 1, column 1; a pattern such as"),
        ("a.b=2001-99-99", "not valid YAML: month must be in 1..12"),
        ("a.b=!!int x", "not valid YAML: invalid literal"),
        ("a.b=!!timestamp x", "not valid YAML"),
        ("a.b=" + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("a.b={x: 1\n\ny: [", "not valid YAML"),
        ("a.b={x: 1, y: {z: 1, z: 2}}", "the key 'z' stands twice in one section, line 1, column 18"),
        ("a.b=\x1b[31m", "not valid YAML: unacceptable character"),
    ],
    ids=lambda text: text[:20],
)
def test_a_value_that_is_no_yaml_or_too_much_is_one_line(setting, message):
    with pytest.raises(BadConfig, match=message) as caught:
        override({"a": {"b": 1}}, [setting])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("value", ["{x: null}", "{x: {weigt: 1}}", "{x: [1]}", "3", "[a]", "{1: {weight: 1}}"])
def test_a_mistake_in_a_mapping_of_names_is_one_line(value):
    settings = (f"recipe.sources={value}",)
    with pytest.raises(BadConfig, match=r"^recipe\.sources") as caught:
        resolve(Request(CONF.with_name("mixture.yaml"), settings, "/lake"))
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    if "weigt" in value:
        assert "recipe.sources.x.weigt: unknown key; allowed here: max_epochs, weight" in str(caught.value)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_value_anywhere_is_a_traceback(pipeline):
    """Every key of every pipeline with values that fit nowhere: used, or refused with its path."""
    data = load(CONF.with_name(f"{pipeline}.yaml"))
    for key in sorted(_keys(data)):
        for value in ("null", "-1", ".nan", "{x: null}", "[[1]]", "2020-01-01", "!!set {a}", "'\\ud800'", "x"):
            try:
                resolve(Request(data, (f"{key.removeprefix('.')}={value}",), "/lake"))
            except BadConfig as error:
                assert all(line.isprintable() for line in str(error).splitlines())


def test_aliases_are_read_and_share_nothing(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {b: 1, c: [2]}\nd: *x\ne: {<<: *x, b: 3}\n")
    data = override(load(path), ["a.b=9"])
    assert data == {"a": {"b": 9, "c": [2]}, "d": {"b": 1, "c": [2]}, "e": {"b": 3, "c": [2]}}
    path.write_text(BOMB.partition("=")[2])
    with pytest.raises(BadConfig, match=r"a\.yaml: too large"):
        load(path)


@pytest.mark.parametrize("key", ["recipe.in\x1b[31mputs", "recipe.\u202einputs", "recipe.in\nputs", "\x9b.a"])
def test_an_unknown_key_is_named_and_does_nothing_to_a_terminal(key):
    with pytest.raises(BadConfig, match="unknown key; allowed here") as caught:
        resolved(f"{key}=1")
    assert str(caught.value).isprintable()


# The file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a mapping at the top, found NoneType"),
        (b"- a\n- b\n", "expected a mapping at the top, found list"),
        (b"a: [1\n", "not valid YAML: (?s:.*)line 2"),
        (b"\xff\xfe\x00", "cannot be read as a YAML file"),
        (b"recipe: !!python/object:os.system {}\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_with_its_name(tmp_path, content, message):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(BadConfig, match=rf"odd\.yaml: {message}"):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"none\.yaml: there is no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(BadConfig, match="cannot be read as a YAML file"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["null", "wob", "[web]", "{a: b}"])
def test_an_unknown_pipeline_is_refused_with_those_there_are(kind):
    with pytest.raises(BadConfig, match=r"web\.yaml: pipeline: .*; allowed: web"):
        resolved(f"pipeline={kind}")


# Typos


@pytest.mark.parametrize(
    ("typo", "allowed"),
    [
        ("recipes", ["pipeline", "recipe", "run"]),
        ("run.worker", ["lake", "patience_seconds", "shared_filesystem", "workers"]),
        ("recipe.input", sorted(WebRecipe.model_fields)),
        ("recipe.scan.chunkbytes", ["chunk_bytes", "chunk_records"]),
        ("recipe.extract.htm", ["html", "http_statuses", "read", "seconds_per_record", "truncated"]),
        ("recipe.extract.html.foo", sorted(f.name for f in fields(ExtractConfig))),
        ("recipe.gopher_quality.min_word", sorted(f.name for f in fields(GopherQuality))),
        ("recipe.gopher_quality.VERSION", sorted(f.name for f in fields(GopherQuality))),
        ("recipe.exact.by", ["none"]),
    ],
)
def test_a_typo_names_its_path_and_the_allowed_keys(typo, allowed):
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
        ("recipe=null", "recipe: expected a section with allow_empty, dataset, .*, found None"),
        ("recipe.inputs=crawl/a.warc", r"recipe.inputs: expected a list such as \[a, b\], found 'crawl/a.warc'"),
        ("recipe.inputs=[1]", "recipe.inputs.0: .*string, found 1"),
        ("recipe.extract.http_statuses=[200, ok]", "recipe.extract.http_statuses.1: .*integer.* found 'ok'"),
        (
            "recipe.extract.html.method=magic",
            "recipe.extract.html.method: Input should be 'resiliparse', found 'magic'",
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
