"""GopherQuality against datatrove's: the same decision and the same reason, document by document."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.datatrove_filters import QUALITY as REASONS
from benchmarks.datatrove_filters import by_datatrove as verdicts_of_datatrove
from gristmill.filters.gopher import GopherQuality
from gristmill.filters.text.docs import Docs

WORDS = ["the", "be", "to", "of", "and", "that", "have", "with", "mill", "grain", "flour", "stone", "water"]
WORDS += ["wheel", "the", "of", "12", "3.5", "naïve", "中文"]


def docs(texts: list[str], languages: list[str | None] | None = None) -> Docs:
    labels = None if languages is None else pa.array(languages, pa.string())
    return Docs(pa.array(texts, pa.string()), languages=labels)


def by_datatrove(texts: list[str], oracle: GopherQualityFilter) -> list[str | None]:
    return verdicts_of_datatrove("gopher_quality", texts, oracle)


def judge(texts: list[str], **thresholds: object) -> list[str | None]:
    return GopherQuality(languages=(), **thresholds).judge(docs(texts)).to_pylist()  # type: ignore[arg-type]


def edge_text(rng: random.Random) -> str:
    """A document with each of the measures somewhere around its threshold, or far from it."""
    vocabulary = rng.choice([WORDS, WORDS, ["mill", "grain"], ["a", "to", "I"], ["the", "of", "x" * 23]])
    marks = rng.choices(["#", "...", "…", "42", "--", "(c)", "¿", "word..."], k=2)
    rate = rng.choice([0, 0, 0.05, 0.1, 0.11, 0.2, 0.3])
    bullets, ellipses = rng.choice([0, 0, 0.9, 1.0]), rng.choice([0, 0, 0.3, 0.4])
    lines = []
    for _ in range(rng.choice([1, 10, 20])):
        size = rng.randint(2, 8)
        line = " ".join(rng.choice(marks) if rng.random() < rate else rng.choice(vocabulary) for _ in range(size))
        line = rng.choice(["- ", "\u2003• ", "•"]) + line if rng.random() < bullets else line
        lines.append(line + rng.choice(["...", "… ", " ..."]) if rng.random() < ellipses else line)
    return rng.choice(["\n", "\r\n", "\u2028", "\x0b", "\n\n"]).join(lines)


def test_every_reason_of_datatrove_is_ours() -> None:
    assert sorted(REASONS.values()) == sorted(set(GopherQuality.evidence) - {"symbol_run_too_long"})


def test_same_decision_and_reason_on_edge_documents() -> None:
    rng = random.Random(11)
    texts = [
        "",
        " ",
        "\n",
        "...",
        "#" * 99,
        "• " * 99,
        "-",
        "x" * 100_000,
        *(edge_text(rng) for _ in range(1500)),
    ]
    reasons = by_datatrove(texts, GopherQualityFilter())
    assert judge(texts) == reasons
    seen = Counter(reasons)
    assert seen[None] > 20
    assert len(seen) == len(REASONS)  # all but the one reason that takes 100,000 words, and None


def test_too_many_words() -> None:
    texts = ["the miller of " * 33_333 + "a", "the miller of " * 33_333 + "a b"]
    assert judge(texts) == by_datatrove(texts, GopherQualityFilter()) == [None, "gopher_quality.too_many_words"]


@settings(max_examples=60)
@given(
    st.lists(
        st.text(st.one_of(st.sampled_from(" \n#.…•-a'"), st.characters(codec="utf-8")), max_size=80),
        max_size=5,
    ),
    st.tuples(*[st.none() | st.integers(1, 4)] * 5),
    st.tuples(*[st.none() | st.sampled_from([0.05, 0.1, 0.5, 0.9])] * 4),
)
def test_same_decision_with_any_threshold(
    texts: list[str], counts: tuple[int | None, ...], ratios: tuple[float | None, ...]
) -> None:
    texts = ["the " + text for text in texts]  # datatrove divides by zero on no words
    oracle = GopherQualityFilter(
        counts[0], counts[1], counts[2], counts[3], ratios[0], ratios[1], ratios[2], ratios[3], counts[4]
    )
    verdicts = judge(
        texts,
        min_words=counts[0],
        max_words=counts[1],
        min_mean_word_length=counts[2],
        max_mean_word_length=counts[3],
        max_symbol_ratio=ratios[0],
        max_bullet_line_ratio=ratios[1],
        max_ellipsis_line_ratio=ratios[2],
        min_alpha_word_ratio=ratios[3],
        min_stop_words=counts[4],
    )
    assert verdicts == by_datatrove(texts, oracle)


def test_same_decision_and_reason_on_real_text(shared_data: Path) -> None:
    files = [
        *sorted((shared_data / "8_quality").glob("*.jsonl")),
        shared_data / "2_pages" / "pages.gold.jsonl",
    ]
    records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [text for text in (record.get("text") or record.get("main_text") for record in records) if text]
    assert len(texts) > 300
    reasons = by_datatrove(texts, GopherQualityFilter())
    assert judge(texts) == reasons
    assert 0 < reasons.count(None) < len(texts)


def test_a_threshold_is_replayed_from_stored_measures() -> None:
    rng = random.Random(5)
    batch = docs([edge_text(rng) for _ in range(200)])
    stored = GopherQuality(languages=()).measure(batch)
    tuned = GopherQuality(languages=(), min_words=20, max_symbol_ratio=0.2, min_alpha_word_ratio=None)
    assert tuned.rule(stored).to_pylist() == tuned.judge(batch).to_pylist()
    assert tuned.rule(stored).to_pylist() != GopherQuality(languages=()).rule(stored).to_pylist()


def test_other_languages_are_kept_unmeasured() -> None:
    batch = docs(["too short", "zu kurz", "?"], ["en", "de", None])
    quality = GopherQuality()
    measures = quality.measure(batch)
    assert quality.rule(measures).to_pylist() == ["gopher_quality.too_few_words", None, None]
    assert all(column.null_count == 2 for column in measures.columns)


def test_labels_are_asked_for() -> None:
    with pytest.raises(ValueError, match="run the language filter first"):
        GopherQuality().judge(docs(["text"]))


def test_no_words_at_all_has_no_ratios() -> None:
    assert judge(["", "\n"], min_words=None, min_stop_words=None) == [None, None]
    assert judge(["", "\n"], min_words=None) == ["gopher_quality.too_few_stop_words"] * 2


def test_zero_is_a_threshold() -> None:
    text = "the mill of the # " * 40
    assert judge([text], max_symbol_ratio=0) == ["gopher_quality.too_many_hashes"]


def test_a_run_of_symbols_that_would_take_the_tokenizer_hours_is_told_by_its_length() -> None:
    run = "(" * 200_000
    prose = "The quick brown fox and that dog have to be with the others. " * 10
    docs = Docs(pa.array([prose, prose + run, prose + "(" * 1000, run]), languages=pa.array(["en", "en", "en", "de"]))
    measures = GopherQuality().measure(docs)
    assert measures["longest_symbol_run"].to_pylist() == [0, 200_000, 1000, None]
    reason = "gopher_quality.symbol_run_too_long"
    assert GopherQuality().rule(measures).to_pylist()[:2] == [None, reason]
    assert measures["n_words"].to_pylist()[1] is None and measures["n_words"].to_pylist()[2] is not None
