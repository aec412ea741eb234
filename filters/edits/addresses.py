"""E-mail and IP addresses in a text: by shape, and by what stands before and behind them.

Every search begins at a character that is rare (`@`) or at an edge, and looks at a bounded stretch from there: time is
linear in a text's length, whatever it is made of.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from gristmill.filters.edits.accounts import Span

_LETTER = "0-9A-Za-z\u00c0-\u024f\u0400-\u04ff"  # Latin and Cyrillic: before an address Chinese has no blank
_LOCAL = re.compile(rf"[{_LETTER}.%'+_-]*\Z")
_LOCAL_CHARS = 64  # RFC 5321, 4.5.3.1.1
_DOMAIN = re.compile(
    rf"(?:[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?\.){{1,8}}([A-Za-z\u0400-\u04ff]{{2,24}})(?![\w-])"
)
_FILE_TYPE = re.compile(
    "avif|bmp|css|gif|heic|html?|ico|jpe?g|js|json|mp[34]|pdf|php|png|svg|tiff?|ts|webp", re.IGNORECASE
)
_PATH = re.compile(r":\S")  # of git@host:path
_AT_SIGN = r"\ ?[\[({]\ ?(?:at|AT|At)\ ?[\])}]\ ?"  # (at) [at] { at }
_DOT = r"(?:\.|\ ?[\[({]\ ?(?:dot|DOT|Dot|punkt)\ ?[\])}]\ ?|\ (?:dot|DOT)\ )"
_SPOKEN_ENDS = "com|org|net|edu|gov|info|io|eu|de|uk|ch|fr|nl|pl|cz|es|pt|se|dk|fi|ru|jp|cn|br|ca|au|nz"
"""Top-level domains that end an address in words: others are words themselves, as in `look at the dot on the i`."""
_DISGUISED = re.compile(
    rf"""(?<![{_LETTER}._%+-])[{_LETTER}][{_LETTER}._%+-]{{1,63}}(?:
        {_AT_SIGN}[{_LETTER}-]{{1,63}}(?:{_DOT}[{_LETTER}-]{{2,63}}){{0,3}}{_DOT}[A-Za-z]{{2,24}}
      | \ (?:at|AT)\ [{_LETTER}-]{{1,63}}(?:\ (?:dot|DOT)\ [{_LETTER}-]{{2,63}}){{0,3}}\ (?:dot|DOT)\ (?:{_SPOKEN_ENDS})
    )(?![{_LETTER}])""",
    re.VERBOSE,
)
# Patterns begin with a class of characters, since `re` then skips to the next of them; edges are looked at afterwards.
_BRACKETED_AT = re.compile(r"[\[({] ?(?:at|AT|At) ?[\])}]")
_SPOKEN_DOT = re.compile(r" (?:dot|DOT) ")
_IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w@]|[.,-]\d)")
_NOT_BEFORE_IPV4 = re.compile(r"[\w.,+@-]")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")
_NOT_BEFORE_IPV6 = re.compile(r"[\w:.]")
_NOT_ADDRESS = re.compile(
    r"(?:\bv|\bver|\bversions?|\brelease|\bbuild|\bfirmware|\bdriver|\bkernel|\bOID|\bsection|\bchapter|§|[^:/]/)[.:]?\s?\Z",
    re.IGNORECASE,
)
_BEFORE = 16
"""Characters that are looked at before an address."""


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses, written out and disguised (`name (at) host (dot) org`), in no order. Not `@name@host` of
    federated networks, `git@host:path` of repositories, logins in an address of the web, and names of files
    (`logo@2x.png`)."""
    at = text.find("@")
    while at >= 0:
        span = _email_at(text, at)
        if span is not None:
            yield span
        at = text.find("@", at + 1)
    for match in (*_BRACKETED_AT.finditer(text), *_SPOKEN_DOT.finditer(text)):
        # The name begins before what disguises it, so the search begins two names' lengths before.
        start = max(0, match.start() - 2 * _LOCAL_CHARS)
        for disguised in _DISGUISED.finditer(text, start, match.end() + 260):
            if disguised.start() <= match.start() < disguised.end():
                yield disguised.span()


def _email_at(text: str, at: int) -> Span | None:
    """The address around an `@`."""
    local = _LOCAL.search(text, max(0, at - _LOCAL_CHARS - 1), at)
    assert local is not None  # it may be empty
    name = local[0].lstrip(".%'+_-")
    start = at - len(name)
    domain = _DOMAIN.match(text, at + 1)
    if not name or len(name) > _LOCAL_CHARS or name.endswith(".") or domain is None:
        return None
    is_file = _FILE_TYPE.fullmatch(domain[1]) or _PATH.match(text, domain.end())
    is_login = text[max(0, start - 2) : start].endswith(("@", "//"))
    return None if is_file or is_login else (start, domain.end())


def ips(text: str) -> Iterator[Span]:
    """Addresses of the Internet, of version 4 and 6: public ones, which may be somebody's; private and reserved ones
    are no data of a person. Not version numbers, where the word before them or four single digits say so."""
    for match in _IPV4.finditer(text):
        if match.start() and _NOT_BEFORE_IPV4.match(text, match.start() - 1):
            continue
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        is_version = max(map(len, match[0].split("."))) == 1 or _NOT_ADDRESS.search(before)
        if not is_version and _is_public(_without_zeros(match[0])):
            yield match.span()
    for match in _IPV6.finditer(text):
        address = match[0].rstrip(":")
        is_inside = match.start() and _NOT_BEFORE_IPV6.match(text, match.start() - 1)
        if not is_inside and _is_public(address):
            yield match.start(), match.start() + len(address)


def _is_public(address: str) -> bool:
    """Whether it is an address that anybody's machine may have."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _without_zeros(address: str) -> str:
    """`010.001.000.009` as ipaddress reads it."""
    return ".".join(str(int(part)) for part in address.split("."))
