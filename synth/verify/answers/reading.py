"""An answer as a value: its plain text, its number with a unit, or the several answers that it names.

`\\text{18 eggs}`, `$18`, `18.00`, `x = 18` and `eighteen` are all 18; `\\{3, 7\\}`, `x = 3 or x = 7` and `\\pm 2` name
several. What is neither stays a text, for the symbolic tier. Lengths are bounded, patterns are linear, and nothing
larger than `number.DIGITS` is computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from gristmill.synth.verify.answers.final import LONGEST_ANSWER, trimmed
from gristmill.synth.verify.answers.number import Number, number
from gristmill.synth.verify.answers.units import SHORT, Unit, unit

_REPLACED = (
    ("−", "-"), ("–", "-"), (r",\! ", ","), (r"\left", ""), (r"\right", ""), (r"\!", ""), (r"\,", " "), (r"\;", " "),
    (r"\:", " "), (r"\ ", " "), ("~", " "), (r"\displaystyle", ""), (r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"),
    (r"\cfrac", r"\frac"), (r"^{\circ}", " degrees"), (r"^\circ", " degrees"), ("°", " degrees"),
    (r"\%", "%"), (r"\$", "$"), ("{,}", ","), (r"\approx", "≈"),
)  # fmt: skip
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname|rm)[ ]?\{([^{}]*)\}")
_ASSIGNED = re.compile(r"^[a-z](?:_\{?\w{1,3}\}?)?(?:\([a-z]\))?\s?(?:=|\\in\b)\s?", re.IGNORECASE)
_ABOUT = re.compile(r"^(?:≈|approximately|about|approx\.?|roughly|exactly|only|=)\s?")
_CURRENCY = re.compile(r"^(-?)\s?(?:us)?([$£€¥₹])\s?")
_RATIONAL = re.compile(r"^(-?)\s?(\d{1,20}) (\d{1,20})/(\d{1,20})$")
_NUMERIC = re.compile(r"(?:\\(?:frac|times|cdot|div|ast)|[\d\s.,+\-*×·÷/^%(){}$])+")
_WORDS = re.compile(r"^[^\W\d_][^\d\\{}()=<>+*]*(?:\^\{?[23]\}?)?[^\d\\{}()=<>+*]*$|^$")
_TURNS = """not no never less more than least most over under between cannot if minus negative half twice except without
wrong incorrect false n't isn't double triple above below up"""
_FUNCTION_NAMES = "pi sin cos tan cot sec log ln exp sqrt mod theta alpha beta inf infinity e i x y z n k"
_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
_TURNING = frozenset(_TURNS.split())
"""Words that make a sentence with one number say something else than the number."""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_NUMERALS = {word: value for value, word in enumerate(_COUNTED.split())}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_OR = re.compile(r"\s(?:or|oder|ou|o)\s|\s?\\(?:lor|vee)\s?|或", re.IGNORECASE)
_AND = re.compile(r"\s?(?:;|\band\b|,(?!\d{3}(?!\d)))\s?|[、和]", re.IGNORECASE)
_MATHS = re.compile(r"[\d\\]|^\s*[a-zA-Z]\s*$")
MOST = 50
"""Answers that an answer may name."""


@dataclass(frozen=True)
class Reading:
    """`plain`: the text without its typesetting. `number`, `unit`: if it is one number.

    `several`: the answers it names, if they are more than one.
    """

    plain: str
    number: Number | None = None
    unit: Unit | None = None
    several: tuple[Reading, ...] = ()

    @property
    def folded(self) -> str:
        """The plain text in lower case, as texts are compared."""
        return self.plain.casefold()

    @property
    def key(self) -> object:
        """Equal of answers that are the same number, the same set, or the same text: what votes are counted by."""
        if self.several:
            return frozenset(part.key for part in self.several)
        return self.folded if self.number is None else self.number.value


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """An answer of at most LONGEST_ANSWER characters; a longer one is read as its plain text alone."""
    plain = unset(trimmed(text))
    if len(plain) > LONGEST_ANSWER:
        return Reading(plain)
    parts = alternatives(plain)
    if len(parts) > 1:
        distinct = {part.key: part for part in map(_single, parts)}
        if len(distinct) > 1:
            return Reading(plain, several=tuple(distinct.values()))
        return next(iter(distinct.values()))
    return _single(plain)


def unset(text: str) -> str:
    """A text without LaTeX's spacing, sizes and text commands, blanks single."""
    text = text[: 4 * LONGEST_ANSWER]
    for _ in range(3):  # \text{} in \textbf{}
        text, changes = _TEXT.subn(r" \1 ", text)
        if not changes:
            break
    for old, new in _REPLACED:
        text = text.replace(old, new)
    return " ".join(text.split()).strip(" ;").rstrip(".")


def alternatives(plain: str) -> list[str]:
    """The answers that a text names side by side (`x = 3 or x = 7`, `\\{3, 7\\}`, `\\pm 2`); else the text alone.

    Commas in brackets part nothing, so a point or an interval is a single answer.
    """
    inner = plain[2:-2].strip() if plain.startswith(r"\{") and plain.endswith(r"\}") and "|" not in plain else plain
    parts = [part.strip() for part in _OR.split(inner)]
    if not all(map(_MATHS.search, parts)):
        parts = [inner]
    parts = [piece for part in parts for piece in _listed(part)]
    signed = []
    for part in parts:
        for sign in ("+", "-") if part.count(r"\pm") + part.count("±") == 1 else ("",):
            signed.append(part.replace(r"\pm", sign).replace("±", sign) if sign else part)
    return signed if len(signed) <= MOST else [plain]


def _listed(part: str) -> list[str]:
    """The items of a list, if every item has something of mathematics in it, and no comma stands in brackets."""
    depth = 0
    for sign in part:
        depth += (sign in "([{") - (sign in ")]}")
        if depth and sign in ",;":
            return [part]
    items = [item.strip() for item in _AND.split(part)]
    return items if len(items) > 1 and all(map(_MATHS.search, items)) else [part]


def _single(plain: str) -> Reading:
    assigned = _ASSIGNED.sub("", plain)
    text = _ABOUT.sub("", assigned.casefold()).strip()
    if "=" in text:  # 3 * 6 = 18: the last side is the answer
        *sides, last = (side.strip() for side in text.split("="))
        if all(number(side.replace("$", "")) for side in sides):
            text = last
    value, words = _number_and_words(text)
    return Reading(assigned, value, None if value is None else unit(words))


def _number_and_words(text: str) -> tuple[Number | None, str]:
    """The number of a text and the words behind it; (None, ""): there is no number, or more than it."""
    if text in _NUMERALS:
        return Number(Fraction(_NUMERALS[text]), 0), ""
    mixed = _RATIONAL.match(text)
    if mixed and int(mixed[4]):
        amount = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return Number(-amount if mixed[1] else amount, None), ""
    currency = _CURRENCY.match(text)
    if currency:
        text = currency[1] + text[currency.end() :]
    match = _NUMERIC.search(text)
    while match and not any(map(str.isdigit, match[0])):
        match = _NUMERIC.search(text, match.end())
    if match is None:
        return None, ""
    before, after = text[: match.start()].strip(), text[match.end() :].strip()
    value = number(match[0].strip(" ,").rstrip("."))
    if value is None or not _WORDS.match(before) or not _WORDS.match(after):
        return None, ""
    if {*before.split()} & _TURNING or _is_symbol(after, glued=not match[0].endswith(" ")) or before in _FUNCTIONS:
        return None, ""
    first, _, rest = after.partition(" ")
    if first in _SCALES:
        value, after = Number(value.value * _SCALES[first], None), rest
    elif first in ("percent", "per") and after.startswith(("percent", "per cent")):
        value = Number(value.value / 100, None, True)
    return value, "$" if currency and currency[2] == "$" and not after else after


def _is_symbol(words: str, glued: bool) -> bool:
    """Whether what stands behind a number is a factor (`4a`, `3s^2`, `2 sin x`) rather than a unit."""
    first = re.split(r"[ ^.,/]", words, maxsplit=1)[0]
    if len(first) == 1 and first.isalpha():
        return glued or first not in SHORT
    return first in _FUNCTIONS
