"""Translations beside those expected: BLEU and chrF of a corpus, as sacrebleu defines them.

Both are functions of counts that add up over items, so what is kept of an item are its counts: a score of any items,
and of any resample of them, follows. BLEU's counts are sacrebleu's own, after its tokenizer of the language; the rest
is short, vectorised for the bootstrap, and tested against sacrebleu.
Source: Post 2018, arXiv 1804.08771 (sacrebleu; signature nrefs:1|case:mixed|eff:no|smooth:exp); Popovic 2015 (chrF2,
six orders, no words, no blanks).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

ORDERS, CHAR_ORDERS = 4, 6
BLEU_COUNTS, CHRF_COUNTS = 2 + 2 * ORDERS, 3 * CHAR_ORDERS
TOKENIZERS: Mapping[str, str] = {"zh": "zh", "ja": "char"}
"""sacrebleu's, by language: of Japanese characters, since its other ones need a dictionary."""
TOKENIZER = "13a"
"""Of every other language."""
_BETA = 2.0
_NOTHING = -9999999999.0
"""sacrebleu's logarithm of 0."""


@lru_cache
def _metric(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU  # it imports much, and few evaluations translate

    return BLEU(tokenize=tokenizer)


def bleu_counts(answer: str, expected: str, language: str | None = None) -> list[int]:
    """Tokens of both texts, n-grams of each order that are right, and those of the answer: BLEU_COUNTS numbers."""
    score = _metric(TOKENIZERS.get(language or "", TOKENIZER)).corpus_score([answer], [[expected]])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU, 0 to 1, of sums of counts [..., BLEU_COUNTS] -> [...]."""
    sizes, right, total = np.split(sums.astype(np.float64), [2, 2 + ORDERS], axis=-1)
    # Orders behind one that no answer is long enough for are 0; of those without a right one, each counts half as much
    # as the one before it would with half of one right.
    reached = np.cumprod(total > 0, axis=-1).astype(bool)
    halvings = 2.0 ** np.cumsum(reached & (right == 0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(right > 0, right / total, 1 / (halvings * total))
        logs = np.where(reached, np.log(100 * precisions), _NOTHING)
        brevity = np.where(sizes[..., 0] < sizes[..., 1], np.exp(1 - sizes[..., 1] / sizes[..., 0]), 1.0)
    score = brevity * np.exp(logs.mean(axis=-1)) / 100
    return np.where(right.any(axis=-1), score, 0.0)


def chrf_counts(answer: str, expected: str) -> list[int]:
    """Of each order the n-grams of the answer, those expected, and those in both: CHRF_COUNTS numbers."""
    texts = ["".join(text.split()) for text in (answer, expected)]
    counts: list[int] = []
    for order in range(1, CHAR_ORDERS + 1):
        given, wanted = (Counter(text[at : at + order] for at in range(len(text) - order + 1)) for text in texts)
        counts += [given.total() if wanted else 0, wanted.total(), (given & wanted).total()]
    return counts


def chrf(sums: np.ndarray) -> np.ndarray:
    """chrF, 0 to 1, of sums of counts [..., CHRF_COUNTS] -> [...]."""
    given, wanted, right = np.moveaxis(sums.astype(np.float64).reshape(*sums.shape[:-1], CHAR_ORDERS, 3), -1, 0)
    counted = (given > 0) & (wanted > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(counted, right / given, 0.0).sum(axis=-1) / orders
        recall = np.where(counted, right / wanted, 0.0).sum(axis=-1) / orders
        score = (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)
