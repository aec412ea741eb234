"""Gopher repetition, C4 and FineWeb against datatrove's: the same decision and reason, document by document."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.datatrove_filters import PAIRS, by_datatrove, by_gristmill
from gristmill.filters.c4 import C4Quality
from gristmill.filters.fineweb import FineWebQuality
from gristmill.filters.repetition import GopherRepetition
from gristmill.filters.text.docs import Docs

NEW = ["gopher_repetition", "c4_quality", "fineweb_quality"]
every = pytest.mark.parametrize("name", NEW)
WORDS = ["the", "of", "mill", "grain", "flour", "stone", "water", "wheel", "a", "b", "c", "over", "under", "river"]


def docs(texts: list[str]) -> Docs:
    return Docs(pa.array(texts, pa.string()))


def repeating(rng: random.Random) -> str:
    """A text that says some of its lines, paragraphs and phrases again, or words that run together alike."""
    vocabulary = rng.choice([WORDS, WORDS[:4], ["ab", "a", "b", "aba"], ["a-b", "-", "ba", "ß", "中"]])
    words = [rng.choice(vocabulary) for _ in range(rng.choice([1, 3, 20, 60]))]
    phrase = [rng.choice(WORDS) for _ in range(rng.choice([2, 3, 4, 5, 7, 10, 12]))]
    for _ in range(rng.choice([0, 1, 3, 8])):
        at = rng.randrange(len(words) + 1)
        words[at:at] = phrase
    breaks = rng.choice([[" "], [" ", " ", " ", "\n"], [" ", "\n", "\n\n"], [" ", "\n\n\n", " \n", "\r\n"]])
    text = "".join(word + rng.choice(breaks) for word in words)
    line = rng.choice(["the mill of the river", "", "x", "flour."])
    return rng.choice([text, text, text + ("\n" + line) * rng.choice([2, 5]), f"\n\n{text}\n\n" + text[:30]])


LINES = [
    "The mill stands by the river, and it turns all day.",
    "Nothing here. Something there! Why? Because it does.",
    "He said: \u201cno.\u201d Then he left\u2026 twice...",
    "As was shown[12], it turns.[edit] So it does [citation needed].",
    "It turns [citation needed] .[٣]",
    "This page uses cookies to turn the mill.",
    "Read our PRIVACY POLICY, or the terms of use, or else.",
    "We use coo\u212aies at the mill.",
    "You need JavaScript to see the mill.",
    "you need javascrİpt to see the mill!",
    "Lorem Ipsum dolor sit amet.",
    "if (mill) { turn(); } else { stop(); } and so on.",
    "javascript: function () { return 1 }.",
    "short line.",
    "No end to this line of words",
    "It ends with an ellipsis...",
    'It ends with a quote, "said the miller"',
    "don't stop; e.g. the U.S. mill ... it turned.\tIt did.\u00a0 Yes!",
    "x" * 1001 + " is a long word.",
    "IS_ALPHA is a flag. It is not a word.",
    "foo:) ) is odd. So it is.",
    "a b.",
    "",
    "   ",
]
ENDS = ["\n", "\n", "\n\n", "\r\n", "\r", "\u2028", "\x0b", "\x1c", "\x85"]


def lined(rng: random.Random) -> str:
    """A text of lines that C4 and FineWeb look at."""
    pool = rng.sample(LINES, rng.choice([2, 5, 8]))
    plain = LINES[:5]
    picked = (rng.choice(pool) if rng.random() < 0.4 else rng.choice(plain) for _ in range(rng.choice([0, 1, 4, 12])))
    ends = rng.choice([["\n"], ENDS])
    return "".join(rng.choice(["", "", " ", "\t"]) + line + rng.choice(ends) for line in picked)


EDGES = [
    "",
    " ",
    "\n",
    "\n\n \n",
    "a",
    "\na\n",
    "\n\n\na\n\n\na",
    "a\n" * 50,
    "x" * 100_000,
    ". " * 99,
    "IS_ALPHA",
    "é\n\né",
]


def corpus(seed: int) -> list[str]:
    rng = random.Random(seed)
    return [*EDGES, *(repeating(rng) for _ in range(500)), *(lined(rng) for _ in range(500))]


def comparable(name: str, texts: list[str]) -> list[str]:
    """Without those on which datatrove divides by zero."""
    return [text for text in texts if not (name == "fineweb_quality" and text == "IS_ALPHA")]


@every
def test_every_reason_of_datatrove_is_ours(name: str) -> None:
    assert sorted(PAIRS[name].reasons.values()) == sorted(PAIRS[name].own.evidence)


@every
def test_same_decision_and_reason_on_generated_texts(name: str) -> None:
    texts = comparable(name, corpus(3))
    reasons = by_datatrove(name, texts)
    assert by_gristmill(name, texts) == reasons
    assert reasons.count(None) > 20


def test_generated_texts_meet_nearly_every_reason() -> None:
    met = {name: Counter(by_gristmill(name, corpus(3))) for name in NEW}
    missed = {
        name: sorted(set(PAIRS[name].reasons.values()) - {str(reason).partition(".")[2] for reason in met[name]})
        for name in NEW
    }
    rare = [f"repeated_{n}_grams" for n in (7, 8, 9, 10)]
    assert set(missed["gopher_repetition"]) <= {*rare, "repeated_6_grams", "repeated_paragraph_chars"}
    assert missed["c4_quality"] == missed["fineweb_quality"] == []


@settings(max_examples=60)
@given(
    st.lists(st.text(st.sampled_from("ab .\n中"), max_size=60), max_size=6),
    st.tuples(*[st.none() | st.sampled_from([0.05, 0.2, 0.5])] * 4),
    st.sampled_from([0.01, 0.1, 0.3, 1.0]),
)
def test_repetition_with_any_threshold(texts: list[str], shares: tuple[float | None, ...], most: float) -> None:
    ns = {f"max_top_{n}_gram": most for n in (2, 3, 4)} | {f"max_repeated_{n}_grams": most for n in range(5, 11)}
    oracle = GopherRepetitionFilter(
        dup_para_frac=shares[0],
        dup_para_char_frac=shares[1],
        dup_line_frac=shares[2],
        dup_line_char_frac=shares[3],
        top_n_grams=tuple((n, most) for n in (2, 3, 4)),  # type: ignore[arg-type]
        dup_n_grams=tuple((n, most) for n in range(5, 11)),  # type: ignore[arg-type]
    )
    names = ("max_repeated_paragraphs", "max_repeated_paragraph_chars", "max_repeated_lines", "max_repeated_line_chars")
    thresholds = dict(zip(names, shares, strict=True)) | ns
    expected = by_datatrove("gopher_repetition", texts, oracle)
    assert by_gristmill("gopher_repetition", texts, **thresholds) == expected


@pytest.mark.parametrize(
    ("settings_here", "settings_there"),
    [
        ({"terminal_punctuation": False}, {"filter_no_terminal_punct": False}),
        ({"remove_citations": False, "min_sentences": 2}, {"remove_citations": False, "min_num_sentences": 2}),
        ({"javascript": False, "policy": False}, {"filter_javascript": False, "filter_policy": False}),
        ({"lorem_ipsum": False, "min_sentences": 3}, {"filter_lorem_ipsum": False, "min_num_sentences": 3}),
        ({"curly_bracket": False}, {"filter_curly_bracket": False}),
        ({"min_words_per_line": None, "max_word_length": 3}, {"min_words_per_line": -1, "max_word_length": 3}),
        ({"min_words_per_line": 9, "max_word_length": None}, {"min_words_per_line": 9, "max_word_length": -1}),
    ],
    ids=str,
)
def test_c4_with_other_settings(settings_here: dict[str, Any], settings_there: dict[str, Any]) -> None:
    texts = corpus(5)[:12] + corpus(5)[-400:]
    assert by_gristmill("c4_quality", texts, **settings_here) == by_datatrove(
        "c4_quality", texts, C4QualityFilter(**settings_there)
    )


@pytest.mark.parametrize(
    ("settings_here", "settings_there"),
    [
        ({"exclude_zero_endings": True}, {"line_punct_exclude_zero": True}),
        ({"min_ending_lines": 0.6, "max_short_lines": 0.2}, {"line_punct_thr": 0.6, "short_line_thr": 0.2}),
        ({"short_line_length": 8, "max_repeated_chars": 0.3}, {"short_line_length": 8, "char_duplicates_ratio": 0.3}),
        ({"max_newlines_per_word": 0.05}, {"new_line_ratio": 0.05}),
    ],
    ids=str,
)
def test_fineweb_with_other_settings(settings_here: dict[str, Any], settings_there: dict[str, Any]) -> None:
    texts = comparable("fineweb_quality", corpus(9))
    expected = by_datatrove("fineweb_quality", texts, FineWebQualityFilter(**settings_there))
    assert by_gristmill("fineweb_quality", texts, **settings_here) == expected


def shared_texts(folder: Path) -> list[str]:
    """The text of every record of the shared data that has one."""
    texts: list[str] = []
    for file in sorted(folder.glob("*/*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            texts += [value for value in record.values() if isinstance(value, str) and len(value) > 60]
    return texts


@pytest.mark.parametrize("name", PAIRS)
def test_same_decision_and_reason_on_real_text(name: str, shared_data: Path) -> None:
    texts = shared_texts(shared_data)
    texts = texts[:: max(len(texts) // 1500, 1)]
    assert len(texts) > 1000
    reasons = by_datatrove(name, texts)
    assert by_gristmill(name, texts) == reasons
    assert 0 < reasons.count(None) < len(texts)


@pytest.mark.parametrize(
    ("tuned", "plain"),
    [
        (GopherRepetition(languages=(), max_top_2_gram=0.1, max_repeated_lines=None), GopherRepetition(languages=())),
        (C4Quality(languages=(), min_sentences=2, curly_bracket=False), C4Quality(languages=())),
        (FineWebQuality(languages=(), max_repeated_chars=0.3, exclude_zero_endings=True), FineWebQuality(languages=())),
    ],
    ids=lambda filter_: filter_.name,
)
def test_a_threshold_is_replayed_from_stored_measures(tuned: Any, plain: Any) -> None:
    batch = docs(corpus(13))
    stored = plain.measure(batch)
    assert tuned.rule(stored).to_pylist() == tuned.judge(batch).to_pylist()
    assert tuned.rule(stored).to_pylist() != plain.rule(stored).to_pylist()


@every
def test_other_languages_are_kept_unmeasured(name: str) -> None:
    texts = pa.array(["too short", "zu kurz"])
    batch = Docs(texts, languages=pa.array(["de", None], pa.string()))
    measures = PAIRS[name].own().measure(batch)
    assert all(column.null_count == 2 for column in measures.columns)
    assert PAIRS[name].own().rule(measures).null_count == 2


def test_the_earlier_of_lorem_ipsum_and_a_bracket_is_the_reason() -> None:
    lorem, bracket = "Lorem ipsum is here, it is.", "a { bracket } is here."
    texts = [f"{lorem}\n{bracket}", f"{bracket}\n{lorem}", f"{lorem} {bracket}"]
    reasons = ["c4_quality.lorem_ipsum", "c4_quality.curly_bracket", "c4_quality.lorem_ipsum"]
    assert by_gristmill("c4_quality", texts) == by_datatrove("c4_quality", texts) == reasons


def test_what_repeats_itself_without_end_takes_linear_time() -> None:
    # A Thue-Morse text: a polynomial hash modulo 2^64 takes its parts for one another.
    parity = [bin(n).count("1") % 2 for n in range(1 << 17)]
    texts = ["a " * 200_000, " ".join("ab"[bit] * 9 for bit in parity), "\n" * 500_000 + "x", "a\n\n" * 100_000]
    batch = docs(texts)
    for name in PAIRS:
        assert PAIRS[name].own(languages=()).measure(batch).num_rows == len(texts)
