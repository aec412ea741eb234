"""What a page may cost: pages that nobody writes are refused by count, before they reach the parser; and what our own
patterns may cost, by what they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.stages.text import charset, charset_labels, complexity, formulas, html
from gristmill.stages.text.complexity import TooComplex, check

PILES = {
    "rt": lambda n: "<rt>" * n,
    "span": lambda n: "<span>" * n,
    "SPAN": lambda n: "<SPAN>" * n,
    "link": lambda n: "<a href=x><b><i>" * n,
    "end": lambda n: "<span>" * (n // 4) + "</x>" * (3 * n // 4) * 2,
}


@pytest.mark.parametrize("pile", PILES)
def test_elements_that_are_never_closed(pile) -> None:
    check("<body>" + PILES[pile](5_000), 2000)
    with pytest.raises(TooComplex, match=r"(steps|copies) .* never closed; the limit is"):
        check("<body>" + PILES[pile](100_000), 2000)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<p " + " ".join(f"a{i}=1" for i in range(100_000)) + ">x", "page has 10001 attributes in one tag"),
        ("<p " + " ".join(f"a{i}" for i in range(100_000)) + ">x", "attributes in one tag"),
        ("<p " + "".join(f'a{i}="b"' for i in range(100_000)) + ">x", "attributes in one tag"),
        ("".join(f"<body a{i}=1>" for i in range(20_000)), "20000 tags whose attributes are put together"),
        ("<select>" + "<option>x" * 100_000, "100000 options"),
        ("<select>" + "<option>x</option>" * 100_000 + "</select>", "100000 options"),
        ("<p>" + "".join(f"<b a{i}>" for i in range(3000)) + "</p>" + "<p>x</p>" * 3000, "copies of formatting"),
        ("<div>" * 2001, "2001 blocks nested in one another; max_nesting is 2000"),
        ("<article>" * 1999 + "x<br>" * 20_000, "steps through nested blocks"),
        (("<div>" * 1900 + "</div>" * 1900) * 20, "steps through nested blocks"),
    ],
)
def test_other_pages_that_nobody_writes(page, message) -> None:
    with pytest.raises(TooComplex, match=message):
        check(page, 2000)


@pytest.mark.parametrize(
    "page",
    [
        "<ul>" + "<li>item <a href=x>link</a>" * 30_000 + "</ul>",
        "<table>" + "<tr><td>1<td>2<td>3" * 20_000 + "</table>",
        "<p>a paragraph<br>" * 30_000,
        "<div><p>text <b>bold</b> <i>it</i></p></div>" * 20_000,
        "<p><b>Title<b> text" * 3000,  # the second should have been </b>: three copies at most
        "<div data-x='" + "{&quot;a&quot;: 1}, " * 20_000 + "'>x</div>",
        "<script>" + "if (a<b && c>d) { x = '<div>' } " * 1900 + "</script>",
        "<select>" + "<option>x</option>" * 19_000 + "</select>",
        "<ruby>漢<rt>kan</ruby>" * 10_000,
        "words that stand in no tag " * 20_000,
        "words before a tag " * 20_000 + "<p>x</p>",
        "",
    ],
)
def test_long_pages_that_people_write_pass(page) -> None:
    check(page, 2000)


@pytest.mark.parametrize(
    "unit", ["<rt>", "<div>", "<p>x", "<b a>", "</x>", "<", "<p a ", "<a b='", "<li>x</li>", "x", "<b>x</b>"]
)
def test_the_count_takes_steps_in_proportion_to_its_input(unit, counted_lines, monkeypatch) -> None:
    for bound in ("MAX_STEPS", "MAX_COPIES", "MAX_BLOCK_STEPS", "MAX_ATTRIBUTES", "MAX_OPTIONS"):
        monkeypatch.setattr(complexity, bound, 10**12)
    monkeypatch.setattr(complexity, "_may_be_beyond", lambda *_: True)
    monkeypatch.setattr(complexity, "_SMALL", 0)
    steps = [
        counted_lines("gristmill.stages.text.complexity", lambda n=n: check(unit * (1000 * n), 10**9))
        for n in (1, 2, 4)
    ]
    assert steps[1] <= 2.2 * steps[0] + 50 and steps[2] <= 4.4 * steps[0] + 100, steps


class Watched(str):
    """A page that counts the characters that a search in it reads."""

    looked_at = 0

    def find(self, what: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        at = super().find(what, start, end)
        Watched.looked_at += (at if at >= 0 else len(self)) - start
        return at

    def rfind(self, what: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        at = super().rfind(what, start, end)
        stop = len(self) if end is None else min(end, len(self))
        Watched.looked_at += stop - (at if at >= 0 else start)
        return at


@given(st.text("<ab ", max_size=60), st.integers(1, 9))
def test_long_tags_are_those_of_a_page_that_is_cut_up_and_no_character_is_looked_at_three_times(page, size) -> None:
    Watched.looked_at = 0
    assert list(complexity._long_tags(Watched(page), size)) == [tag for tag in page.split("<")[1:] if len(tag) > size]
    assert Watched.looked_at <= 2 * len(page)


ANCHORED = {"_ATTRIBUTE", "_END", "_SNIFF"}  # used with `match`: tried at one place, not at every one


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for module in (charset, charset_labels, complexity, formulas, html):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield f"{module.__name__}.{name}", value


def is_endless(node: Any) -> bool:
    return node[0] in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT) and node[1][1] is op.MAXREPEAT


def inside(node: Any) -> Iterator[Any]:
    """Nodes below a node of a parsed pattern, without what gives nothing back once it has matched."""
    values = node[1] if isinstance(node[1], tuple | list) else (node[1],)
    for value in values:
        for below in value if isinstance(value, list) else (value,):
            if isinstance(below, _parser.SubPattern):
                for child in below:
                    if child[0] not in (op.ATOMIC_GROUP, op.POSSESSIVE_REPEAT):
                        yield child
                        yield from inside(child)
            elif isinstance(below, tuple) and below and isinstance(below[0], type(op.MAX_REPEAT)):
                yield below
                yield from inside(below)


def is_exponential(pattern: str, flags: int) -> bool:
    """A repeat within a repeat, both of which can give back: each way to divide the input may be tried."""
    tree = (op.SUBPATTERN, (None, 0, 0, _parser.parse(pattern, flags)))
    nodes = [node for node in inside(tree) if is_endless(node)]
    return any(is_endless(below) for node in nodes for below in inside(node))


def test_no_pattern_repeats_what_repeats() -> None:
    assert is_exponential(r"(?:<!--.*?-->|<\?xml[^>]*>|\s)*<p", re.DOTALL), "what is_html had"
    assert is_exponential(r"(a*)*b", 0) and not is_exponential(r"(?>a*)*+b", 0) and not is_exponential(r"a*b*", 0)
    names = {name for name, pattern in patterns() if is_exponential(pattern.pattern, pattern.flags & re.DOTALL)}
    assert not names


def test_no_pattern_that_is_searched_for_begins_with_a_repeat() -> None:
    """`[ \\t]*\\n` goes through a run of blanks from each of them."""
    begins = {name.split(".")[-1] for name, p in patterns() if is_endless(_parser.parse(p.pattern, p.flags & 16)[0])}
    assert begins <= ANCHORED
    assert len(list(patterns())) > 15
