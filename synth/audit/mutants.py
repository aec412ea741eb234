"""Programs with one small mistake each, to see whether a verifier notices: a constant, an operator, a condition.

A mutant that passes is either equivalent to the program or shows that its tests are weak; both are worth reading. The
order of mutants is that of the syntax tree, so the same program has the same mutants.
Source: DeMillo, Lipton, Sayward 1978.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """`source`: the program with the mistake; `change`: where it is, and what became of what."""

    source: str
    change: str


def mutants(source: str, after: int = 0) -> Iterator[Mutant]:
    """The mutants of a program whose mistakes stand after so many lines. Raises SyntaxError if it is no program."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        if getattr(node, "lineno", 0) <= after or not _is_changeable(node):
            continue
        changed = copy.deepcopy(tree)
        target = next(other for at, other in enumerate(ast.walk(changed)) if at == number)
        before = ast.unparse(target)
        change = f"line {getattr(node, 'lineno', 0)}: {before} became {_change(target)}"
        yield Mutant(ast.unparse(ast.fix_missing_locations(changed)), change)


def _is_changeable(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return True
        case ast.BinOp(op=operator) | ast.AugAssign(op=operator) | ast.BoolOp(op=operator):
            return type(operator) in _OPERATORS
        case ast.Compare(ops=[operator]):
            return type(operator) in _OPERATORS
    return False


def _change(node: ast.AST) -> str:
    """Changes a node in place, and says what it is now."""
    match node:
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() | float() as number):
            node.value = number + 1
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp():
            node.op = _OPERATORS[type(node.op)]()  # type: ignore[assignment]
        case ast.Compare(ops=[operator]):
            node.ops = [_OPERATORS[type(operator)]()]  # type: ignore[list-item]
    return ast.unparse(node)


# Whether a mutant that passes is equivalent

INPUTS = 300
"""Inputs on which a mutant is compared with the program at most."""


def inputs(tests: str, names: frozenset[str]) -> list[tuple[Any, ...]]:
    """Arguments with which the tests call one of `names`, and small changes of them, as far as they are literals."""
    calls = []
    for node in ast.walk(ast.parse(tests)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in names
            and not node.keywords
        ):
            try:
                calls.append(tuple(ast.literal_eval(argument) for argument in node.args))
            except ValueError:  # computed: not known without running the test
                continue
    changed = [
        (*call[:at], other, *call[at + 1 :])
        for call in calls
        for at, value in enumerate(call)
        for other in _near(value)
    ]
    distinct = {repr(call): call for call in (*calls, *changed)}
    return list(distinct.values())[:INPUTS]


def _near(value: Any) -> list[Any]:
    """Small changes of a value, of its type."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value - 1, value + 1, -value, 0 * value]
        case str() | list() | tuple():
            return [value[1:], value[:-1], value[::-1], value[:0], 2 * value]
    return []


def comparison(source: str, mutant: str, name: str) -> str:
    """A program whose function `same(arguments)` says whether both programs do the same with them, errors included."""
    return f"""
import copy
programs = []
for source in ({source!r}, {mutant!r}):
    names = {{"__name__": "program"}}
    exec(source, names)
    programs.append(names[{name!r}])

def outcome(function, arguments):
    try:
        return "value", function(*copy.deepcopy(arguments))
    except Exception as error:
        return "raised", type(error).__name__

def same(arguments):
    first, second = (outcome(function, arguments) for function in programs)
    return repr(first) == repr(second) or first == second
"""
