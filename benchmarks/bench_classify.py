"""How much faster is a trained classifier as a filter here than datatrove's, with the same model and the same labels?

Both score the same lines: the words of one window of each text, made before, since datatrove reads a text as it comes.
`whole`: ours with all that it does, eight windows of the text made and scored, beside datatrove's on the whole text.
`words`: the share of a text that is obscene or hateful, for which datatrove has nothing; megabytes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters.fasttext_filter import FastTextClassifierFilter

from benchmarks.fast_text import open_model
from benchmarks.harness import Arm, Report, Row, contest, figure, require_equal
from benchmarks.material import generated_texts
from benchmarks.material import texts as load_texts
from gristmill.filters.classify.filter import Quality
from gristmill.filters.classify.learn import FastText
from gristmill.filters.classify.model import from_file
from gristmill.filters.classify.windows import Windows, words
from gristmill.filters.classify.words import ToxicWords
from gristmill.filters.text.docs import Docs
from gristmill.lake.store.objects import scratch

MIN_SCORE = 0.5
WHOLE = Windows(1, 1_000_000)
"""Everything of a text in one window."""
ROUNDING = 1e-4
"""Around the threshold, within which our four decimals may fall on the other side."""


def model_file(texts: list[str], path: Path) -> None:
    """A model that tells long texts from short ones: what it has learned does not matter here."""
    middle = sorted(map(len, texts))[len(texts) // 2]
    lines = [
        ("positive" if len(text) > middle else "negative", line) for text in texts for line in Windows().lines(text)
    ]
    path.write_bytes(FastText(min_count=1).train(lines).data)


def run(tiny: bool) -> Report:
    """The report; `tiny` on generated texts."""
    source, texts = load_texts(tiny)
    if tiny:
        texts = [*texts, *generated_texts(20)]
    with scratch() as folder:
        path = folder / "model.bin"
        model_file(texts, path)
        return _report(source, texts, str(path), 1 if tiny else 5)


class _Datatrove(FastTextClassifierFilter):
    """Its filter with a model from a file: without `fasteners`, which it locks downloads with."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Datatrove:
        """Its own looks for packages that are not used here."""
        return object.__new__(cls)

    @cached_property
    def model(self) -> Any:
        """The model, loaded by the class that it loads models with."""
        return open_model(Path(self.model_url))


def _arms(texts: list[str], lines: list[str], path: str) -> dict[str, Arm]:
    """Each way to score texts, or the lines of their words; all but `words` say which texts are kept."""
    peer = _Datatrove(path, keep_labels=("positive", MIN_SCORE))
    whole, windowed = Quality(path, windows=WHOLE, min_score=MIN_SCORE), Quality(path, min_score=MIN_SCORE)
    model = from_file(path)

    def by_datatrove(texts: list[str]) -> list[bool]:
        return [bool(peer.filter(Document(text=text, id="0"))) for text in texts]

    def by_filter(quality: Quality) -> list[bool]:
        return [verdict is None for verdict in quality.judge(Docs(pa.array(texts))).to_pylist()]

    return {
        "datatrove": Arm(lambda: by_datatrove(lines)),
        "datatrove, texts": Arm(lambda: by_datatrove(texts)),
        "model": Arm(lambda: [bool(score >= MIN_SCORE) for score in model.scores(lines, "positive")]),
        "whole": Arm(lambda: by_filter(whole)),
        "windows": Arm(lambda: by_filter(windowed)),
        "words": Arm(lambda: ToxicWords().judge(Docs(pa.array(texts))).to_pylist()),
    }


def _report(source: str, texts: list[str], path: str, rounds: int) -> Report:
    lines = [words(WHOLE.pieces(text)[0]) for text in texts]
    close = np.abs(from_file(path).scores(lines, "positive") - MIN_SCORE) < ROUNDING

    def check(outcomes: Mapping[str, Any]) -> None:
        for name in ("model", "whole"):
            labels = np.where(close, outcomes["datatrove"], outcomes[name]).tolist()
            require_equal(f"classify: labels, datatrove against {name}", outcomes["datatrove"], labels)

    times = contest(_arms(texts, lines, path), rounds, check)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    rates = figure([megabytes / seconds for seconds in times.cpu["words"]])
    same = f"label of all {len(texts)} texts"
    rows = (
        Row("scores of the same lines, over datatrove's filter", times.ratio("datatrove", "model"), "x", same),
        Row("a filter over whole texts, words made too", times.ratio("datatrove, texts", "whole"), "x", same),
        Row("a filter over eight windows", times.ratio("datatrove, texts", "windows"), "x"),
        Row("screening by words", rates, "MB/s"),
    )
    return Report(
        name="classify",
        data=source,
        rounds=rounds,
        rows=rows,
        notes=("datatrove reads whole texts as they come; words, as the model is trained on, are made here",),
        details={
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "near_threshold": int(close.sum()),
            "cpu_seconds": {name: times.seconds(name).median for name in times.cpu},
        },
    )
