"""Ranges of words cut out of a text: what is left reads as text, and is all that was not in a range."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.filters.edits.cut import Cut, without_ranges
from gristmill.filters.signatures.ngrams import ngrams, word_spans


def cut(text: str, *ranges: tuple[int, int]) -> Cut:
    array = pa.array([text])
    spans = word_spans(array, ngrams(array, 1).n_words)
    return without_ranges(text, spans.starts, spans.ends, ranges)


@pytest.mark.parametrize(
    ("text", "part", "left"),
    [
        ("One two. Three four (five) six.", (2, 5), "One two. six."),
        ("One (two) “three four” five", (2, 4), "One (two) five"),
        ("One two three", (0, 2), "three"),
        ("One two three.\n", (1, 3), "One"),
        ("One two.\n\nThree four.\n\nFive six.", (2, 4), "One two.\n\nFive six."),
        ("One two.\nThree four.\n\n\n\nFive.", (2, 4), "One two.\n\nFive."),
        ("- One two\n- Three four\n- Five six\n", (2, 4), "- One two\n- Five six\n"),
        ("- One two\n- Three four\n- Five six\n", (0, 2), "- Three four\n- Five six\n"),
        ("def f():\n    one two\n    three four\n", (2, 4), "def f():\n    three four\n"),
        ("« Un deux. » Trois “quatre cinq”.", (0, 2), "Trois “quatre cinq”."),
        ("一二三，四五六。七八", (3, 6), "一二三，七八"),
        ("One two – three four – five", (2, 4), "One two five"),
        ("one\ttwo\tthree", (1, 2), "one three"),
    ],
)
def test_white_space_and_marks_around_a_cut(text: str, part: tuple[int, int], left: str) -> None:
    assert cut(text, part) == Cut(left, (part,), part[1] - part[0])


@pytest.mark.parametrize(
    ("text", "part", "left", "shrunk"),
    [
        ("Here it costs $3.50 today", (0, 4), "$3.50 today", (0, 3)),
        ("Anna’s own profile page here", (1, 4), "Anna’s page here", (2, 4)),
        ("See https://e.org/a-b now or then", (3, 7), "See https://e.org/a-b or then", (6, 7)),
    ],
)
def test_no_token_is_parted(text: str, part: tuple[int, int], left: str, shrunk: tuple[int, int]) -> None:
    assert cut(text, part) == Cut(left, (shrunk,), shrunk[1] - shrunk[0])


def test_a_range_within_a_token_is_not_cut_and_all_of_a_text_can_be() -> None:
    assert cut("costs $3.50 today", (1, 2)) == Cut("costs $3.50 today", (), 0)
    assert cut("  All of it.\n", (0, 3)) == Cut("", ((0, 3),), 3)
    assert cut("untouched,  as it\tcame \n") == Cut("untouched,  as it\tcame \n", (), 0)


def test_several_ranges_of_a_text() -> None:
    text = "One two three. Four five six. Seven eight nine."
    assert cut(text, (0, 2), (4, 6), (8, 9)) == Cut("three. Four Seven eight", ((0, 2), (4, 6), (8, 9)), 5)


WORD = st.sampled_from(["mill", "Été", "3", "中", "a", "x\u0301y"])
GAP = st.sampled_from([" ", "\n", ". ", ".\n\n", "\n- ", " (", ") ", "-", "’", "。", "", "\u00a0» "])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(WORD, GAP), max_size=12), st.sets(st.integers(0, 11)))
def test_what_is_left_are_the_words_outside_of_the_ranges(pairs: list[tuple[str, str]], gone: set[int]) -> None:
    text = "".join(word + gap for word, gap in pairs)
    array = pa.array([text])
    hashes = ngrams(array, 1)
    inside = [number in gone for number in range(len(hashes.hashes))]
    starts = [n for n, here in enumerate(inside) if here and not (n and inside[n - 1])]
    ranges = [(n, next((end for end in range(n, len(inside)) if not inside[end]), len(inside))) for n in starts]
    came = cut(text, *ranges)
    assert came.words == sum(end - start for start, end in came.ranges)
    assert all(any(low <= start and end <= high for low, high in ranges) for start, end in came.ranges)
    removed = {number for start, end in came.ranges for number in range(start, end)}
    left = [number for number in range(len(inside)) if number not in removed]
    # The very words, so that nothing was parted and nothing grew together.
    assert ngrams(pa.array([came.text]), 1).hashes.tolist() == hashes.hashes[left].tolist()
    if not came.ranges:
        assert came.text == text
