"""HTML by construction: elements of strings, in which whatever is not markup already is escaped.

`Html` is text that is markup. Every other string that is put into an element or an attribute has its unsafe characters
named, as on a terminal (`pipelines.settings.plain`), is cut where it is very long, and its marks are escaped. Nobody
who writes a section can forget it, because there is no other way to make `Html` of foreign text. Styles and scripts
are elements of their own: the page's policy allows neither in an attribute (orchestration/report/page.py).
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from gristmill.pipelines.settings.plain import one_line, plain

VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})
"""Elements without an end."""


class Html(str):
    """Text that is markup."""

    __slots__ = ()


LONGEST = 1000
"""Characters of a text that is put into an element as it is; more are cut, and how many there are is said."""
_SPOKEN = frozenset({"aria_label", "alt", "title", "data_label"})
Content = str | int | float | None


def escaped(text: Content) -> Html:
    """`text` as markup, cut where it is too long; Html as it is, None as nothing."""
    if isinstance(text, Html):
        return text
    return Html("" if text is None else html.escape(_cut(plain(str(text)))))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def joined(parts: Iterable[Content]) -> Html:
    """Parts one after another, those that are no markup escaped."""
    return Html("".join(escaped(part) for part in parts))


def element(name: str, /, *content: Content, **attributes: Content | bool) -> Html:
    """`<name attribute="...">content</name>`. An attribute is left out where it is None or False, and bare where it is
    True; `class_` is `class`, `aria_label` is `aria-label`. Raises ValueError for a style, which the page forbids."""
    if "style" in attributes or any(key.startswith("on") for key in attributes):
        raise ValueError(f"<{name}>: styles and scripts of an element do not pass the page's policy; give it a class")
    start = name + "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{start}>" if name in VOID else f"<{start}>{joined(content)}</{name}>")


def _attribute(key: str, value: Content | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    words = one_line(str(value))
    return f' {name}="{html.escape(_cut(words) if key in _SPOKEN else words)}"'


def foreign(text: str, most: int) -> Html:
    """What others wrote, in a direction of its own, cut after `most` characters with how many there are."""
    shown = Html(html.escape(plain(text[:most])))
    if len(text) <= most:
        return element("bdi", shown)
    return joined([element("bdi", shown, "…"), element("span", f" ({len(text):,} characters)", class_="dim")])
