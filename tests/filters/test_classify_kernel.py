"""The kernels that score texts: as fastText's own library does, on texts of every kind."""

from __future__ import annotations

import math

import classifiers
import fast_text_models
import numpy as np
import pytest

from gristmill.filters.classify import model
from gristmill.filters.classify.arrays import Arrays
from gristmill.filters.classify.learn import FastText
from gristmill.filters.classify.windows import prepared, words
from gristmill.filters.lid import SHIPPED

PLAIN = classifiers.texts("positive", 3, seed=9) + classifiers.texts("negative", 3, seed=9)
BLANK = ("", "  ", "_")
ODD = (
    *("a_b 1,2.3.x", "don't 'tis o'clock'", "l’été", "ﬁn ½ ² ①", "中文 字", "\n\n", "é\u0301", "١٢٣ 12a", "x' y'"),
    *("'", "😀 ok", "a" * 5000, "a\u00a0b", "…“quote”–dash", "the the the\nthe", "oven. warm, bread"),
)


def by_library(data: bytes, pieces: list[str], label: str) -> np.ndarray:
    """The label's probability of each piece, NaN for one without a word."""
    library = fast_text_models.library(data)
    lines = [words(piece) for piece in pieces]
    answers = [dict(zip(*answer, strict=True)) for answer in fast_text_models.answers(library, lines, 1000)]
    scores = [answer.get(f"__label__{label}", 0.0) for answer in answers]
    return np.array(
        [score if line and answer else math.nan for line, answer, score in zip(lines, answers, scores, strict=True)]
    )


@pytest.mark.parametrize("ngrams", [2, 3, 5])
def test_the_kernel_scores_as_the_library_does(ngrams):
    lines = [(label, line) for label in classifiers.LABELS for line in classifiers.texts(label, 30)]
    lines += [(label, words(" ".join(ODD))) for label in classifiers.LABELS]
    data = FastText(word_ngrams=ngrams, min_count=1, epochs=25).train(lines).data
    trained = model.parsed(data)
    assert isinstance(trained.scorer, Arrays)
    pieces = [prepared(text) for text in (*PLAIN, *BLANK, *ODD, " ".join(ODD))]
    scores = trained.scores(pieces, "positive")
    np.testing.assert_allclose(scores, by_library(data, pieces, "positive"), atol=1e-6)  # NaN where the other has it
    assert np.isnan(scores).sum() == len(BLANK)
    assert len(set(scores[:6].round(4))) > 2


def test_models_of_another_kind_are_scored_by_their_lines_of_words():
    lid = model.from_file(str(SHIPPED))
    assert not isinstance(lid.scorer, Arrays)
    pieces = [prepared(text) for text in ("the baker lets the dough rest", *PLAIN, *BLANK, *ODD)]
    for label in ("en", "de", "zu", "ja"):
        if label in lid.labels:
            np.testing.assert_allclose(
                lid.scores(pieces, label), by_library(SHIPPED.read_bytes(), pieces, label), atol=1e-6
            )
    assert lid.scores(pieces, "en")[0] > 0.5
    assert lid.scores([], "en").shape == (0,)
    with pytest.raises(ValueError, match="label='english': the model has"):
        lid.scores(pieces, "english")
