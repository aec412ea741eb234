"""Makes an offending value safe for a ledger: what identifies a person becomes a token such as `<email>`.

Ledgers outlive takedowns and are read by many, so the trade is for recall: a number that only looks like a
telephone number goes too. Decimal fractions and ISO dates stay. Shapes only: no names or addresses, and no
claim of precision. Every pattern starts at an edge and backtracks nowhere far, so a page of base64 costs
linear time. The filter that finds PII in documents is another matter; this is for values of some tens of
characters.
"""

from __future__ import annotations

import re

from gristmill.filters.edits.accounts import luhn

_USERINFO = re.compile(r"(?<=://)[^/\s@?#]{1,256}@")
_QUERY = re.compile(r"(\bhttps?://[^\s?#]*)([?#]\S+)?|\?[^\s?=]{1,256}=[^\s]*")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}")
_IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\d|\.\d)")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_PHONE = re.compile(r"(?<![\w.])(?:\+|\(|00)?\d(?:[ ./()-]{0,2}\d){6,14}(?![\w])")
_NOT_PHONE = re.compile(r"\d+\.\d+|\d{4}-\d{2}-\d{2}", re.ASCII)


def redact(value: str, max_chars: int = 80) -> str:
    """`value` without e-mail and IPv4 addresses, card and telephone numbers, URL queries and logins.

    Replaced by `<email>`, `<ip>`, `<card>`, `<phone>`, `?<query>`, `<login>@`, and then cut to `max_chars`
    characters, the last one "…" where something was cut. Raises ValueError if `max_chars` is not positive.
    """
    if max_chars < 1:
        raise ValueError(f"redact: max_chars is {max_chars}; it has to be at least 1")
    value = _USERINFO.sub("<login>@", value)
    value = _QUERY.sub(_without_query, value)
    value = _EMAIL.sub("<email>", value)
    value = _IPV4.sub("<ip>", value)
    value = _CARD.sub(lambda match: "<card>" if luhn(match[0]) else match[0], value)
    value = _PHONE.sub(lambda match: match[0] if _NOT_PHONE.fullmatch(match[0]) else "<phone>", value)
    return value if len(value) <= max_chars else value[: max_chars - 1] + "…"


def _without_query(match: re.Match[str]) -> str:
    # A URL without a query matches too: searching it again from each place inside would be quadratic.
    return match[0] if match[1] and not match[2] else f"{match[1] or ''}?<query>"
