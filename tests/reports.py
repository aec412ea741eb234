"""A report as a reader has it: parsed, its tables by their captions, and what has to hold of every page."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import lxml.html

from gristmill.lake.store.base import Store
from gristmill.orchestration.report.html import VOID
from gristmill.orchestration.report.page import write_report

Tables = dict[str, list[dict[str, str]]]
LOADED = ("src", "href", "xlink:href", "action", "data", "poster", "srcset", "formaction")
"""Attributes by which a page asks for something."""

ATTACK = "</script></style><img src=x onerror=\"window.hacked=1\"><svg onload='hacked()'>&#x6a;{{7*7}}"
HIDDEN = "safe\u202egnp.exe\u2066\x07\x1b[31m\x00\u200b\ud800"
LONG = "W" * 9000
HOSTILE = f"{ATTACK} {HIDDEN} {LONG}"
"""What somebody may write where a page shows it."""


def report(store: Store, folder: Path, *refs: str) -> Any:
    """The page of these versions, checked and parsed."""
    text = write_report(store, refs, folder / "report.html").read_text(encoding="utf-8")
    check(text)
    return lxml.html.document_fromstring(text)


def words(element: Any) -> str:
    """All text of an element, spaces folded."""
    return " ".join(element.text_content().split())


def tables(root: Any) -> Tables:
    """Caption -> rows, each column -> text; of a chart what it says to who cannot see it."""
    drawn: Tables = {}
    for table in root.iter("table"):
        heads = [words(cell) for cell in table.xpath("./thead//th")]
        rows = []
        for row in table.xpath("./tbody/tr"):
            cells = row.xpath("./th|./td")
            if len(cells) == len(heads):
                rows.append({head: words(cell) or _spoken(cell) for head, cell in zip(heads, cells, strict=True)})
        drawn[words(table.find("caption"))] = rows
    return drawn


def _spoken(cell: Any) -> str:
    return " ".join(cell.xpath(".//svg/@aria-label"))


def headings(root: Any) -> list[str]:
    """Of all sections, in order."""
    return [words(element) for element in root.iter("h3")]


class _Nested(HTMLParser):
    """Raises AssertionError unless every element ends where it has to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> ends another element"


def check(text: str) -> None:
    """Raises AssertionError unless the page is well formed, accessible, and asks for nothing outside of it."""
    nested = _Nested()
    nested.feed(text)
    assert nested.open == []
    unsafe = {
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t\u200c\u200d"
    }
    assert not unsafe, f"unsafe characters: {unsafe!r}"
    root = lxml.html.document_fromstring(text)
    _check_policy(root)
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        assert "style" not in element.attrib and not [name for name in element.attrib if name.startswith("on")]
        for name in LOADED:
            value = element.get(name)
            assert value is None or value.startswith(("#", "data:image/png;", "data:image/jpeg;", "data:audio/wav;"))
        if element.tag == "img":
            assert element.get("alt")
        if element.tag == "svg":
            assert element.get("aria-label") or element.get("aria-hidden") == "true"
        if element.tag == "table":
            assert words(element.find("caption")) and element.xpath("./thead//th[@scope='col']")
            assert all(row.xpath("./th[@scope='row']|./td[@colspan]") for row in element.xpath("./tbody/tr"))
    ids = root.xpath("//@id")
    assert len(ids) == len(set(ids))
    links = {link[1:] for link in root.xpath("//a/@href")}
    assert links <= set(ids)
    levels = [int(element.tag[1]) for element in root.xpath("//h1|//h2|//h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert root.get("lang") == "en" and root.xpath("//main") and root.xpath("//title")


def _check_policy(root: Any) -> None:
    """A single style sheet and a single script, which the policy names by their digests, and before both."""
    (policy,) = root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'" and "unsafe" not in policy
    for name in ("style", "script"):
        (element,) = root.iter(name)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert rules.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert rules == {"img-src": "data:", "media-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    head = [element.get("http-equiv") or element.tag for element in root.find("head")]
    assert head.index("Content-Security-Policy") < head.index("style")
