"""What training texts have of held-out items: against plain Python, with templates, phrases and near copies."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.filters.overlap import Finder, HeldOut, Overlap, Texts
from gristmill.filters.signatures import ngrams as ngrams_module
from gristmill.filters.signatures.alphabet import ALONE, BREAK, DIGIT, NOTHING, meaning
from gristmill.filters.signatures.ngrams import ngrams, word_spans
from gristmill.filters.signatures.tables import GOLDEN, MASK, SPLIT_A, SPLIT_B, letter_code


def words(text: str) -> list[str]:
    """The words of a text, every digit counting."""
    complete, current = [], ""
    for char in text:
        kind, folded = meaning(char)
        if kind == NOTHING:
            continue
        if kind == DIGIT:
            folded = str(unicodedata.decimal(char))
        if kind in (BREAK, ALONE):
            complete += [current, folded]
            current = ""
        else:
            current += folded
    return [word for word in [*complete, current] if word]


def mixed(x: int) -> int:
    x = (x ^ x >> 30) * SPLIT_A & MASK
    x = (x ^ x >> 27) * SPLIT_B & MASK
    return x ^ x >> 31


def hashed_by_hand(text: str, n: int) -> tuple[list[int], int, int]:
    """What `ngrams` says of a text, in plain Python."""
    hashes, whole, grams = [], 0, []
    for word in words(text):
        x = 0
        for char in word:
            x = (x * 257 + letter_code(ord(char))) & MASK
        hashes.append(mixed(x))
        whole = (mixed(whole ^ hashes[-1]) + GOLDEN) & MASK
    for first in range(len(hashes) - n + 1):
        total = 0
        for value in hashes[first : first + n]:
            total = (total * GOLDEN + value) & MASK
        grams.append(mixed(total))
    return grams, whole, len(hashes)


ODD = [
    "",
    "?!",
    "Tom has 12 apples.",
    "ÄÖ Ünïcode ２３ 中文字 été",
    "a " * 9000 + "b 77 c",
    "x" * 9000 + " y z",
    "中" * 5000,
]


@pytest.mark.parametrize("n", [1, 3, 13])
def test_ngrams_are_those_of_plain_python(n: int) -> None:
    result = ngrams(pa.array(ODD), n)
    for row, text in enumerate(ODD):
        grams, whole, count = hashed_by_hand(text, n)
        assert result.hashes[result.rows == row].tolist() == grams
        assert (int(result.wholes[row]), int(result.n_words[row])) == (whole, count)


MARKED = [
    "e\u0301te\u0301 \u00adsoft\u00adhyphen \ufeff中文，字。ไทย ﬁne ǅ x\u200by 1,5",
    " tail ",
    "中a中",
    "\u0301",
    "ﷺ ok",
]


def check_spans(texts: list[str]) -> None:
    """Each span has one word, that of its number, and no word begins or ends outside of one."""
    # A slice of a longer array, so that the bytes do not begin at its own first text.
    array = pa.array(["before 中", *texts])[1:]
    counts = ngrams(array, 1).n_words
    spans = word_spans(array, counts)
    assert spans.first.tolist() == [0, *np.cumsum(counts).tolist()]
    for row, text in enumerate(texts):
        own = slice(spans.first[row], spans.first[row + 1])
        pairs = list(zip(spans.starts[own].tolist(), spans.ends[own].tolist(), strict=True))
        data, edges = text.encode(), [0, *(byte for pair in pairs for byte in pair), len(text.encode())]
        assert edges == sorted(edges)
        assert [words(data[start:end].decode()) for start, end in pairs] == [[word] for word in words(text)]
        gaps = [data[start:end].decode() for start, end in zip(edges[::2], edges[1::2], strict=True)]
        assert [words(gap) for gap in gaps] == [[]] * len(gaps)


def test_word_spans_have_the_words_of_ngrams() -> None:
    check_spans([*ODD, *MARKED])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
def test_word_spans_of_any_texts(texts: list[str]) -> None:
    check_spans(texts)


def test_word_spans_refuse_the_counts_of_other_texts() -> None:
    with pytest.raises(ValueError, match="texts have 2 words, not the 3"):
        word_spans(pa.array(["two words"]), np.array([3]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab1 2.é中٣\n", max_size=60), max_size=8), st.integers(1, 4))
def test_ngrams_of_any_text_are_those_of_plain_python(texts: list[str], n: int) -> None:
    result = ngrams(pa.array(texts, pa.string()), n)
    expected = [hashed_by_hand(text, n) for text in texts]
    assert result.hashes.tolist() == [value for grams, _, _ in expected for value in grams]
    assert result.wholes.tolist() == [whole for _, whole, _ in expected]


def test_every_digit_counts_and_case_accents_and_punctuation_do_not() -> None:
    wholes = ngrams(
        pa.array(["Tom has 3 apples", "tom HAS «3» apples!", "Tom has 5 apples", "Tom has 33 apples"]), 13
    ).wholes
    assert wholes[0] == wholes[1] and len(set(wholes.tolist())) == 3


def expected(items: list[str], training: list[str], overlap: Overlap) -> tuple[set, set, set]:
    """(row, n-gram), (row, item) of near copies and (row, item) of equal texts, in plain Python."""

    def grams(text: str) -> set[tuple[str, ...]]:
        split = words(text)
        return {tuple(split[at : at + overlap.ngram]) for at in range(len(split) - overlap.ngram + 1)}

    holders = Counter(gram for item in items for gram in grams(item))
    own = [{gram for gram in grams(item) if holders[gram] <= overlap.max_matches} for item in items]
    pairs, near, equal = set(), set(), set()
    for row, text in enumerate(training):
        there = grams(text)
        for item, wanted in enumerate(own):
            pairs |= {(row, gram) for gram in wanted & there}
            if wanted and len(wanted & there) >= overlap.near * len(wanted):
                near.add((row, item, len(wanted & there)))
            if words(text) and words(text) == words(items[item]):
                equal.add((row, item))
    return pairs, near, equal


TEXT = st.lists(st.sampled_from(["a", "b", "1", "2"]), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXT, max_size=6), st.lists(TEXT, max_size=8), st.integers(1, 4), st.integers(1, 3))
def test_matches_are_those_of_plain_python(items: list[str], training: list[str], n: int, most: int) -> None:
    overlap = Overlap(n, most, 0.5)
    index, counts = HeldOut.of(Texts(pa.array(items, pa.string())), overlap)
    assert counts.tolist() == [len(words(item)) for item in items]
    matches = Finder(index, overlap).find(Texts(pa.array(training, pa.string())))
    pairs, near, equal = expected(items, training, overlap)
    assert len(pairs) == len(matches.grams)
    assert Counter(row for row, _ in pairs) == Counter(matches.gram_rows.tolist())
    triples = zip(matches.near_rows.tolist(), matches.near_items.tolist(), matches.near_shared.tolist(), strict=True)
    assert set(triples) == near
    assert set(zip(matches.text_rows.tolist(), matches.text_items.tolist(), strict=True)) == equal


LONG = "the quick brown fox number {} jumps over seven lazy dogs beside the old stone mill every morning at dawn"


def test_a_batch_is_looked_at_in_slices_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [LONG.format(number) for number in range(50)]
    index, _ = HeldOut.of(Texts(pa.array(texts[10:20])), Overlap())
    whole = Finder(index, Overlap()).find(Texts(pa.array(texts)))
    seen = defaultdict(int)
    monkeypatch.setattr(ngrams_module, "SLICE_BYTES", 300)
    original = ngrams

    def counted(part: pa.StringArray, n: int) -> object:
        seen["most"] = max(seen["most"], len(part))
        return original(part, n)

    monkeypatch.setattr("gristmill.filters.overlap.ngrams", counted)
    sliced = Finder(index, Overlap()).find(Texts(pa.array(texts)))
    assert seen["most"] <= 4
    for one_run, another in zip(whole, sliced, strict=True):
        np.testing.assert_array_equal(one_run, another)
    assert set(whole.text_rows.tolist()) == set(range(10, 20))


def test_prompts_are_compared_whole_with_texts_and_prompts() -> None:
    items = Texts(pa.array(["What is 2 + 3? 5", "Say hi. hi"]), (pa.array(["What is 2 + 3?", "Say hi."]),))
    index, _ = HeldOut.of(items, Overlap())
    training = Texts(
        pa.array(["what is 2+3", "What is 2 + 3? it is 6", "Say high. hi"]),
        (pa.array(["", "What is 2 + 3?", "Say high."]),),
    )
    matches = Finder(index, Overlap()).find(training)
    assert list(zip(matches.text_rows.tolist(), matches.text_items.tolist(), strict=True)) == [(0, 0), (1, 0)]


def test_what_all_items_share_is_their_template() -> None:
    template = "answer the question with one number and nothing else do not explain how many apples has tom if he had "
    items = [f"{template} {number} and lost {number * 7}" for number in range(20)]
    index, _ = HeldOut.of(Texts(pa.array(items)), Overlap())
    matches = Finder(index, Overlap()).find(Texts(pa.array([template + " 99 and lost 98", items[3]])))
    assert set(matches.gram_rows.tolist()) == {1} and matches.near_items.tolist() == [3]


@pytest.mark.parametrize(("field", "value"), [("ngram", 0), ("max_matches", 0), ("near", 0.0), ("near", 1.5)])
def test_settings_that_cannot_be_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        Overlap(**{field: value})
