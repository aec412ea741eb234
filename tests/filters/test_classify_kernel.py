"""The kernel that scores texts: as fastText's own library does, on texts of every kind."""

from __future__ import annotations

import classifiers
import numpy as np
import pytest

from gristmill.filters.classify import model
from gristmill.filters.classify.learn import FastText
from gristmill.filters.classify.windows import prepared, words
from gristmill.filters.lid import SHIPPED

PLAIN = classifiers.texts("positive", 3, seed=9) + classifiers.texts("negative", 3, seed=9)
BLANK = ("", "  ", "_")
ODD = (
    *("a_b 1,2.3.x", "don't 'tis o'clock'", "l’été", "ﬁn ½ ² ①", "中文 字", "\n\n", "é\u0301", "١٢٣ 12a", "x' y'"),
    *("'", "😀 ok", "a" * 5000, "a\u00a0b", "…“quote”–dash", "the the the\nthe", "oven. warm, bread"),
)


@pytest.mark.parametrize("ngrams", [2, 3, 5])
def test_the_kernel_scores_as_the_library_does(ngrams):
    lines = [(label, line) for label in classifiers.LABELS for line in classifiers.texts(label, 30)]
    lines += [(label, words(" ".join(ODD))) for label in classifiers.LABELS]
    trained = model.parsed(FastText(word_ngrams=ngrams, min_count=1, epochs=25).train(lines).data)
    assert trained.arrays is not None
    pieces = [prepared(text) for text in (*PLAIN, *BLANK, *ODD, " ".join(ODD))]
    scores, expected = trained.scores(pieces, "positive"), trained.by_library(pieces, "positive")
    np.testing.assert_allclose(scores, expected, atol=1e-6)  # NaN where the other has it
    assert np.isnan(scores).sum() == len(BLANK)
    assert len(set(scores[:6].round(4))) > 2


def test_models_of_another_kind_are_left_to_the_library():
    lid = model.from_file(str(SHIPPED))
    assert lid.arrays is None
    assert lid.scores(["the baker lets the dough rest"], "en")[0] > 0.5
