"""Arithmetic as steps of solutions write it, `(20 + 7) * 2`: read once, computed exactly with other numbers in it.

Precedence climbing over four operations and brackets; anything else is no expression. Nothing is large: an expression
has a hundred characters, and no powers.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

_TOKEN = re.compile(r"\s*(?:(\d{1,15}(?:\.\d{1,9})?|\.\d{1,9})|([-+*/x×÷()]))")
_SIGNS = {"x": "*", "×": "*", "÷": "/"}
_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}
_OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_DEEPEST = 20


class BadExpression(Exception):
    """A text that is no arithmetic."""


@dataclass(frozen=True)
class Expression:
    """`tokens` as they are written; `numbers`: those among them, in order, by which others are put in."""

    tokens: tuple[str, ...]
    numbers: tuple[Fraction, ...]

    def value(self, others: Mapping[int, Fraction]) -> Fraction:
        """What it comes to. `others`: number of a number, from 0 -> what stands in its place. Raises BadExpression,
        ZeroDivisionError."""
        reader = _Reader(self, others)
        value = reader.term(0, 0)
        if reader.at < len(self.tokens):
            raise BadExpression(" ".join(self.tokens))
        return value

    def written(self, others: Mapping[int, Fraction]) -> str:
        """As a text, with other numbers in it."""
        parts, count = [], 0
        for token in self.tokens:
            if token in _STRENGTH or token in "()":
                parts.append(token)
                continue
            parts.append(plain(others[count]) if count in others else token)
            count += 1
        return " ".join(parts).replace("( ", "(").replace(" )", ")")


def parsed(text: str) -> Expression:
    """The expression of a text. Raises BadExpression."""
    tokens: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadExpression(text)
        tokens.append(match[1] or _SIGNS.get(match[2], match[2]))
        at = match.end()
    numbers = tuple(Fraction(token) for token in tokens if token not in _STRENGTH and token not in "()")
    expression = Expression(tuple(tokens), numbers)
    expression.value({0: Fraction(1)} if not numbers else {})
    return expression


def plain(value: Fraction) -> str:
    """A number as steps write it: `12`, `0.75`."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.9f}".rstrip("0")


class _Reader:
    def __init__(self, expression: Expression, others: Mapping[int, Fraction]) -> None:
        self.expression, self.others = expression, others
        self.at = self.count = 0

    def term(self, weakest: int, depth: int) -> Fraction:
        """A term of operations that bind more strongly than `weakest`."""
        left = self.operand(depth)
        while (sign := self._next()) in _STRENGTH and _STRENGTH[sign] > weakest:
            self.at += 1
            left = _OPERATIONS[sign](left, self.term(_STRENGTH[sign], depth))
        return left

    def operand(self, depth: int) -> Fraction:
        """A number, or what stands in brackets."""
        token = self._next()
        self.at += 1
        if token == "(" and depth < _DEEPEST:
            value = self.term(0, depth + 1)
            if self._next() != ")":
                raise BadExpression("a bracket is open")
            self.at += 1
            return value
        if not token or token in _STRENGTH or token in "()":
            raise BadExpression(f"{token!r} in place of a number")
        number = self.count
        self.count += 1
        return self.others.get(number, self.expression.numbers[number])

    def _next(self) -> str:
        tokens = self.expression.tokens
        return tokens[self.at] if self.at < len(tokens) else ""
