"""Tools of a conversation: JSON schemas of what may be called, and whether a call keeps to its schema.

Schemas and arguments come from strangers. So no reference is ever fetched (local ones only, and they have to resolve),
and each check has a budget of work, counted and not timed, so that a fate does not depend on the machine: a keyword
costs a fixed price, a regular expression what backtracking could take at worst on a string of that length. Patterns
whose worst case is exponential (a repeat of something that can itself match in several ways) are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from jsonschema import Draft202012Validator, exceptions, validators
from referencing import Registry
from referencing.exceptions import NoSuchResource, Unresolvable
from referencing.jsonschema import DRAFT202012

VALUE = 100
"""Characters of an offending value that are told."""

BUDGET = 30_000_000
"""Steps of backtracking, up to 80 ns each: some two seconds at the very worst."""

_KEYWORD, _COMPARED = 50, 3  # what a keyword and a comparison of two items take, in such steps
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_KEYED = ("patternProperties", "additionalProperties", "unevaluatedProperties")  # match names against patterns
_parser: Any = import_module("re._parser")  # the only reading of a pattern that agrees with the engine's


class BadSample(ValueError):
    """A sample that is no conversation to learn from. `reason` is one word; `value` what offends: a role, a name, a
    place, never message text."""

    def __init__(self, reason: str, value: str = "") -> None:
        # A name may hold half a surrogate pair, which no table can store.
        self.reason, self.value = reason, value[:VALUE].encode("utf-8", "replace").decode()
        super().__init__(reason, self.value)

    def __str__(self) -> str:
        return f"{self.reason}: {self.value}" if self.value else self.reason


@dataclass(frozen=True)
class Call:
    """A call of a tool, its arguments a JSON object."""

    name: str
    arguments: dict[str, Any]


class BadSchema(ValueError):
    """Parameters of a tool that are no JSON schema, or one that we do not use."""


class TooMuchWork(Exception):
    """A check that could take longer than its budget."""


@dataclass
class Budget:
    """What is left to a check."""

    left: float = BUDGET

    def pay(self, steps: float) -> None:
        self.left -= steps
        if self.left < 0:
            raise TooMuchWork


def canonical(value: Any) -> str:
    """JSON on one line without blanks, keys sorted. ValueError, TypeError or RecursionError for what is no JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    for end in "\x85\u2028\u2029":  # line ends to some readers; only strings can have them
        text = text.replace(end, f"\\u{ord(end):04x}")
    return text


def parse_tools(value: Any) -> tuple[dict[str, Any], ...]:
    """Tools in OpenAI's form or flat, or either as a JSON string, as `{name, description, parameters}`; other fields
    are left out. Raises BadSample: bad_tools, bad_tool_schema."""
    if isinstance(value, str):
        value = _read(value, "bad_tools", "no JSON") if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadSample("bad_tools", f"a {type(value).__name__}")
    tools: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(value):
        tool = _inner(item)
        name = tool.get("name") if tool is not None else None
        if tool is None or not isinstance(name, str) or not name.strip():
            raise BadSample("bad_tools", f"tool {number} has no name")
        if name in tools:
            raise BadSample("bad_tools", f"two tools {name}")
        if not isinstance(tool.get("description", ""), str | None):
            raise BadSample("bad_tools", f"description of {name}")
        told = {key: tool[key] for key in ("description", "parameters") if tool.get(key) is not None}
        if "parameters" in told:
            told["parameters"] = _schema(name, told["parameters"])
        tools[name] = {"name": name, **told}
    return tuple(tools.values())


def parse_calls(value: Any, tools: Iterable[Mapping[str, Any]]) -> tuple[Call, ...]:
    """Calls in OpenAI's form or flat, arguments as an object or as its JSON, checked against the tools' schemas.

    Raises BadSample: not_text, unknown_tool, bad_arguments (value: the tool and the JSON path of the first error).
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadSample("not_text", f"tool_calls is a {type(value).__name__}")
    schemas = {tool["name"]: tool.get("parameters") for tool in tools}
    calls = []
    for item in value:
        call = _inner(item)
        name = call.get("name") if call is not None else None
        if call is None or not isinstance(name, str):
            raise BadSample("not_text", "a call without a name")
        if name not in schemas:
            raise BadSample("unknown_tool", name)
        arguments = _arguments(name, call.get("arguments"))
        _check(name, schemas[name], arguments)
        calls.append(Call(name, arguments))
    return tuple(calls)


def _inner(item: Any) -> Mapping[str, Any] | None:
    """What OpenAI's form wraps in `function`."""
    if isinstance(item, Mapping) and isinstance(item.get("function"), Mapping):
        item = item["function"]
    return item if isinstance(item, Mapping) else None


def _read(text: str, reason: str, value: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise BadSample(reason, value) from None


def _arguments(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = _read(value, "bad_arguments", f"{name}: no JSON")
    if not isinstance(value, Mapping):
        raise BadSample("bad_arguments", f"{name}: no object")
    try:
        found: dict[str, Any] = json.loads(canonical(value))  # plain JSON, keys in order
    except (ValueError, TypeError, RecursionError):
        raise BadSample("bad_arguments", f"{name}: no JSON") from None
    return found


def _schema(name: str, parameters: Any) -> dict[str, Any]:
    try:
        text = canonical(parameters)
        _compiled(text)
    except (BadSchema, ValueError, TypeError, RecursionError):
        raise BadSample("bad_tool_schema", name) from None
    found: dict[str, Any] = json.loads(text)
    return found


def _check(name: str, parameters: Any, arguments: dict[str, Any]) -> None:
    if parameters is None:
        return
    validator, budget = _compiled(canonical(parameters))
    budget.left = BUDGET
    try:
        error = next(validator.iter_errors(arguments), None)
    except (TooMuchWork, RecursionError):
        raise BadSample("bad_arguments", f"{name}: too much to check") from None
    if error is not None:
        raise BadSample("bad_arguments", f"{name} {error.json_path}")


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[Any, Budget]:
    """The validator of a schema, and the budget that it draws on."""
    schema = json.loads(text)
    if not isinstance(schema, dict) or not isinstance(schema.get("$schema", ""), str):
        raise BadSchema("a schema is an object")
    base = validators.validator_for(schema, default=Draft202012Validator)
    try:
        base.check_schema(schema)
    except exceptions.SchemaError as error:
        raise BadSchema(error.message) from None
    budget = Budget()
    patterns = _patterns(schema)
    rules = {name: _paid(name, rule, budget, patterns) for name, rule in base.VALIDATORS.items()}
    validator = validators.extend(base, rules)(schema, registry=Registry())
    _check_references(schema)
    try:
        validator.is_valid({})  # a schema that leads back to itself never ends
    except (RecursionError, TooMuchWork, Unresolvable):
        raise BadSchema("a check of it does not end") from None
    return validator, budget


def _paid(name: str, rule: Any, budget: Budget, patterns: list[str]) -> Any:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        budget.pay(_KEYWORD)
        if name == "pattern" and isinstance(instance, str):
            budget.pay(_steps(value, len(instance)))
        elif name in _KEYED and isinstance(instance, dict):
            budget.pay(sum(_steps(pattern, len(key)) for pattern in patterns for key in instance))
        elif name == "uniqueItems" and isinstance(instance, list):
            budget.pay(_COMPARED * len(instance) ** 2)
        return rule(validator, value, instance, schema)

    return check


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects within a schema; also those that are data (`const`, `default`): better too strict than fetched."""
    todo = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            yield node
        todo += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []


def _check_references(schema: dict[str, Any]) -> None:
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for node in _nodes(schema):
        for reference in (node[name] for name in _REFERENCES if isinstance(node.get(name), str)):
            if not reference.startswith("#"):
                raise BadSchema(f"reference {reference!r} leads out of the schema")
            try:
                found = resolver.lookup(reference).contents
            except (Unresolvable, NoSuchResource, TypeError, ValueError):
                found = None
            if not isinstance(found, dict | bool):
                raise BadSchema(f"reference {reference!r} leads to no schema")


def _patterns(schema: dict[str, Any]) -> list[str]:
    """The patterns for names in a schema, all of its patterns looked at. Raises BadSchema for one to refuse."""
    names: list[str] = []
    for node in _nodes(schema):
        keyed = node.get("patternProperties")
        names += keyed if isinstance(keyed, dict) else ()
        for pattern in [*(keyed if isinstance(keyed, dict) else ()), node.get("pattern")]:
            if isinstance(pattern, str) and _steps(pattern, 1) == math.inf:
                raise BadSchema(f"pattern {pattern!r} can take exponential time: a repeat within a repeat")
    return names


@lru_cache(maxsize=4096)
def _steps(pattern: str, length: int) -> float:
    """How many steps `re.search` of a pattern can take at most on a string of so many characters, roughly."""
    try:
        tree = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return math.inf
    begins = str(tree[0][1]) if len(tree) else ""
    anchored = begins in ("AT_BEGINNING", "AT_BEGINNING_STRING") and not tree.state.flags & re.MULTILINE
    return _ways(tree, length + 1) * (1 if anchored else length + 1) + length


def _ways(items: Any, length: int) -> float:
    """In how many ways a sequence can match from one place, at most: what backtracking tries, one after the other."""
    ways = 1.0
    for op, value in items:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, body = value[0], value[1], _ways(value[2], length)
            ways *= max(min(most, length) - least, 0) + 1
            if body > 1:  # each round may go another way
                ways *= body**most if most <= 64 and most * math.log(body) < 40 else math.inf
        elif name == "BRANCH":
            ways *= _branched(value[1], length)
        elif name == "SUBPATTERN":
            ways *= _ways(value[-1], length)
        elif name in ("ATOMIC_GROUP", "ASSERT", "ASSERT_NOT"):
            ways *= _ways(value if name == "ATOMIC_GROUP" else value[1], length)
        elif name == "GROUPREF_EXISTS":
            ways *= sum(_ways(branch, length) for branch in value[1:] if branch is not None)
        if ways > BUDGET:
            return math.inf
    return ways


def _branched(branches: list[Any], length: int) -> float:
    """Alternatives that begin with different letters are tried one at a time: no more ways than the widest has."""
    ways = [_ways(branch, length) for branch in branches]
    first = [branch[0] if len(branch) else (None, None) for branch in branches]
    apart = all(str(op) == "LITERAL" for op, _ in first) and len({letter for _, letter in first}) == len(first)
    return max(ways) if apart else sum(ways)
