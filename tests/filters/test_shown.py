"""The text between a page's tags: what is text of it, what is prose, and that the pass over it is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.filters.pages.shown import LINKS, PROSE_BYTES, _kernel, shown_text
from gristmill.filters.pages.shown_kernels import INLINE, KEYS, SKIPPED, key_of

LONG = "The miller grinds the grain into flour, and sells it at the market every Saturday morning."


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("plain words", "plain words"),
        ("<p>a</p><p>b", "a b"),
        ("<p>a <b>b</b>c<br>d", "a bc d"),
        ("<p>a\n\t b&nbsp;&amp; c&uuml;</p>", "a b&nbsp;&amp; c&uuml;"),
        ("<script>if (a < b) { '<p>x' }</script>y", "y"),
        ("<SCRIPT src='>'>x</ScRiPt>y", "y"),
        ("<style>p</style x>y<title>z</title>", "y"),
        ("<script>never closed <p>x", ""),
        ("<!-- a > <p>b</p> -->c<!DOCTYPE html>d<?xml e?>f", "cdf"),
        ("<!-->a<!--->b", "ab"),
        ("<!-- never closed <p>b", ""),
        ("<!>a", "a"),
        ('<a title="x > y" href=z>b</a>', "b"),
        ("<a title='never closed>b</a>", ""),
        ("<a title = \"'\" b=c'd>e", "e"),
        ("1 < 2 <3 <", "1 < 2 <3 <"),
        ("a</p", "a"),
        ("<", "<"),
        ("</", ""),
        ("<my-widget-of-mine>a</my-widget-of-mine>b", "a b"),
        ("naïve <i>日本</i>語", "naïve 日本語"),
        ("<select><option>x</select>y<noscript><p>z</noscript>", "y"),
    ],
)
def test_what_is_text(page: str, text: str) -> None:
    assert shown_text(page.encode()).text.decode() == text


def prose_of(page: str) -> str:
    return shown_text(page.encode()).prose.decode()


def test_prose_is_long_and_not_made_of_links() -> None:
    short, linked = LONG[: PROSE_BYTES - 1], f"<a href='/'>{LONG}</a>"
    assert len(LONG) >= PROSE_BYTES
    shown = shown_text(f"<p>{LONG}<p>{short}<p>{linked}".encode())
    assert shown == (f"{LONG} {short} {LONG}".encode(), LONG.encode())
    assert prose_of(f"<p>{LONG[:40]}<i>{LONG[40:]}</i>") == LONG
    assert prose_of(f"<p>{LONG[:40]}<br>{LONG[40:]}") == ""
    most = len(LONG) * LINKS // (100 - LINKS)
    for size, is_prose in ((most - 1, True), (most + 1, False)):
        page = f"<p>{LONG}<a>{'x' * size}</a>"
        assert bool(prose_of(page)) is is_prose, size
    assert prose_of(f"<a>x</a><p><a>{LONG}<p>{LONG}") == LONG, "a link that is never closed ends with its line"


def test_prose_is_counted_in_bytes() -> None:
    word = "語" * (PROSE_BYTES // 3 + 1)
    assert prose_of(f"<p>{word}<p>{word[:-1]}") == word


def test_no_two_tags_have_one_key() -> None:
    names = [*INLINE, *SKIPPED]
    assert len({key_of(name) for name in names}) == len(names) == np.count_nonzero(KEYS)


@given(st.text(st.sampled_from("<>/!-'\"= ab\tpscript&;é"), max_size=200))
def test_any_page_has_a_text_no_longer_than_itself(page: str) -> None:
    text, prose = shown_text(page.encode())
    assert len(text) <= len(page.encode()) and len(prose) <= len(text)
    assert shown_text(page.replace("<", "< ").encode()).text.count(b"<") == page.count("<")


@given(st.lists(st.sampled_from(["<script>", "</script>", "<!--", "-->", "<p x='", "'>", "<a>", LONG, "<", ">"])))
def test_of_any_markup_the_end_is_reached(parts: list[str]) -> None:
    """What stands open swallows the rest, never a byte twice: both outputs have room for the page and no more."""
    page = "".join(parts).encode()
    room = [np.full(len(page) + 1, 255, np.uint8) for _ in range(2)]
    sizes = np.zeros(2, np.int64)
    _kernel()(np.frombuffer(page, np.uint8), np.array([PROSE_BYTES, LINKS]), *room, sizes)
    assert (sizes <= len(page) + 1).all()
    assert all((out[size:] == 255).all() for out, size in zip(room, sizes, strict=True))
