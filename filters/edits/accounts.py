"""Numbers that carry their own proof: payment cards and IBANs, told from other digits by check digits and lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator

_BLANK = "[ \u00a0\u202f-]"
_CARD = re.compile(rf"\d(?:{_BLANK}?\d){{12,}}(?![\w@]|[.,/:-]\d)")
_NOT_BEFORE_CARD = re.compile(r"[\w.,/=#&$€£@+:-]")
_CARD_GROUPS = frozenset(
    [(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 3, 3, 3), *((n,) for n in range(14, 20))]
)
_ISSUERS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (4, 4, (13, 16, 19)),  # Visa
    (51, 55, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (34, 34, (15,)),  # American Express
    (37, 37, (15,)),
    (300, 305, (14, 16, 19)),  # Diners Club
    (36, 36, (14, 16, 19)),
    (38, 39, (14, 16, 19)),
    (6011, 6011, (16, 17, 18, 19)),  # Discover
    (644, 659, (16, 17, 18, 19)),
    (3528, 3589, (16, 17, 18, 19)),  # JCB
    (62, 62, (16, 17, 18, 19)),  # UnionPay
    (5018, 5018, (16, 18, 19)),  # Maestro
    (5020, 5020, (16, 18, 19)),
    (5038, 5038, (16, 18, 19)),
    (6759, 6763, (16, 18, 19)),
)
"""First and last prefix, and lengths: ISO/IEC 7812 issuers as their own documentation for merchants has them."""
_IBAN = re.compile(r"[A-Z]{2}\d{2}(?=[\s\u00a0-]?[0-9A-Z])")
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ DZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
"""ISO 3166 country -> characters: the IBAN registry of SWIFT, release 99 (December 2024), without countries that use it
for trial."""

Span = tuple[int, int]
"""First character and one behind the last."""


def luhn(number: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812-1, annex B; other characters do not count."""
    digits = [int(char) for char in number if char.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards: grouped as on cards or not at all, of an issuer, with its length and check digit."""
    for match in _CARD.finditer(text):
        if match.start() and _NOT_BEFORE_CARD.match(text, match.start() - 1):
            continue
        groups = re.split(_BLANK, match[0])
        if tuple(map(len, groups)) in _CARD_GROUPS and _is_issued("".join(groups)) and luhn(match[0]):
            yield match.span()


def _is_issued(digits: str) -> bool:
    """Whether an issuer has numbers that begin so and have this length."""
    return any(
        first <= int(digits[: len(str(first))]) <= last and len(digits) in lengths for first, last, lengths in _ISSUERS
    )


def ibans(text: str) -> Iterator[Span]:
    """IBANs: of a country, with its length, and a remainder of 1 by 97 (ISO 13616). Single blanks may divide them."""
    for match in _IBAN.finditer(text):
        if match.start() and text[match.start() - 1].isalnum() and text[match.start() - 1].isascii():
            continue
        length = _IBAN_LENGTHS.get(text[match.start() : match.start() + 2])
        end = length and _end_of(text, match.start(), length)
        if end and _remainder(text[match.start() : end]) == 1:
            yield match.start(), end


def _end_of(text: str, at: int, length: int) -> int | None:
    """Behind so many letters and digits with single blanks between them; None where they are fewer, or more follow."""
    left, blank = length, False
    while left and at < len(text):
        char = text[at]
        if char.isascii() and char.isalnum():
            left, blank = left - 1, False
        elif not blank and (char.isspace() or char == "-"):
            blank = True
        else:
            return None
        at += 1
    follows = text[at : at + 1]
    return None if left or (follows.isascii() and follows.isalnum()) else at


def _remainder(iban: str) -> int:
    kept = "".join(char for char in iban if char.isalnum())
    return int("".join(str(int(char, 36)) for char in kept[4:] + kept[:4])) % 97
