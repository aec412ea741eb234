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
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any

from jsonschema import Draft202012Validator, exceptions, validators
from referencing import Registry
from referencing.exceptions import NoSuchResource, Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

VALUE = 100  # characters of an offending value that are told
DEPTH = 80  # keywords within keywords; Python's own limit would depend on who calls, and rpds panics at it
BUDGET = 30_000_000
"""Steps of backtracking, up to 80 ns each: some two seconds at the very worst."""

_KEYWORD, _COMPARED = 150, 3  # what a keyword and a comparison of two items take, in such steps
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


class TooMuchWork(Exception):
    """A check that could take longer than its budget."""


class _Check(threading.local):
    """The check that goes on: what is left to it, how deep it is, which patterns for names its schema has."""

    left: float = 0
    depth: int = 0
    patterns: tuple[str, ...] = ()

    def pay(self, steps: float) -> None:
        self.left -= steps
        if self.left < 0 or self.depth > DEPTH:
            raise TooMuchWork


_check = _Check()


def canonical(value: Any) -> str:
    """JSON on one line without blanks, keys sorted. ValueError, TypeError or RecursionError for what is no JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    for end in "\x85\u2028\u2029":  # line ends to some readers; only strings can have them
        text = text.replace(end, f"\\u{ord(end):04x}")
    return text


def read_json(text: str, reason: str, value: str) -> Any:
    """What a text is as JSON. Raises BadSample with this reason and value."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadSample(reason, value) from None


def read_arguments(name: str, value: Any) -> dict[str, Any]:
    """Arguments of a call, an object or its JSON, as plain JSON with sorted keys. Raises BadSample."""
    if isinstance(value, str):
        value = read_json(value, "bad_arguments", f"{name}: no JSON")
    if not isinstance(value, Mapping):
        raise BadSample("bad_arguments", f"{name}: no object")
    try:
        arguments: dict[str, Any] = json.loads(canonical(value))  # plain JSON, keys in order
    except (ValueError, TypeError, RecursionError):
        raise BadSample("bad_arguments", f"{name}: no JSON") from None
    return arguments


def read_schema(name: str, parameters: Any) -> dict[str, Any]:
    """Parameters of a tool as plain JSON with sorted keys. Raises BadSample unless they are a schema we can use."""
    try:
        text = canonical(parameters)
        _compiled(text)
    except (ValueError, TypeError, RecursionError):
        raise BadSample("bad_tool_schema", name) from None
    schema: dict[str, Any] = json.loads(text)
    return schema


def check_arguments(name: str, parameters: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Raises BadSample where arguments break the schema: with the tool and the path of the first error, no value."""
    try:
        error = _first_error(*_compiled(canonical(parameters)), arguments)
    except (TooMuchWork, RecursionError):
        raise BadSample("bad_arguments", f"{name}: too much to check") from None
    except Unresolvable:  # only from within a part that has an `$id` of its own
        raise BadSample("bad_tool_schema", name) from None
    if error is not None:
        raise BadSample("bad_arguments", f"{name} {error.json_path}")


def _first_error(validator: Any, patterns: tuple[str, ...], value: Any) -> Any:
    _check.left, _check.depth, _check.patterns = BUDGET, 0, patterns
    return next(validator.iter_errors(value), None)


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[Any, tuple[str, ...]]:
    """The validator of a schema, and its patterns for names. Raises ValueError for a schema that is none or refused."""
    schema = json.loads(text)
    if not isinstance(schema, dict) or not isinstance(schema.get("$schema", ""), str):
        raise ValueError("a schema is an object")
    base = validators.validator_for(schema, default=Draft202012Validator)
    try:
        base.check_schema(schema)
    except exceptions.SchemaError as error:
        raise ValueError(error.message) from None
    _check_references(schema)
    patterns = _patterns(schema)
    validator = _paying(base)(schema, registry=Registry())
    try:
        _first_error(validator, patterns, {})  # a schema that leads back to itself never ends
    except (RecursionError, TooMuchWork, Unresolvable):
        raise ValueError("a check of it does not end") from None
    return validator, patterns


@lru_cache
def _paying(base: Any) -> Any:
    """A draft's validator whose keywords pay for their work."""
    return validators.extend(base, {name: _paid(name, rule) for name, rule in base.VALIDATORS.items()})


def _paid(name: str, rule: Any) -> Any:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _check.pay(_KEYWORD)
        if name == "pattern" and isinstance(instance, str):
            _check.pay(_steps(value, len(instance)))
        elif name in _KEYED and isinstance(instance, dict):
            _check.pay(sum(_steps(pattern, len(key)) for pattern in _check.patterns for key in instance))
        elif name == "uniqueItems" and isinstance(instance, list):
            _check.pay(_COMPARED * len(instance) ** 2)
        _check.depth += 1
        try:
            yield from rule(validator, value, instance, schema) or ()
        finally:
            _check.depth -= 1

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
    draft = specification_with(schema.get("$schema", ""), default=DRAFT202012)
    resolver = Registry().resolver_with_root(draft.create_resource(schema))
    for node in _nodes(schema):
        for reference in (node[name] for name in _REFERENCES if isinstance(node.get(name), str)):
            if not reference.startswith("#"):
                raise ValueError(f"reference {reference!r} leads out of the schema")
            try:
                target = resolver.lookup(reference).contents
            except (Unresolvable, NoSuchResource, TypeError, ValueError):
                target = None
            if not isinstance(target, dict | bool):
                raise ValueError(f"reference {reference!r} leads to no schema")


def _patterns(schema: dict[str, Any]) -> tuple[str, ...]:
    """The patterns for names in a schema, all of its patterns looked at. Raises ValueError for one to refuse."""
    names: list[str] = []
    for node in _nodes(schema):
        keyed = node["patternProperties"] if isinstance(node.get("patternProperties"), dict) else {}
        names += keyed
        for pattern in (*keyed, node.get("pattern")):
            if isinstance(pattern, str) and _steps(pattern, 1) == math.inf:
                raise ValueError(f"pattern {pattern!r} can take exponential time: a repeat within a repeat")
    return tuple(names)


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
    """Alternatives that begin with different ASCII characters are tried one at a time: no more ways than one of them
    has. Other letters may be equal where case is ignored."""
    ways = [_ways(branch, length) for branch in branches]
    first = [branch[0][1] if len(branch) and str(branch[0][0]) == "LITERAL" else 128 for branch in branches]
    apart = max(first) < 128 and len({chr(letter).lower() for letter in first}) == len(first)
    return max(ways) if apart else sum(ways)
