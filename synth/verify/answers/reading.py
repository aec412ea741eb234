"""An answer as a value: its plain text, its number with a unit, or the several answers that it names.

`\\text{18 eggs}`, `$18`, `18.00`, `x = 18` and `eighteen` are all 18; `\\{3, 7\\}`, `x = 3 or x = 7` and `\\pm 2` name
several. What is neither stays a text, for the symbolic tier. Lengths are bounded, patterns are linear, and nothing
larger than `number.DIGITS` is computed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from gristmill.synth.verify.answers.final import LONGEST_ANSWER, trimmed
from gristmill.synth.verify.answers.number import Number, number
from gristmill.synth.verify.answers.numerals import numeral
from gristmill.synth.verify.answers.units import SHORT, Unit, unit

_REPLACED = (
    ("−", "-"), ("–", "-"), (r",\! ", ","), (r"\left", ""), (r"\right", ""), (r"\!", ""), (r"\,", " "), (r"\;", " "),
    (r"\:", " "), (r"\ ", " "), ("~", " "), (r"\displaystyle", ""), (r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"),
    (r"\cfrac", r"\frac"), (r"^{\circ}", " degrees "), (r"^\circ", " degrees "), ("°", " degrees "),
    (r"\%", "%"), (r"\$", "$"), ("{,}", ","), (r"\approx", "≈"), ("‐", "-"), ("‑", "-"), ("﹣", "-"), ("－", "-"),
    ("—", "-"), ("¢", " cents "), (r"\varnothing", r"\emptyset"), ("∅", r"\emptyset"), ("\u00a0", " "),
    ("\u202f", " "), ("\u2009", " "),
)  # fmt: skip
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname|rm|underline|textcolor\{[a-z]+\})[ ]?\{([^{}]*)\}"
)
_ASSIGNED = re.compile(r"^([a-z])((?:_\{?\w{1,3}\}?)?(?:\([a-z]\))?)\s?(?:=|\\in\b)\s?", re.IGNORECASE)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile("(?<=[\\w)])[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_NOON = re.compile(r"(?<=[\d ])([ap])\.m\b\.?", re.IGNORECASE)
_PART = re.compile("[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?: \d{3})+|(?:_\d{3})+|(?:\.\d{3}){2,})(?!\d|[.,]\d|[ _]\d)")
"""A number whose digits stand in groups of three: no list has blanks alone between its items."""
_EXPONENT = re.compile(r"(?<=\d)e([-+]?\d{1,3})(?!\w)", re.IGNORECASE)
_TIMES_TEN = re.compile(r"(?<=\d) ?[x×] ?(?=10 ?\^)", re.IGNORECASE)
_BASED = re.compile(r"^([0-9a-z]{1,80}) ?_ ?\{? ?(\d{1,2}) ?\}?$", re.IGNORECASE)
_ABOUT = re.compile(r"^(?:≈|approximately|about|approx\.?|roughly|exactly|only|=)\s?")
_CURRENCY = re.compile(r"^(-?)\s?(?:us)?([$£€¥₹])\s?")
_RATIONAL = re.compile(r"^(-?)\s?(\d{1,20}) (?:and )?(\d{1,20})/(\d{1,20})$")
_NUMERIC = re.compile(r"(?:\\(?:frac|times|cdot|div|ast)|[\d\s.,+\-*×·÷/^%(){}$])+")
_WORDS = re.compile(r"^[^\W\d_∞π][^\d\\{}()=<>+*≠≤≥∞‰√|!]*(?:\^\{?[23]\}?)?[^\d\\{}()=<>+*≠≤≥∞‰√|!]*$|^$")
_TURNS = """not no never less more than least most over under between cannot if minus negative half twice except without
wrong incorrect false n't isn't double triple above below up almost nearly but unknown root square cube reciprocal
inverse opposite multiple power third fourth quarter fifth sixth seventh eighth ninth tenth"""
_TURN_BEHIND = """or if unless wrong incorrect false not squared cubed factorial remainder mod modulo choose maybe
mille"""
_SCALED_BY = """score gross tenth tenths hundredth hundredths thousandth thousandths half halves third thirds fourth
fourths quarter quarters fifth fifths sixths eighths"""
_MONTHS = """january february march april may june july august september october november december"""
_FUNCTION_NAMES = """pi sin cos tan cot sec csc log ln lg exp sqrt root mod arcsin arccos arctan asin acos atan sinh
cosh tanh arg det theta alpha beta gamma inf infinity e i x y z n k π"""
_CODES = frozenset(("rs", "usd", "eur", "gbp", "us", "no"))
"""What may stand before a number without a blank: Rs5."""
_TURNING_BEHIND = frozenset(_TURN_BEHIND.split())
_BESIDE = frozenset((*_SCALED_BY.split(), *_MONTHS.split()))
"""Words that do so right behind a number; months right before it as well."""
_VARIABLES = frozenset("xyznk")
_TURNING = frozenset(_TURNS.split())
"""Words that make a sentence with one number say something else than the number."""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_OR = re.compile(r"\s(?:or|oder|ou|o)\s|\s?\\(?:lor|vee)\s?|或", re.IGNORECASE)
_AND = re.compile(r"\s?(?:, ?and\b|;|\band\b|,(?!\d{3}(?!\d)))\s?|[、和]", re.IGNORECASE)
_MATHS = re.compile(r"[\d\\]|^\s*[a-zA-Z]\s*$")
MOST = 50
"""Answers that an answer may name."""


@dataclass(frozen=True)
class Reading:
    """`plain`: the text without its typesetting. `number`, `unit`: if it is one number; `name`: the variable that is
    said to be it; `digits`: of a number in another base than ten, and the base.

    `several`: the answers it names, if they are more than one; what a list names twice stands there twice.
    """

    plain: str
    number: Number | None = None
    unit: Unit | None = None
    several: tuple[Reading, ...] = ()
    name: str = ""
    digits: tuple[str, int] | None = None

    @property
    def folded(self) -> str:
        """The plain text in lower case, as texts are compared."""
        return self.plain.casefold()

    @property
    def key(self) -> object:
        """Equal of answers that are the same number, the same set, or the same text: what votes are counted by."""
        if self.several:
            return frozenset(Counter(part.key for part in self.several).items())
        return self.folded if self.number is None else self.number.value


@lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """An answer of at most LONGEST_ANSWER characters; a longer one is read as its plain text alone."""
    plain = unset(trimmed(text))
    if len(plain) > LONGEST_ANSWER:
        return Reading(plain)
    parts = [plain] if _RATIONAL.match(plain) else alternatives(plain)
    if len(parts) > 1:
        distinct = {part.key: part for part in map(_single, parts)}
        if len(distinct) > 1:
            is_list = not plain.startswith(r"\{") and not _OR.search(plain)
            named = tuple(map(_single, parts)) if is_list else tuple(distinct.values())
            return Reading(plain, several=named)
        return next(iter(distinct.values()))
    return _single(plain)


def unset(text: str) -> str:
    """A text without LaTeX's spacing, sizes and text commands, blanks single."""
    text = text[: 4 * LONGEST_ANSWER]
    for _ in range(3):  # \text{} in \textbf{}
        text, changes = _TEXT.subn(r" \1 ", text)
        if not changes:
            break
    text = _SUPERSCRIPT.sub(lambda match: f"^{{{match[0].translate(_RAISED)}}}", text)
    text = _NOON.sub(r"\1m", text)
    text = _PART.sub(lambda match: f" {Fraction(unicodedata.numeric(match[0])).limit_denominator(9)}", text)
    text = text.replace(r"\\ ", r"\\")  # a row of a matrix ends, and no blank is set
    for old, new in _REPLACED:
        text = text.replace(old, new)
    text = " ".join(text.split()).strip(" ;").rstrip(".")
    return _SPACED.sub(lambda match: re.sub("[ _.]", "", match[0]), text)


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
    digits = _in_base(plain)
    if digits is not None:
        return Reading(plain, digits=digits)
    match = _ASSIGNED.match(plain)
    assigned = plain[match.end() :] if match else plain
    name = match[1].casefold() if match and not match[2] else ""
    text = _ABOUT.sub("", assigned.casefold()).strip()
    if "=" in text:  # 3 * 6 = 18: the last side is the answer
        *sides, last = (number(side.strip().replace("$", "")) for side in text.split("="))
        if last is not None and all(side is not None and _equal(side, last) for side in sides):
            text = text.rpartition("=")[2].strip()
    value, words = _number_and_words(text)
    return Reading(assigned, value, None if value is None else unit(words), name=name)


def _in_base(plain: str) -> tuple[str, int] | None:
    """The digits of a number in another base than ten, and the base (`101_2`, `2F_{16}`); None: it is none (`x_2`)."""
    match = _BASED.match(plain)
    base = 0 if match is None else int(match[2])
    if match is None or not 2 <= base <= 36 or base == 10 or not any(map(str.isdigit, match[1])):
        return None
    valid = all(sign.isdigit() or ord(sign.casefold()) - ord("a") + 10 < base for sign in match[1])
    return (match[1].casefold(), base) if valid else None


def _equal(side: Number, last: Number) -> bool:
    """Whether a side is what is said to be its value, which may be rounded as it is written."""
    return abs(side.value - last.value) * 10 ** (last.decimals or 0) * 2 <= (1 if last.decimals else 0)


def _number_and_words(text: str) -> tuple[Number | None, str]:
    """The number of a text and the words behind it; (None, ""): there is no number, or more than it."""
    text = _TIMES_TEN.sub(" × ", _EXPONENT.sub(r" × 10^{\1}", text))
    signed = re.sub(r"^(?:minus|negative) (?=.)", "-", text)
    spelt = numeral(signed)
    if spelt is not None:
        if not _WORDS.match(spelt[1]) or _says_more("", spelt[1], glued=(False, False)):
            return None, ""
        return Number(spelt[0], 0 if spelt[0].denominator == 1 else None), spelt[1]
    if signed[1:2].isdigit():
        text = signed
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
    if _says_more(before, after, glued=(not match[0][0].isspace(), not match[0].endswith(" "))):
        return None, ""
    first, _, rest = after.partition(" ")
    if first in _SCALES:
        value, after = Number(value.value * _SCALES[first], None), rest
    elif first in ("percent", "per") and after.startswith(("percent", "per cent")):
        value = Number(value.value / 100, None, True)
    return value, currency[2] if currency and currency[2] in "$€" and not after else after


def _says_more(before: str, after: str, glued: tuple[bool, bool]) -> bool:
    """Whether the words around a number make it another one, or none. `glued`: without a blank between."""
    words, behind = (re.split(r"[ .,;:]+", text) for text in (before, after))
    if {*words} & _TURNING or {*behind} & _TURNING_BEHIND or {words[-1], behind[0]} & _BESIDE:
        return True
    return _is_symbol(after, glued[1]) or _is_function(before, glued[0])


def _is_function(words: str, glued: bool) -> bool:
    """Whether what stands before a number takes it as an argument (`log 5`, `f(5)`, `P5`)."""
    last = "".join(words.split()[-1:])
    is_letter = last[-1:].isalpha() and last[-1:] < "\u0500"  # of Latin or Greek
    return last in _FUNCTIONS or (glued and is_letter and last not in _CODES)


def _is_symbol(words: str, glued: bool) -> bool:
    """Whether what stands behind a number is a factor (`4a`, `3s^2`, `2 sin x`) rather than a unit."""
    first, *others = re.split(r"[ ^.,/]", words)
    if _VARIABLES & {*others}:
        return True  # 5 times x
    if len(first) == 1 and first.isalpha():
        return glued or first not in SHORT
    return first in _FUNCTIONS
