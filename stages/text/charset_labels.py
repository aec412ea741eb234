"""Charset labels: what they mean (WHATWG Encoding), and where a page gives one (the prescan of WHATWG HTML).

Python's codecs are those of the plain standards; browsers decode supersets of many (latin-1 is windows-1252), and the
names here are of these. The prescan is bounded by its input, in time too: its expressions never go back.
Source: https://encoding.spec.whatwg.org, https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from resiliparse.parse.encoding import map_encoding_to_html5

WESTERN = "cp1252"
_SUPERSETS = {  # WHATWG's decoders, by the codec that Python has for the plain standard
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "big5": "big5hkscs",
    "iso8859-11": "cp874",
}
_TAG = re.compile(rb"<(/?[A-Za-z][^\t\n\x0c\r />]*+)")
_ATTRIBUTE = re.compile(
    rb"[\t\n\x0c\r /]*+(=?[^\t\n\x0c\r />=]*+)"
    rb"(?:[\t\n\x0c\r ]*+=[\t\n\x0c\r ]*+(?:\"([^\"]*+)(\"|\Z)|'([^']*+)('|\Z)|([^\t\n\x0c\r >]*+)))?"
)
_END = re.compile(rb"[\t\n\x0c\r /]*+>")
_IN_CONTENT = re.compile(
    rb"charset[\t\n\x0c\r ]*+=[\t\n\x0c\r ]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\t\n\x0c\r ;\"'][^\t\n\x0c\r ;]*+))",
    re.IGNORECASE,
)
_IN_XML = re.compile(rb"encoding[\t\n\x0c\r ]*+=[\t\n\x0c\r ]*+[\"']([^\"'>]*+)[\"']")
_RAW = frozenset({b"script", b"style", b"title", b"textarea", b"xmp", b"iframe", b"noembed", b"noframes"})
"""Elements whose content is no markup. The prescan of the standard reads it as markup, its parser does not."""


def codec(label: str) -> str | None:
    """Python's codec for a charset label (WHATWG Encoding, 4.2); None for what is no charset."""
    label = label.strip().lower()
    if label == "x-user-defined":
        return WESTERN
    try:
        name = map_encoding_to_html5(label, fallback_utf8=False)
        name = codecs.lookup(name.removeprefix("x-")).name if name else None
    except (LookupError, ValueError):
        return None
    return _SUPERSETS.get(name, name) if name else None


def prescan(head: bytes) -> str | None:
    """The label that a page gives itself (WHATWG HTML, 13.2.3.2), None without; one pass over `head`.

    `<meta charset>` or `<meta http-equiv=content-type>` outside comments and raw text, else the XML declaration's.
    """
    at = 0
    while (at := head.find(b"<", at)) >= 0:
        if head.startswith(b"<!--", at):
            at = _behind(head, b"-->", at + 2)
        elif tag := _TAG.match(head, at):
            name, attributes = tag[1].lower(), []
            at = tag.end()
            for attribute in _attributes(head, at):
                attributes.append(attribute[:2])
                at = attribute[2]
            if not _END.match(head, at):
                break
            if name == b"meta" and (label := _declared(attributes)):
                return label
            if name in _RAW:
                end = re.compile(b"</" + name, re.IGNORECASE).search(head, at)
                at = end.start() if end else len(head)
        else:
            at = _behind(head, b">", at) if head[at + 1 : at + 2] in (b"!", b"/", b"?") else at + 1
    if head.startswith(b"<?xml"):
        encoding = _IN_XML.search(head, 0, _behind(head, b">", 0))
        return _usable(encoding[1]) if encoding else None
    return None


def _behind(head: bytes, mark: bytes, at: int) -> int:
    place = head.find(mark, at)
    return len(head) if place < 0 else place + len(mark)


def _attributes(head: bytes, at: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Names in lower case, values, and where each ends; none that the end of `head` cuts."""
    while (attribute := _ATTRIBUTE.match(head, at)) and attribute[1] and attribute.end() < len(head):
        at = attribute.end()
        yield attribute[1].lower(), next((attribute[i] for i in (2, 4, 6) if attribute[i] is not None), b""), at


def _declared(attributes: list[tuple[bytes, bytes]]) -> str | None:
    """What a <meta> declares. The first of several attributes of one name counts."""
    values = dict(reversed(attributes))
    if b"charset" in values:
        return _usable(values[b"charset"])
    if values.get(b"http-equiv", b"").lower() != b"content-type":
        return None
    charset = _IN_CONTENT.search(values.get(b"content", b""))
    return _usable(next(value for value in charset.groups() if value is not None)) if charset else None


def _usable(label: bytes) -> str | None:
    name = codec(label.decode("latin-1"))
    if name and name.startswith("utf-16"):
        return "utf-8"  # what could be read as ASCII stands in no UTF-16
    return name
