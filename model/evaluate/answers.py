"""Answers as values to compare: the last `#### N` of a worked solution, and which of lettered options is meant.

What was thought before an answer, between <think> and </think>, is no part of it. Numbers are equal as numbers, so
1,000 is 1000.0; other answers are equal as texts, but for case and blanks. A reading is one pass over a text.
Source: GSM8K's answers (arXiv 2110.14168) and lm-evaluation-harness's `gsm8k`: `#### (\\-?[0-9\\.\\,]+)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import NamedTuple

from gristmill.model.processing.chat.template import END_THINK

GSM8K = r"####\s*([-+]?\$?\d[\d,]*(?:\.\d+)?)"
"""The last line of a worked solution."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_OPTION = re.compile(r"\s*\(?([A-Z])[.):]\s+(\S.*)")


def spoken(text: str) -> str:
    """An answer without what was thought before it."""
    return text.rpartition(END_THINK)[2].strip()


@dataclass(frozen=True)
class Extraction:
    """`pattern`: a regular expression, whose last match is the answer: its first group, or all of it if it has none."""

    pattern: str = GSM8K

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern: {self.pattern!r} is no regular expression: {error}") from None

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def of(self, text: str) -> str | None:
        """The answer in a text; None: it has none."""
        last = None
        for match in self._compiled.finditer(text):
            last = match
        if last is None:
            return None
        return last[1] if self._compiled.groups else last[0]


def same_answer(answer: str, expected: str) -> bool:
    """Whether two answers are equal: as numbers if both are, else as texts."""
    numbers = _number(answer), _number(expected)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _plain(answer) == _plain(expected)


def _plain(answer: str) -> str:
    return " ".join(answer.split()).rstrip(".").casefold()


def _number(answer: str) -> Decimal | None:
    digits = answer.strip().replace(",", "").replace("$", "").rstrip(".")
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


class Choice(NamedTuple):
    """Options of a question as the answer would name them, and which of them is right."""

    options: tuple[str, ...]
    right: int


def choice_of(question: str, answer: str) -> Choice | None:
    """The options that a question lists line by line (`A. ...`, `(B) ...`), and the one that the answer is.

    An answer may be a letter, an option's text or its whole line, and all options are then written in that form. None:
    there are no options, or the answer is none of them. Of several lists the last one counts.
    """
    listed: list[tuple[str, str]] = []  # line, text
    for line in question.splitlines():
        match = _OPTION.fullmatch(line)
        letter = match[1] if match else None
        if match and letter == "A":
            listed = [(line.strip(), match[2].strip())]
        elif match and len(listed) < len(LETTERS) and letter == LETTERS[len(listed)] and listed:
            listed.append((line.strip(), match[2].strip()))
    if len(listed) < 2:
        return None
    letters, lines = tuple(LETTERS[: len(listed)]), tuple(line for line, _ in listed)
    for options in (letters, lines, tuple(text for _, text in listed)):
        named = [number for number, option in enumerate(options) if option == answer.strip()]
        if len(named) == 1:
            return Choice(options, named[0])
    return None
