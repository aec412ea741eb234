"""What is laid over what: a YAML file and `--set`, read within bounds, and every mistake in one line."""

from __future__ import annotations

import pytest
from configs import CONF, keys, resolved

from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.registry import PIPELINES
from gristmill.pipelines.settings.config import (
    BadConfig,
    load,
    override,
)


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


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
    for key in sorted(keys(data)):
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
