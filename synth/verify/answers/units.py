"""Units that an answer may carry, and what each is in the base unit of its dimension.

A number with a unit equals a bare number of the same digits: gold answers often leave the unit to the question. Two
numbers with units of the table, or with powers and rates of these, are compared in the base unit, so `50 mm` is `5 cm`,
and neither `5 m` nor `5 cm^2` is. Words that are in no table (`18 eggs`) decide nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_TABLE = """
length m: mm millimeter millimetre 1/1000 | cm centimeter centimetre 1/100 | dm decimeter decimetre 1/10 \
| m meter metre 1 | km kilometer kilometre 1000 \
| inch 127/5000 | ft foot feet 381/1250 | yd yard 1143/1250 | mi mile 201168/125
mass g: mg milligram 1/1000 | g gram gramme 1 | kg kilogram 1000 | oz ounce 45359237/1600000 | lb pound 45359237/100000
time s: s sec second 1 | min minute 60 | h hr hour 3600 | day 86400 | week 604800
months month: month 1 | yr year 12 | decade 120 | century centuries 1200
volume l: ml milliliter millilitre 1/1000 | l liter litre 1
money dollar: cent ¢ 1/100 | dollar $ usd buck 1
euros euro: euro € eur 1
angle degree: degree deg ° 1
radians radian: radian rad 1
length/time m/s: mph 1397/3125 | kph kmh kmph 5/18
forenoon am: am 1
afternoon pm: pm 1
"""
_TEMPERATURES = {"c": "celsius", "celsius": "celsius", "f": "fahrenheit", "fahrenheit": "fahrenheit", "k": "kelvin"}


@dataclass(frozen=True)
class Unit:
    """`dimension`: such as `length`; `size`: in its base unit."""

    dimension: str
    size: Fraction


def _units() -> dict[str, Unit]:
    units = {}
    for line in _TABLE.strip().splitlines():
        head, _, entries = line.partition(":")
        for entry in entries.split("|"):
            *names, size = entry.split()
            for name in names:
                units[name] = Unit(head.split()[0], Fraction(size))
    return units


UNITS = _units()
SHORT = frozenset(name for name in UNITS if len(name) == 1 and name.isalpha())
"""Units of one letter, which glued to a number may as well be a variable."""


_BEHIND = re.compile(r"^(.*(?:[\d})\]]|\\pi)) ((?:[a-z]+(?: ?\^\{?[23]\}?)?)(?: [a-z]+)*)$", re.IGNORECASE)
_SET_AS_TEXT = re.compile(
    r"\\(?:text|textrm|mathrm|mbox|operatorname|rm)[ ]?\{\s*([a-z]+(?: [a-z]+)*)\s*\}[\^{}\d]{0,5}\W{0,4}$",
    re.IGNORECASE,
)
_COUNTED = frozenset(("unit", "units", "square", "cubic"))


def parted(plain: str, typeset: str) -> tuple[str, str]:
    """What is no number by itself (`2\\sqrt{3} cm^2`), and the unit behind it; "": there is none of the table.
    `typeset`: the same with its LaTeX, which tells the unit of `2\\pi\\text{ h}` from the variable of `2\\pi h`."""
    as_text = _SET_AS_TEXT.search(typeset)
    # Behind what is a variable too, where it is set as text: `x \\text{ cm}`.
    behind = (
        _BEHIND
        if as_text is None
        else re.compile(rf"^(.+) ({re.escape(as_text[1])}(?: ?\^\{{?[23]\}}?)?)$", re.IGNORECASE)
    )
    match = behind.match(plain)
    if match is None:
        return plain, ""
    first = match[2].split()[0].partition("^")[0].lower()
    is_known = unit(first) is not None and (first not in SHORT or as_text is not None)
    return (match[1], match[2].lower().replace(" ^", "^")) if first in _COUNTED or is_known else (plain, "")


def unit(words: str) -> Unit | None:
    """The unit that words behind a number begin with (`meters per lap`, `square cm`, `km/h`); None: none of the table,
    or a rate of something that is in none."""
    above, *below = _PER.split(words.strip(), maxsplit=1)
    over = _power(above)
    if over is None or not below:
        return over
    under = _power(below[0])
    if under is None or not under.size:
        return None
    return Unit(f"{over.dimension}/{under.dimension}", over.size / under.size)


def differ(gold: Unit, answer: Unit) -> bool:
    """Whether units measure something else; degrees alone may be of an angle or of any scale of temperature."""
    kinds = {gold.dimension, answer.dimension}
    return len(kinds) > 1 and not ("angle" in kinds and kinds & set(_TEMPERATURES.values()))


_PER = re.compile(r"\s*/\s*|\s+per\s+")
_POWERED = re.compile(
    r"(?:(square|sq|cubic|cu)\.? )?([^\W\d_]+|[$€¢°])\.?(?: ?\^ ?\{?([23])\}?| (squared|cubed))?", re.I
)
_POWERS = {"square": 2, "sq": 2, "squared": 2, "2": 2, "cubic": 3, "cu": 3, "cubed": 3, "3": 3}


def _power(words: str) -> Unit | None:
    """The unit, or its square or cube, that words begin with."""
    words = words.replace("²", "^2").replace("³", "^3")
    match = _POWERED.match(words)
    known = None if match is None else _named(match[2])
    if match is None or known is None:
        return None
    if known.dimension == "angle":
        scale = _TEMPERATURES.get("".join(words[match.end() :].split()[:1]).rstrip(".,").casefold())
        return known if scale is None else Unit(scale, Fraction(1))
    power = _POWERS.get((match[1] or match[3] or match[4] or "").casefold(), 1)
    return known if power == 1 else Unit(f"{known.dimension}^{power}", known.size**power)


def _named(name: str) -> Unit | None:
    for form in (name, name.removesuffix("s"), name.removesuffix("es")):
        if form in UNITS:
            return UNITS[form]
    return None
