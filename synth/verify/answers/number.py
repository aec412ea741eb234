"""Arithmetic as models write it, evaluated exactly and never for long: `1,234.5`, `\\frac{3}{8}`, `2 \\cdot 10^3`.

A text becomes tokens in one pass, tokens become a Fraction in one pass; both are bounded: so many characters, so many
digits a number, so deep. A power is computed only if its result has few digits, so `10^10^10` is None at once. None is
"not arithmetic that this reads", never a guess. Percent is a hundredth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 400
"""Characters of an expression."""
DIGITS = 80
"""Digits of a number, read or computed; a fraction may have as many above and below its line."""
DEEPEST = 12
_LIMIT = 10**DIGITS

ARITHMETIC = (
    r"(?P<number>\d{1,3}(?:(?:,|\\,|\{,\}|,\\!|\\!,)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<frac>\\[dtc]?frac)"
    r"|(?P<power>\^|\*\*)"
    r"|(?P<times>\\times|\\cdot|\\ast|[×·∗*]|(?<=\d)[xX](?=\d)|(?<=[\s)])[xX](?=\s*[\d$.]))"  # but no variable's x
    r"|(?P<over>\\div|[÷/])"
    r"|(?P<plus>\+)|(?P<minus>[-−–])"
    r"|(?P<percent>\\?%)"
    r"|(?P<open>\\left\(|[(\[]|\\left\[)|(?P<close>\\right\)|[)\]]|\\right\])"
    r"|(?P<braceopen>\{)|(?P<braceclose>\})"
    r"|(?P<blank>\s+|\\[,;:! ]|\\\\|~|\$)"
)
_TOKEN = re.compile(ARITHMETIC)


class NoNumber(Exception):
    """The text is no arithmetic, or more than is computed."""


@dataclass(frozen=True)
class Number:
    """`value`; `decimals`: places of a single decimal, None of anything computed; `percent`: it had the sign."""

    value: Fraction
    decimals: int | None
    percent: bool = False


@dataclass(frozen=True)
class Token:
    """A piece of arithmetic. `kind`: the group of the pattern; `start`, `end`: characters of the text."""

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The arithmetic of a text of at most LONGEST characters, blanks and dollars left out. Raises NoNumber."""
    if len(text) > LONGEST:
        raise NoNumber
    items, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise NoNumber
        if match.lastgroup != "blank":
            items.append(Token(match.lastgroup, match[0], at, match.end()))
        at = match.end()
    return items


def number(text: str) -> Number | None:
    """The value of an arithmetic expression; None: it is none, or exceeds the bounds."""
    try:
        return evaluate(tokens(text))
    except NoNumber:
        return None


def evaluate(items: list[Token]) -> Number:
    """The value of tokens. Raises NoNumber."""
    reader = _Reader(items)
    value = reader.sum(0)
    if reader.at != len(items):
        raise NoNumber
    return Number(value, _decimals(items), items[-1].kind == "percent")


def _decimals(items: list[Token]) -> int | None:
    """Places of a decimal that is alone but for its sign."""
    bare = [item for item in items if item.kind not in ("plus", "minus", "percent")]
    if len(bare) != 1 or bare[0].kind != "number":
        return None
    places = len(bare[0].text.partition(".")[2])
    return places + 2 if items[-1].kind == "percent" else places


def bounded(value: Fraction) -> Fraction:
    """The value, if it has no more than DIGITS digits. Raises NoNumber."""
    if abs(value.numerator) > _LIMIT or value.denominator > _LIMIT:
        raise NoNumber
    return value


class _Reader:
    """Sum, product, power, atom: one look ahead, every token read once."""

    def __init__(self, items: list[Token]) -> None:
        self.items, self.at = items, 0

    def peek(self) -> str:
        return self.items[self.at].kind if self.at < len(self.items) else ""

    def take(self, kind: str) -> Token:
        if self.peek() != kind:
            raise NoNumber
        self.at += 1
        return self.items[self.at - 1]

    def sum(self, depth: int) -> Fraction:
        total = self.product(depth)
        while self.peek() in ("plus", "minus"):
            sign = 1 if self.take(self.peek()).kind == "plus" else -1
            total = bounded(total + sign * self.product(depth))
        return total

    def product(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while True:
            kind = self.peek()
            if kind == "times":
                self.take(kind)
                value = bounded(value * self.signed(depth))
            elif kind == "over":
                self.take(kind)
                value = self.ratio(value, self.signed(depth))
            elif kind == "open":  # 2(3)
                value = bounded(value * self.power(depth))
            else:
                return value

    @staticmethod
    def ratio(above: Fraction, below: Fraction) -> Fraction:
        if not below:
            raise NoNumber
        return bounded(above / below)

    def signed(self, depth: int) -> Fraction:
        sign = 1
        while self.peek() in ("plus", "minus"):
            sign *= 1 if self.take(self.peek()).kind == "plus" else -1
        return sign * self.power(depth)

    def power(self, depth: int) -> Fraction:
        base = self.atom(depth)
        while self.peek() == "percent":
            self.take("percent")
            base = base / 100
        if self.peek() != "power":
            return base
        self.take("power")
        if self.peek() == "minus":
            self.take("minus")
            exponent = -self.atom(depth)
        else:
            exponent = self.atom(depth)
        if self.peek() == "power":  # right-associative towers are beyond what chains compute
            raise NoNumber
        return self.raised(base, exponent)

    @staticmethod
    def raised(base: Fraction, exponent: Fraction) -> Fraction:
        """A power whose size is known before it is computed."""
        if exponent.denominator != 1 or (not base and exponent <= 0):
            raise NoNumber
        bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
        if abs(exponent) * (bits - 1) > DIGITS * 4 or abs(exponent) > 1000:
            raise NoNumber
        return bounded(base ** int(exponent))

    def atom(self, depth: int) -> Fraction:
        if depth >= DEEPEST:
            raise NoNumber
        kind = self.peek()
        if kind == "number":
            text = self.take(kind).text
            mixed = self.peek() == "frac" and "." not in text  # 1\\frac12
            return bounded(_value(text) + self.atom(depth + 1)) if mixed else _value(text)
        if kind == "frac":
            self.take(kind)
            return self.ratio(self.braced(depth + 1), self.braced(depth + 1))
        if kind in ("open", "braceopen"):
            self.take(kind)
            value = self.sum(depth + 1)
            self.take("close" if kind == "open" else "braceclose")
            return value
        raise NoNumber

    def braced(self, depth: int) -> Fraction:
        """An argument of `\\frac`: in braces, or a single digit, as in `\\frac12`."""
        if self.peek() == "number":
            token = self.items[self.at]
            if len(token.text) > 1 and token.text.isdigit():
                rest = Token("number", token.text[1:], token.start + 1, token.end)
                self.items = [*self.items[: self.at], rest, *self.items[self.at + 1 :]]
                return _value(token.text[0])
            return _value(self.take("number").text)
        if self.peek() != "braceopen":
            raise NoNumber
        return self.atom(depth)


def _value(text: str) -> Fraction:
    digits = re.sub(r"[^\d.]", "", text)
    if len(digits) > DIGITS:
        raise NoNumber
    return Fraction(digits if not digits.startswith(".") else "0" + digits)
