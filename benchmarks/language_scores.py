"""`python -m benchmarks.language_scores`: least language scores by FineWeb-2's formula, as filters/text/scores.py has
them, from the sentences of lingua in ../shared/data/6_langid. Prints the table."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict

import pyarrow as pa

from benchmarks.material import SHARED
from gristmill.filters.language import LanguageFilter
from gristmill.filters.text.docs import Docs

SENTENCES = SHARED / "6_langid" / "lingua_sentences.jsonl"
LEAST, MOST = 0.3, 0.9
"""Bounds of the formula."""
FEWEST = 50
"""Sentences of a language, of 100, that have to be labelled as it."""


def least_scores() -> dict[str, float]:
    """Language -> max(.3, min(.9, median - standard deviation)) of the scores of those of its sentences that are
    labelled as it, to two decimals; without languages of which fewer than FEWEST are."""
    records = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    texts = [record["text"] for record in records]
    batch = pa.record_batch({"text": texts, "url": [""] * len(texts)})
    measures = LanguageFilter(keep=(), min_score=None).measure(Docs.of(batch))
    scores = defaultdict(list)
    labels = measures.column("language").to_pylist()
    for record, label, score in zip(records, labels, measures.column("language_score").to_pylist(), strict=True):
        if label == record["lang"]:
            scores[label].append(score)
    return {
        label: round(max(LEAST, min(MOST, statistics.median(values) - statistics.pstdev(values))), 2)
        for label, values in sorted(scores.items())
        if len(values) >= FEWEST
    }


if __name__ == "__main__":
    for label, score in least_scores().items():
        print(f'    "{label}": {score},')
