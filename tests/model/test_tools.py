"""The tools of a conversation: schemas are checked without leaving the process, and within a budget."""

from __future__ import annotations

import socket
import urllib.request
from typing import Any

import pytest
from chats import ANSWER, USER, call, chat, reason

from gristmill.model.processing.chat import tools as tools_module
from gristmill.model.processing.chat.conversation import parse
from gristmill.model.processing.chat.tools import BUDGET, _steps


def schema(parameters: Any, arguments: Any = None) -> dict[str, Any]:
    turn = ANSWER if arguments is None else call("f", arguments)
    return chat(USER, turn, tools=({"name": "f", "parameters": parameters},))


LOOP = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "str"},
        {"required": "city"},
        {"properties": {"a": {"type": "strin"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "https://example.org/schema.json"},
        {"properties": {"a": {"$ref": "other.json#/a"}}},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"properties": {"a": {"$dynamicRef": "http://localhost:1/x"}}},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"title": "x", "properties": {"a": {"$ref": "#/title"}}},
        {"$ref": "#"},
        {"not": {"$ref": "#"}},
        {
            "anyOf": [{"propertyNames": {"$ref": "#a"}}, {"$anchor": "a"}],
            "$schema": "http://json-schema.org/draft-07/schema#",
        },
        LOOP,
        {"$schema": {}},
        [],
        "object",
        True,
        {"default": float("nan")},
        {"enum": [{1, 2}]},
    ],
    ids=repr,
)
def test_schemas_that_are_none_or_lead_away(parameters: Any) -> None:
    assert reason(schema(parameters)) == ("bad_tool_schema", "f")


def test_nothing_is_ever_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetched(*args: Any, **kwargs: Any) -> Any:
        asked.append(repr(args))  # jsonschema turns what is raised into an error of its own
        raise OSError

    monkeypatch.setattr(urllib.request, "urlopen", fetched)
    monkeypatch.setattr(socket, "socket", fetched)
    for reference in (
        "https://json-schema.org/draft/2020-12/schema",
        "http://json-schema.org/draft-07/schema#",
        "x.json",
    ):
        assert reason(schema({"properties": {"a": {"$ref": reference}}}, {"a": 1}))[0] == "bad_tool_schema"
    inner = {"$id": "http://localhost:1/z", "$ref": "#/foo"}  # where no schema is looked for, with a base of its own
    away = {"properties": {"a": {"$ref": "#/custom/x"}}, "custom": {"x": {"allOf": [inner]}}, "foo": {}}
    assert reason(schema(away, {"a": 1}))[0] == "bad_tool_schema"
    meta = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://example.org/a", "type": "object"}
    assert parse(schema(meta, {"a": 1}))
    assert parse(schema(meta | {"$schema": "https://example.org/mine"}, {"a": 1}))
    assert not asked


def test_local_references_are_followed() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    }
    assert parse(schema(tree, {"next": {"next": {}}}))
    assert reason(schema(tree, {"next": {"next": 5}})) == ("bad_arguments", "f $.next.next")
    old = {"definitions": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/definitions/n"}}}
    assert reason(schema(old | {"$schema": "http://json-schema.org/draft-07/schema#"}, {"a": "x"})) == (
        "bad_arguments",
        "f $.a",
    )


def test_schemas_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tools_module._compiled.cache_clear()
    for _ in range(5):
        parse(schema({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}))
        parse(schema({"properties": {"a": {"type": "integer"}}, "type": "object"}, {"a": 1}))
    assert tools_module._compiled.cache_info().misses == 1


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|aa)*b",
        "(a*)*",
        "(.*a){20}",
        r"^(\w+\s?)*$",
        "(x+x+)+y",
        "(a?){60}a{60}",
        "(?i)(aa|Aa)*b",
        "(?:(?:a{1,9}){1,9}){1,9}b",
    ],
)
def test_patterns_of_exponential_time_are_refused(pattern: str) -> None:
    assert reason(schema({"properties": {"a": {"pattern": pattern}}}))[0] == "bad_tool_schema"
    assert reason(schema({"patternProperties": {pattern: {}}}))[0] == "bad_tool_schema"


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[^@]+@[^@]+\.[^@]+$", "anna@example.org", "anna"),
        (r"^\d{4}-\d{2}-\d{2}$", "2026-11-24", "24.11."),
        (r"^\d{1,3}(\.\d{1,3}){3}$", "127.0.0.1", "127"),
        (r"^(en|de|fr)(,(en|de|fr))*$", "en,de", "en;de"),
        (r"^P(?:\d+Y)?(?:\d+M)?(?:\d+D)?$", "P1Y2M", "1Y"),
        ("^#[0-9a-f]{6}$", "#ffffff", "ffffff"),
    ],
)
def test_patterns_of_daily_life_are_checked(pattern: str, good: str, bad: str) -> None:
    sample = {"properties": {"a": {"pattern": pattern}}}
    assert parse(schema(sample, {"a": good}))
    assert reason(schema(sample, {"a": bad})) == ("bad_arguments", "f $.a")


def test_a_string_too_long_for_its_pattern_is_not_matched() -> None:
    slow = {
        "properties": {"a": {"pattern": "a*a*a*b"}},
        "patternProperties": {"x*x*x*y": {}},
        "additionalProperties": {},
    }
    assert parse(schema(slow, {"a": "aab"}))
    assert reason(schema(slow, {"a": "a" * 2000})) == ("bad_arguments", "f: too much to check")
    assert reason(schema(slow, {"x" * 2000: 1})) == ("bad_arguments", "f: too much to check")
    assert parse(schema(slow, {"a": "aab"}))  # the budget is of one check, not of all


def test_references_that_multiply_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "BUDGET", BUDGET // 20)
    steps = {f"s{i}": {"allOf": [{"$ref": f"#/$defs/s{i + 1}"}] * 3} for i in range(14)}
    many = {"$defs": steps | {"s14": {"type": "object"}}, "properties": {"a": {"$ref": "#/$defs/s0"}}}
    assert reason(schema(many, {"a": {}})) == ("bad_arguments", "f: too much to check")


def test_steps_grow_with_what_backtracking_can_do() -> None:
    assert _steps("^a*b", 1000) < _steps("a*b", 1000) < _steps("a*a*b", 1000) <= BUDGET * 100
    assert _steps("(?m)^a*b", 1000) == _steps("a*b", 1000)
    assert _steps("^abc$", 10**6) < 2 * 10**6


def test_arguments_nested_without_end_are_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert reason(schema({}, deep)) == ("bad_arguments", "f: no JSON")
    tree = {"$ref": "#/$defs/n", "$defs": {"n": {"additionalProperties": {"$ref": "#/$defs/n"}}}}
    assert parse(schema(tree, '{"a":' * 38 + "{}" + "}" * 38))
    assert parse(schema(tree, {str(n): {} for n in range(500)}))  # wide is not deep
    assert (
        reason(schema(tree, '{"a":' * 400 + "{}" + "}" * 400))
        == reason(schema(tree, '{"a":' * 42 + "{}" + "}" * 42))
        == ("bad_arguments", "f: too much to check")
    )
