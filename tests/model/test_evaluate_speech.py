"""Transcripts and translations judged: by hand, by torchaudio's distance, and by sacrebleu itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from torchaudio.functional import edit_distance

from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.reading import edits
from gristmill.model.evaluate.samples import Item, NoItem, Rules, item_of, verdict_of
from gristmill.model.evaluate.scores import ROWS, Score, scores_of
from gristmill.model.evaluate.transcripts import NORMALISATIONS, Normalisation, plain, transcript_reading
from gristmill.model.evaluate.translation import bleu, bleu_counts, chrf, chrf_counts
from gristmill.model.processing.segments import Segment, placeholder, translated

TEXT = st.text(alphabet="ab c", max_size=12)


@settings(max_examples=60)
@given(TEXT, TEXT)
def test_the_distance_is_torchaudios(a: str, b: str) -> None:
    assert edits(a, b) == edit_distance(a, b)
    assert edits(a.split(), b.split()) == edit_distance(a.split(), b.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Mill, by the river.", "the mill by the river"),
        ("Don’t STOP-now!", "don't stop now"),
        ("'quoted' rock 'n' roll", "quoted rock n roll"),
        ("Straße ﬁne Ⅷ", "strasse fine viii"),
        ("é e\u0301", "é é"),
        ("ＡＢＣ１２３", "abc123"),
        ("$3.50 & 20 %", "3 50 20"),
        ("नमस्ते, दुनिया", "नमस्ते दुनिया"),
        ("...", ""),
    ],
)
def test_what_counts_as_the_same(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain(plain(text)) == plain(text)
    assert NORMALISATIONS["characters"](text) == expected.replace(" ", "")


def test_rates_by_hand() -> None:
    how = Normalisation()
    # One word of six is another one, one is too many: two edits.
    near = transcript_reading("The mill by a river is is", "the mill, by the river is.", "en", how)
    assert (near.words, near.word_errors) == (6, 2)
    assert (near.chars, near.char_errors) == (24, 6)
    # Chinese has no words to count: one character of six is missing, blanks and punctuation are none.
    near = transcript_reading("今天天气 很", "今天天气很好。", "zh", how)
    assert near == (0, 0, 6, 1)
    as_text = transcript_reading("a  B.", "a b", "en", Normalisation("none"))
    assert as_text == (2, 1, 3, 2)
    assert transcript_reading("abc", "", "en", how) == (0, 1, 0, 3)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [({"default": "loud"}, "default='loud': allowed are none, plain"), ({"by_language": {"en": "x"}}, "en='x'")],
)
def test_an_unknown_normalisation_is_refused(settings_: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Normalisation(**settings_)  # type: ignore[arg-type]


PAIRS = [
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("the dog ran to the sea", "a dog ran down to the sea , fast"),
    ("", "nothing was said"),
    ("on the mat the cat sat", "the cat is sitting on the mat"),
    ("short", "short"),
    ("a b", "c d e f g"),
]


def counted(pairs: Sequence[tuple[str, str]], language: str | None = None) -> tuple[float, float]:
    """BLEU and chrF of a corpus, from sums of counts."""
    sums = [
        np.array([bleu_counts(*pair, language) for pair in pairs]).sum(axis=0),
        np.array([chrf_counts(*pair) for pair in pairs]).sum(axis=0),
    ]
    return float(bleu(sums[0])), float(chrf(sums[1]))


def by_sacrebleu(pairs: Sequence[tuple[str, str]], tokenizer: str = "13a") -> tuple[float, float]:
    answers, expected = [answer for answer, _ in pairs], [[text for _, text in pairs]]
    scores = BLEU(tokenize=tokenizer).corpus_score(answers, expected), CHRF().corpus_score(answers, expected)
    return scores[0].score / 100, scores[1].score / 100


@pytest.mark.parametrize(
    "pairs", [PAIRS, PAIRS[:1], PAIRS[1:2], PAIRS[2:3], PAIRS[3:4], PAIRS[4:5], PAIRS[5:], PAIRS[4:]], ids=range(8)
)
def test_scores_of_a_corpus_are_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    assert counted(pairs) == pytest.approx(by_sacrebleu(pairs), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_scores_of_any_corpus_are_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    assert counted(pairs) == pytest.approx(by_sacrebleu(pairs), abs=1e-12)


@pytest.mark.parametrize(("language", "tokenizer"), [("zh", "zh"), ("ja", "char"), ("de", "13a")])
def test_tokens_of_bleu_are_those_of_the_language(language: str, tokenizer: str) -> None:
    pairs = [("今天天气很好吗", "今天的天气很好"), ("das ist gut, ja", "das war gut, ja")]
    assert counted(pairs, language)[0] == pytest.approx(by_sacrebleu(pairs, tokenizer)[0], abs=1e-12)


def test_bleu_by_hand() -> None:
    """5 of 6 words right, 3 of 5 pairs, 1 of 4 triples, none of 3 fours, which then is half of one; as long as it
    should be."""
    counts = bleu_counts("the cat sat on a mat", "the cat lay on a mat")
    assert counts == [6, 6, 5, 3, 1, 0, 6, 5, 4, 3]
    assert float(bleu(np.array(counts))) == pytest.approx((5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25)


def test_chrf_by_hand() -> None:
    """Of abc and abd two of three letters, one of two pairs, none of the only triple."""
    counts = chrf_counts("a bc", "ab d")
    assert counts == [3, 3, 2, 2, 2, 1, 1, 1, 0, *[0] * 9]
    assert float(chrf(np.array(counts))) == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_scores_of_resamples_are_those_of_each() -> None:
    sums = np.array([[bleu_counts(*pair) for pair in PAIRS[:2]], [bleu_counts(*pair) for pair in PAIRS[1:3]]])
    assert bleu(sums).tolist() == [[float(bleu(own)) for own in row_] for row_ in sums]


def parts(answer: str) -> list[Segment]:
    return [
        Segment("<|user|>", special=True),
        placeholder("audio", 1),
        Segment("What is said?"),
        Segment("<|end|>", special=True),
        Segment("<|assistant|>", special=True),
        Segment(answer, loss_mask=True),
        Segment("<|end|>", special=True, loss_mask=True),
    ]


def test_items_of_clips() -> None:
    rules = Rules()
    item = item_of(parts("the mill"), rules, "transcript", "en")
    assert (item.task, item.expected, item.language, item.question) == (
        "transcript", "the mill", "en", "What is said?",
    )  # fmt: skip
    assert item_of(parts("the mill <sep> die Mühle"), rules, "translation", "de").expected == "die Mühle"
    assert item_of(parts("the mill"), rules).task == "answer"
    with pytest.raises(NoItem, match="no_expected"):
        item_of(parts("the mill <sep> "), rules, "translation")


def test_verdicts() -> None:
    right = verdict_of(Item("transcript", (), expected="The mill.", language="en"), "the mill", None, Rules())
    assert right == {
        "words": 2, "word_errors": 0, "chars": 8, "char_errors": 0, "score": 1.0, "reason": None,
    }  # fmt: skip
    item = Item("translation", (), expected="die Mühle mahlt", language="de")
    verdict = verdict_of(item, "the mill grinds <sep> die Mühle mahlt", None, Rules())
    assert verdict["score"] == 1.0 and verdict["bleu"] == bleu_counts("die Mühle mahlt", "die Mühle mahlt")
    assert verdict_of(item, "die Mühle", None, Rules())["reason"] == "other_answer"
    assert translated("a <sep> b <sep> c") == "c" and translated(" a ") == "a"


def row(**fields: object) -> dict[str, object]:
    return {"id": "r", "source": "speech@v1", "task": "transcript", "score": 0.0, **fields}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ROWS)


def named(scores: Sequence[Score]) -> dict[tuple[str, str], Score]:
    return {(score.metric, score.group): score for score in scores}


def test_rates_are_of_the_corpus_and_of_each_language() -> None:
    rows = table(
        row(language="en", kind="asr", words=4, word_errors=1, chars=16, char_errors=1, score=0.0),
        row(language="en", kind="asr", words=16, word_errors=9, chars=64, char_errors=19, score=0.0),
        row(language="zh", kind="asr", words=0, word_errors=0, chars=20, char_errors=5, score=1.0),
    )
    scores = named(scores_of(rows, Bootstrap(100)))
    assert scores["wer", ""].value == 0.5 and scores["wer", ""].items == 2  # not the mean of 0.25 and 0.5625
    assert scores["cer", ""].value == 0.25 and scores["cer", "language: zh"].value == 0.25
    assert scores["cer", "language: en"].value == 0.25 and ("wer", "language: zh") not in scores
    assert scores["exact", ""].value == pytest.approx(1 / 3)
    assert scores["wer", ""].low <= 0.5 <= scores["wer", ""].high
    assert not any(group.startswith("kind") for _, group in scores)  # there is one alone


def test_scores_of_translations_have_intervals_of_resampled_counts() -> None:
    rows = table(
        *(
            row(task="translation", kind="ast", bleu=bleu_counts(*pair), chrf=chrf_counts(*pair), score=0.0)
            for pair in PAIRS * 4
        )
    )
    scores = named(scores_of(rows, Bootstrap(200)))
    expected = by_sacrebleu(PAIRS * 4)
    for metric, value in zip(("bleu", "chrf"), expected, strict=True):
        score = scores[metric, ""]
        assert score.value == pytest.approx(value) and score.low < value < score.high


def test_rows_of_an_earlier_release_have_no_language() -> None:
    """Their columns are null: every metric that they had is as before."""
    rows = table(row(task="answer", score=1.0, words=1, word_errors=0, chars=1, char_errors=0))
    scores = scores_of(rows, Bootstrap(100))
    assert {score.metric for score in scores} == {"exact", "word_accuracy", "ocr_accuracy"}
    assert all(math.isfinite(value) for score in scores for value in dataclasses.astuple(score)[3:6])
