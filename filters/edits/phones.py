"""Telephone numbers: runs of digits that are written as such numbers are, or that a word announces as one.

A stretch of digits with separators is looked at once, and in it the forms below from left to right: with a country code
(ITU-T E.164), of North America, with the trunk prefix 0, of Brazil. Other numbers are taken where a word stands before
them (`Tel.`, `call`, `fax`) or another telephone number does. Dates, years, decimals, ISBNs and amounts are refused.
The measure of it all: benchmarks/pii_marks.jsonl.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gristmill.filters.edits.accounts import Span

_BLANK = " \u00a0\u202f\u200b"
_DASH = "\\-\u2010-\u2015"
_JOIN = rf"(?:[{_BLANK}][{_DASH}/.]?[{_BLANK}]?|[{_DASH}/.][{_BLANK}]?)"
"""A blank, a dash, slash or point, or one between blanks."""
_SEPARATOR = rf"(?:\)?{_JOIN}\(?|\)?\(|\))"
"""Between two groups of digits, never nothing: else digits could be divided in a number of ways without bound."""
_RUN = re.compile(rf"\d(?:[{_BLANK}()/.{_DASH}]{{0,3}}\d){{5,}}")
_EDGE = rf"(?<![0-9A-Za-z_=#&%$€£@/+])(?<!\d[.,:{_DASH}])(?<![A-Za-z]-)"
_END = r"(?!\d|[%€$£°]|[.,:]\d|[a-z_@=]|\ =)"
_FORMS = re.compile(
    rf"""{_EDGE}(?:
      (?P<american>(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d(?P<s>[-.]))[2-9]\d\d(?(s)(?P=s)|[-.\ ])\d{{4}})
    | (?P<abroad>(?<!\))\(?(?:\+\d{{1,15}}|(?<!\d[{_BLANK}])00[1-9]\d{{0,12}})(?:{_SEPARATOR}\d{{1,11}}){{0,8}}\)?)
    | (?P<trunk>(?<!\d[{_BLANK}])\(?0[1-9]?\d{{0,4}}(?:{_SEPARATOR}\d{{1,8}}){{1,6}})
    | (?P<brazilian>\(?[1-9]\d\)?\ ?9?[2-9]\d{{3}}-\d{{4}})
    ){_END}""",
    re.VERBOSE,
)
_OTHER = re.compile(rf"\(?\+?\d{{1,15}}(?:{_SEPARATOR}\d{{1,11}}){{0,7}}\)?{_END}")
_ANNOUNCED = re.compile(
    r"""(?:\b(?:tel|telefon\w*|telephone|t[eé]l[eé]phone|tel[eé]fono|telefone|fono|phone|fax|faks|telefax|mobile?|mobil|cell|
    celular|m[oó]vil|handy|call|ring|dial|sms|txt|whatsapp|viber|hotline|helpline|quitline|switchboard|toll[- ]free|
    textphone|rufnummer|ruf)\b|тел|факс|电话|電話|传真|傳真|手机|手機|热线|熱線)[^\d\n+($€£=]{0,16}\Z""",
    re.IGNORECASE | re.VERBOSE,
)
_CONTACT = re.compile(r"\bcontact\b[^\d\n+(]{0,30}\Z", re.IGNORECASE)
_LOCAL = re.compile(r"[2-9]\d\d-\d{4}")
_BEHIND = re.compile(r"\W{0,3}(?:phone|tel|fax|voice|mobile|cell)\b", re.IGNORECASE)
_AFTER_ANOTHER = re.compile(r"\s?(?:[,;/|&、]|\b(?:or|and|und|oder|ou|et|o|y|e)\b)?\s?\Z")
_DATE = re.compile(
    rf"""(?:\d\d?(?P<d>[./{_DASH}\ ])\d\d?(?P=d)(?:19|20)\d\d | 0?(?:19|20)\d\d(?P<y>[./{_DASH}])\d\d?(?P=y)\d\d?
    | \d\d?[./]\d\d?[./]\d\d(?![ ./{_DASH}]?\d\d[ ./{_DASH}]\d\d) | \d\d?\.\d\d[{_BLANK}]?[{_DASH}])""",
    re.VERBOSE,
)
_GROUP = re.compile(r"\d+")
_NO_NUMBER = re.compile(
    r"(?:\b(?:isbn|issn|doi|pmid|iban|konto|account|order|invoice|id|no|nr)\b|#)[^\w\n]{0,3}[\d-]{0,4}\Z", re.I
)
_BEFORE = 40
_LONGEST = 15  # digits, ITU-T E.164
_LONGEST_NATIONAL = 13
_LONGEST_DIALLED = 18  # with what is dialled before a number, such as 18001 for a relay service
_SHORT_CODES = re.compile(r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]")
_LONG_CODES = re.compile(r"21|22|23|24|25|26|29|35|37|38|42|50|59|67|68|69|80|85|87|88|96|97|99")
"""Country codes of one or two digits, and the first two of those that have three: ITU-T E.164, list of 2016."""


def phones(text: str) -> Iterator[Span]:
    """Telephone and fax numbers, in order. No number has a line break in it."""
    last_end = -1
    for run in _RUN.finditer(text):
        start = run.start()
        while start > 0 and text[start - 1] in "+( ":
            start -= 1
            if run.start() - start == 3:
                break
        for span in _in_run(text, max(start, last_end), run.end(), last_end):
            yield span
            last_end = span[1]


def _in_run(text: str, start: int, end: int, last_end: int) -> Iterator[Span]:
    """Those in a stretch of digits and separators. last_end: where the number before it ends, -1: there is none."""
    at = start
    while at < end:
        form = _FORMS.search(text, at, min(len(text), end + 2))
        formed = None if form is None else _accepted(text, form)
        other = _announced(text, at, end, last_end, limit=formed[0] if formed else end)
        span = other or formed
        if span is not None:
            yield span
            at = last_end = span[1]
        elif form is not None:
            at = _next_group(text, form.start(), end)
        else:
            return


def _next_group(text: str, at: int, end: int) -> int:
    """Where the digits after the group at `at` begin."""
    group = _GROUP.search(text, at, end)
    return end if group is None else group.end()


def _accepted(text: str, form: re.Match[str]) -> Span | None:
    """The span of a form, unless the digits are something else."""
    start, end = form.span()
    if _NO_NUMBER.search(text, max(0, start - _BEFORE), start) or _DATE.match(text, start, end):
        return None
    if form["abroad"]:
        return _abroad(text, start, end)
    if form["trunk"]:
        groups = _groups(text, start, end, _LONGEST_NATIONAL)
        is_isbn = groups[0][0] == "0" and text[groups[0].end()] in "-\u2010\u2011\u2012\u2013"
        if is_isbn or any(len(group[0]) == 1 for group in groups[1:-1]) or len(groups) < 2 or _n_digits(groups) < 9:
            return None
        return _closed(text, start, groups[-1].end())
    if form["brazilian"] and _are_years(_GROUP.findall(form[0])[-2:]):
        return None
    return _closed(text, start, end)


def _groups(text: str, start: int, end: int, most: int) -> list[re.Match[str]]:
    """Groups of digits that can be one number of at most so many digits: another number may follow it in the line."""
    groups: list[re.Match[str]] = []
    n_digits = 0
    for group in _GROUP.finditer(text, start, end):
        n_group = len(group[0])
        is_apart = groups and not text[groups[-1].end() : group.start()].strip(_BLANK)
        is_whole, begins = n_digits >= 7 and n_group >= 7, n_digits >= 10 and group[0].startswith("0")
        if is_apart and (is_whole or begins):
            break
        if n_digits + n_group > most:
            break
        groups.append(group)
        n_digits += n_group
    return groups


def _n_digits(groups: list[re.Match[str]]) -> int:
    return sum(len(group[0]) for group in groups)


def _abroad(text: str, start: int, end: int) -> Span | None:
    """A number with a country code."""
    is_zeros = text[start:end].lstrip("(").startswith("00")
    groups = _groups(text, start, end, _LONGEST + 2 if is_zeros else _LONGEST)
    digits = "".join(group[0] for group in groups)[2 if is_zeros else 0 :]
    is_code = _SHORT_CODES.match(digits) or _LONG_CODES.match(digits)
    if not is_code or len(digits) < 8 or (is_zeros and len(groups) < 2):
        return None
    return _closed(text, start, groups[-1].end())


def _announced(text: str, start: int, end: int, last_end: int, limit: int) -> Span | None:
    """A number of another form that begins ahead of `limit`, where a word or a telephone number in front of it, or a
    word behind it, says what it is. last_end: where the telephone number in front of it ends; -1: there is none."""
    while start < end and not (text[start].isdigit() or text[start] in "+("):
        start += 1
    number = _OTHER.match(text, start, min(len(text), end + 2)) if start < limit else None
    if number is None:
        return None
    groups = _groups(text, start, number.end(), _LONGEST_DIALLED)
    if not groups:
        return None
    stop = groups[-1].end()
    before = max(0, start - _BEFORE)
    is_listed = 0 <= last_end <= start and _AFTER_ANOTHER.fullmatch(text, last_end, start)
    is_local = _LOCAL.fullmatch(text, start, stop) and _CONTACT.search(text, before, start)
    if _ANNOUNCED.search(text, before, start):
        least = 6
    elif is_listed or is_local:
        least = 7
    elif _BEHIND.match(text, stop):
        least = 10
    else:
        return None
    digits = [group[0] for group in groups]
    is_quotient = _n_digits(groups) < 8 and "/" in text[start:stop]
    is_round = len(digits) > 1 and all(group == "000" for group in digits[1:])
    if _n_digits(groups) < least or is_round or is_quotient or _are_years(digits) or _DATE.match(text, start, stop):
        return None
    return _closed(text, start, stop)


def _are_years(groups: list[str]) -> bool:
    """Whether all these digits are years of this century and the last."""
    return all(len(group) == 4 and group[:2] in ("19", "20") for group in groups)


def _closed(text: str, start: int, end: int) -> Span:
    """The span without a bracket that has no other side in it."""
    if text[start] == "(" and ")" not in text[start:end]:
        start += 1
    if text[end - 1] == ")" and text.count("(", start, end) < text.count(")", start, end):
        end -= 1
    return start, end
