"""Complexity: what a page would cost the parser, counted before it is parsed.

Lexbor and resiliparse are linear on pages as people write them, and quadratic in what nobody writes by hand: elements
that are opened and never closed (each tag walks through all that are open), attributes of one tag, unclosed formatting
(each block gets a copy of it: time and memory), blocks within blocks. Each of these is counted in one pass, in steps of
about a nanosecond, and a page beyond the bound is refused. Comments and quotes are counted as markup, so a page that
hides what it does is met by the deadline of its record. Small pages (most) cannot reach a bound and are not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

MAX_STEPS = 200_000_000
"""Elements that are open, over all tags: 20,000 nested in one another, or 200 around a million; 0.5 s."""
MAX_COPIES = 1_000_000
"""Formatting that is open, over all blocks: elements that the parser makes up; 0.5 s and 300 MB."""
MAX_BLOCK_STEPS = 20_000_000
"""As MAX_STEPS, of blocks, which the extractor walks up from every text; 0.5 s."""
MAX_OPTIONS = 20_000
"""Of all menus: the parser walks through the options before each; 1 s."""
MAX_ATTRIBUTES = 10_000
"""Of one tag, and of all <html> and <body> tags, whose attributes are put together; 0.2 s."""

_SMALL = 2000
"""So few tags cost nothing, whatever they are: their square is below every bound but that of blocks."""
_START = re.compile(r"<([a-z][^\s/>]*+)", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([a-z][^\s/>]*+)([^<>]*+)", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"[\s/]*+=?[^\s/>=]++(?:\s*+=\s*+(?:\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z)|[^\s>]*+))?")

_BLOCKS = frozenset({"div", "article", "ol"})
_FORMATTING = frozenset({"b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u"})
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
_CLOSED_BY_THE_NEXT = frozenset(
    {"a", "button", "nobr", "p", "li", "dd", "dt", "td", "th", "tr", "tbody", "thead", "tfoot", "caption", "colgroup"}
)
_NEVER_PILED_UP = _VOID | _CLOSED_BY_THE_NEXT | {"html", "head", "body"}


class TooComplex(ValueError):
    """The page is beyond a bound; the message says of what, how much, and what is allowed."""


def check(html: str, max_nesting: int) -> None:
    """Raises TooComplex. `max_nesting`: how deep blocks may stand in one another."""
    for tag in _long_tags(html, 2 * MAX_ATTRIBUTES):
        _refuse_beyond("attributes in one tag", _attributes(tag), MAX_ATTRIBUTES)
    tags = html.count("<")
    if tags <= min(_SMALL, max_nesting):
        return
    starts: Counter[str] = Counter()
    for name, count in Counter(_START.findall(html)).items():
        starts[name.lower()] += count
    _refuse_beyond("options", starts["option"], MAX_OPTIONS)
    _refuse_beyond("tags whose attributes are put together", starts["html"] + starts["body"], MAX_ATTRIBUTES)
    if _may_be_beyond(starts, tags, max_nesting):
        _count(_TAG.findall(html), max_nesting)


def _long_tags(html: str, size: int) -> Iterator[str]:
    """What stands behind a "<" up to the next, where that is more than `size` characters.

    It is searched from behind, so that of ordinary pages hardly a character is read, and of no page one three times.
    """
    start = html.find("<") + 1
    while start and len(html) - start > size:
        # The last "<" within the next `size` characters: no tag before it can be too long, and it is the next start.
        last = html.rfind("<", start, start + size + 1)
        if last < 0:
            last = html.find("<", start + size + 1)
            yield html[start : last if last >= 0 else len(html)]
        start = last + 1


def _attributes(tag: str) -> int:
    """How many attributes a tag has, from its name on; counted no further than the bound. 0 for what is no tag."""
    at = count = 0
    while count <= MAX_ATTRIBUTES + 1 and tag[:1].isalpha() and (attribute := _ATTRIBUTE.match(tag, at)):
        at = attribute.end()
        count += 1
    return max(0, count - 1)  # the first is the name


def _count(tags: list[tuple[str, str, str]], max_nesting: int) -> None:
    """Walks through the tags as the parser would, and adds up the steps that it would take at each of them."""
    opened: Counter[str] = Counter()
    formatting = _Formatting()
    elements = blocks = steps = block_steps = copies = 0
    for closing, name, attributes in tags:
        name = name.lower()
        steps += elements  # the parser walks the elements that are open, and the extractor the blocks
        block_steps += blocks
        if name in _FORMATTING:
            formatting.close(name) if closing else formatting.open(name, attributes)
        elif not closing:
            copies += formatting.copied
        if name not in _NEVER_PILED_UP and (not closing or opened[name]):
            change = -1 if closing else 1
            opened[name] += change
            elements += change
            blocks += change * (name in _BLOCKS)
        if blocks > max_nesting or steps > MAX_STEPS or copies > MAX_COPIES or block_steps > MAX_BLOCK_STEPS:
            break
    _refuse_beyond("blocks nested in one another", blocks, max_nesting, "max_nesting")
    _refuse_beyond("steps through elements that are never closed", steps, MAX_STEPS)
    _refuse_beyond("copies of formatting that is never closed", copies, MAX_COPIES)
    _refuse_beyond("steps through nested blocks", block_steps, MAX_BLOCK_STEPS)


class _Formatting:
    """Formatting that is open. A block gets copies of it, of equal tags three at most."""

    def __init__(self) -> None:
        self.copied = 0
        self._opened: dict[str, list[str]] = {name: [] for name in _FORMATTING}
        self._equal: Counter[tuple[str, str]] = Counter()

    def open(self, name: str, attributes: str) -> None:
        self._opened[name].append(attributes)
        self._equal[name, attributes] += 1
        self.copied += self._equal[name, attributes] <= 3

    def close(self, name: str) -> None:
        if self._opened[name]:
            attributes = self._opened[name].pop()
            self.copied -= self._equal[name, attributes] <= 3
            self._equal[name, attributes] -= 1


def _may_be_beyond(starts: Mapping[str, int], tags: int, max_nesting: int) -> bool:
    """Whether the worst order of these tags would be: that of few pages is, and only of these the order is walked."""
    blocks = sum(starts[name] for name in _BLOCKS)
    formatting = sum(starts[name] for name in _FORMATTING)
    piled = sum(count for name, count in starts.items() if name not in _NEVER_PILED_UP)
    return (
        blocks > max_nesting
        or blocks * tags > MAX_BLOCK_STEPS
        or formatting * tags > MAX_COPIES
        or piled * tags > MAX_STEPS
    )


def _refuse_beyond(what: str, count: int, limit: int, key: str = "the limit") -> None:
    if count > limit:
        raise TooComplex(f"page has {count} {what}; {key} is {limit}")
