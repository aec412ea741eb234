"""Programs with one small mistake each, to see whether a verifier notices: a constant, an operator, a condition.

A mutant that passes is either equivalent to the program or shows that its tests are weak; both are worth reading. The
order of mutants follows the program's text, so the same program has the same mutants.
Source: DeMillo, Lipton, Sayward 1978.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

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


def mutants(source: str) -> Iterator[Mutant]:
    """The mutants of a program, in the order of its text. Raises SyntaxError if it is none."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        if not hasattr(node, "lineno") or not _is_changeable(node):
            continue
        changed = copy.deepcopy(tree)
        target = next(other for at, other in enumerate(ast.walk(changed)) if at == number)
        before = ast.unparse(target)
        after = _change(target)
        yield Mutant(ast.unparse(ast.fix_missing_locations(changed)), f"line {node.lineno}: {before} became {after}")


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
