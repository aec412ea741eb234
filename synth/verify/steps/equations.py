"""Equations between numbers in running text: `she has 16 - 3 - 4 = 9 eggs left`, `20 + 7 = 27 ;`, `<<9*2=18>>`.

Found in one pass: a text becomes tokens, tokens between separators become a run, and each `=` of a run takes what is
arithmetic on its two sides; words behind a number are its unit. Where a side may mean more than its numbers say (a
variable, a root, "twice", units that are mixed), there is no equation: what is reported as false has to be false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from gristmill.synth.verify.answers.number import ARITHMETIC, NoNumber, Number, Token, evaluate
from gristmill.synth.verify.answers.units import Unit, unit
from gristmill.synth.verify.steps.sides import OPERATORS, beginning, ending, joins

LONGEST_RUN = 200
"""Tokens between separators; of a longer run nothing is checked."""
_PIECE = re.compile(
    r"(?P<note><<[^<>\n]{1,200}>>)"
    r"|(?P<gap>[ \t\r]+|&)"
    r"|(?P<dots>\.\.+|…|\.\\(?:overline|dot|bar))"
    r"|(?P<separator>####|[\n;?\"“”]|[,:.](?!\d)|\\[()\[\]]|\\\\)"
    r"|(?P<textword>\\(?:text|mathrm|textbf|mbox)[ ]?\{[^{}\n]{0,100}\})"
    r"|(?P<equals>(?<![<>!=:≠])=(?!=))"
    rf"|{ARITHMETIC}"
    r"|(?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)"
    r"|(?P<other>\\[a-zA-Z]+|.)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Equation:
    """`text`, `at`: as it stands in the chain, and the character it begins at. `left`, `right`: readings of its sides.

    A side has several readings where percent may be a hundredth or a unit, and where words may end it.
    """

    text: str
    at: int
    left: tuple[Number, ...]
    right: tuple[Number, ...]


def equations(text: str) -> Iterator[Equation]:
    """The equations of a text, in order; linear in its length."""
    run: list[Token] = []
    for match in _PIECE.finditer(text):
        kind = match.lastgroup or "other"
        if kind == "separator" and not (match[0] == "\n" and run and run[-1].kind in OPERATORS):
            yield from _in_run(text, run)
            run = []
        elif kind == "note":
            yield from _in_run(text, list(_tokens(text, match.start() + 2, match.end() - 2)))
        elif kind not in ("gap", "blank", "separator"):
            run.append(_token(kind, match))
    yield from _in_run(text, run)


def _tokens(text: str, start: int, end: int) -> Iterator[Token]:
    for match in _PIECE.finditer(text, start, end):
        if match.lastgroup not in ("gap", "blank"):
            yield _token(match.lastgroup or "other", match)


def _token(kind: str, match: re.Match[str]) -> Token:
    if kind == "textword":
        return Token("word", match[0].partition("{")[2][:-1].strip() or "-", match.start(), match.end())
    return Token(kind, match[0], match.start(), match.end())


def _in_run(text: str, run: list[Token]) -> Iterator[Equation]:
    """The equations of tokens between separators."""
    if len(run) > LONGEST_RUN or not any(token.kind == "equals" for token in run):
        return
    sides: list[list[Token]] = [[]]
    for token in run:
        if token.kind == "equals":
            sides.append([])
        else:
            sides[-1].append(token)
    for number, (left, right) in enumerate(pairwise(sides)):
        if number and any(token.kind == "word" and joins(token) for token in left):
            continue
        first, second = ending(left, whole=number > 0), beginning(right)
        if first is None or second is None:
            continue
        computes = any(token.kind in OPERATORS for token in first[1:]) or first[0].kind == "frac"
        if number == 0 and not computes:
            continue  # `Day 3 = 5`, `n = 5`
        equation = _equation(text, first, second, left + right)
        if equation is not None:
            yield equation


def _equation(text: str, first: list[Token], second: list[Token], around: list[Token]) -> Equation | None:
    left, right = _readings(first), _readings(second)
    if not left or not right:
        return None
    dimensions = [known.dimension for known in _units(text, around)]
    if len(dimensions) > len(set(dimensions)):
        return None  # 2 hours and 120 minutes: the numbers alone say nothing
    start, end = first[0].start, second[-1].end
    return Equation(text[start:end], start, left, right)


def _units(text: str, tokens: list[Token]) -> set[Unit]:
    words = [token.text.casefold() for token in tokens if token.kind == "word"]
    if any("$" in text[max(0, token.start - 1) : token.start] for token in tokens if token.kind == "number"):
        words.append("dollar")
    return {known for word in words if (known := unit(word)) is not None}


def _readings(tokens: list[Token]) -> tuple[Number, ...]:
    """What tokens may be worth.

    As they stand; without signs of percent; with a mark of a list, or a dash, in place of a first minus; and with
    fractions that are written tightly in a loose product taken first: `3 / 1/4`.
    """
    readings = []
    variants = [tokens, [token for token in tokens if token.kind != "percent"], _tight(tokens)]
    if tokens[0].kind == "minus":
        variants.append(tokens[1:])
    for kept in variants:
        try:
            readings.append(evaluate(kept))
        except NoNumber:
            continue
    return tuple(dict.fromkeys(readings))


def _no_gaps(tokens: list[Token]) -> bool:
    return all(token.end == behind.start for token, behind in pairwise(tokens))


def _tight(tokens: list[Token]) -> list[Token]:
    """Tokens with brackets around every `1/4` that has no blanks in it and stands behind a division."""
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        three = tokens[at : at + 3]
        kinds = [token.kind for token in three]
        tight = kinds == ["number", "over", "number"] and _no_gaps(three)
        if tight and kept and kept[-1].kind == "over":
            kept += [Token("open", "(", at, at), *three, Token("close", ")", at, at)]
            at += 3
        else:
            kept.append(tokens[at])
            at += 1
    return kept
