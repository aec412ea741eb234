"""Language by fastText's lid.176: the label of five windows spread over a text, and how sure the middle one is.

A menu or a cookie notice in other languages fills a window or two, not three: the label is the one with the highest
mean over the windows, the score its median. Capitals and no-break spaces are lowered and levelled for the model, which
knows neither. datatrove reads whole texts and looks at all labels, so that below a `min_score` of 0.5 it can also keep
a document whose second label is wanted. Scores are rounded to 4 decimals: builds differ beyond. `measure` labels the
batch (`docs.languages`), for the filters behind it that ask for a language.
Source: https://fasttext.cc/docs/en/language-identification.html; datatrove 0.10.1,
pipeline/filters/language_filter.py.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters import lid
from gristmill.filters.base import Filter, below, first_reason
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.scores import LEAST_SCORES, OTHERS

WINDOWS, WINDOW = 5, 200
"""Windows of a text, and characters of one: 1,000 in all, as many as one head would need to be told from others."""
BY_LANGUAGE: Literal["by_language"] = "by_language"
LABELS = 2
"""Best labels of a window that take part in the mean."""
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]+")  # soft hyphen, zero-width space, word joiner, BOM: inside words
_PREFIX = "__label__"

_SCHEMA = pa.schema(
    [
        pa.field("language", pa.string()),  # lid.176's label: ISO 639-1 where there is one, else ISO 639-3
        pa.field("language_score", pa.float32()),  # 0 to 1
    ]
)


class Glance(NamedTuple):
    """Label and score of windows as `measure` has them of a text, but not rounded (None, NaN without any), and the most
    that the languages of `keep` have together in one of them, 0 to 1."""

    language: str | None
    score: float
    wanted: float


@dataclass(frozen=True)
class LanguageFilter(Filter[Docs]):
    """Keeps documents whose language is in `keep` (lid.176's labels; empty = any) with at least `min_score`, which is
    one number for all, or "by_language" for each its own (filters/text/scores.py).

    `model_path` says where the model lies (see `filters.lid`); it is no threshold and no part of the
    filter's identity (`compare=False`): `model_digest()` is.
    """

    keep: tuple[str, ...] = ("en",)
    min_score: float | Literal["by_language"] | None = 0.65
    model_path: str | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "language"
    VERSION: ClassVar[int] = 2
    measured_with: ClassVar[frozenset[str]] = frozenset({"model_path"})
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"no_text": "language", "unwanted": "language", "low_score": "language_score"}
    )

    def __post_init__(self) -> None:
        is_number = isinstance(self.min_score, int | float)
        if self.min_score not in (None, BY_LANGUAGE) and not (is_number and 0 <= self.min_score <= 1):
            raise ValueError(
                f"language.min_score is {self.min_score}; a probability, from 0 to 1, {BY_LANGUAGE} or null is allowed"
            )

    def model_digest(self) -> str:
        """sha256 of the model's file, hex: part of a stage's identity."""
        return lid.digest(lid.find_model(self.model_path))

    def check(self) -> None:
        """Whether this can work at all. Raises what `measure`, `lid.find_model` and `lid.load_model` raise."""
        self._check(lid.load_model(lid.find_model(self.model_path)))

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Label and score of each document, null where there is no text; also sets `docs.languages`.

        Raises ValueError if `keep` has a label that the model does not know.
        """
        model = lid.load_model(lid.find_model(self.model_path))
        self._check(model)
        windows = [_windows(text) for text in docs.strings]
        predicted = iter(_predict(model, [window for of_text in windows for window in of_text]))
        verdicts = [_verdict([next(predicted) for _ in of_text]) for of_text in windows]
        labels = [label for label, _ in verdicts]
        scores = np.array([score for _, score in verdicts], np.float64)
        rounded = np.round(np.clip(scores, 0.0, 1.0), 4).astype(np.float32)
        columns = [pa.array(labels, pa.string()), pa.array(rounded, mask=np.isnan(rounded))]
        docs.languages = columns[0]
        return pa.record_batch(columns, schema=_SCHEMA)

    def glance(self, windows: Sequence[str]) -> Glance:
        """What windows over a text look like of which nobody has extracted the main part. Raises as `lid.find_model`
        and `lid.load_model`."""
        lines = [line for window in windows for line in _windows(window)]
        predicted = _predict(lid.load_model(lid.find_model(self.model_path)), lines)
        keep = [f"{_PREFIX}{language}" for language in self.keep]
        wanted = [sum(window.get(label, 0.0) for label in keep) for window in predicted]
        return Glance(*_verdict(predicted), wanted=max(wanted, default=0.0))

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """No text, then an unwanted language, then a low score; from measures alone."""
        language = measures.column("language")
        unknown = pc.is_null(language).to_numpy(zero_copy_only=False)
        wanted = pc.is_in(language, value_set=pa.array(self.keep, pa.string())).to_numpy(zero_copy_only=False)
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("no_text", unknown),
                ("unwanted", ~wanted if self.keep else np.zeros_like(wanted)),
                ("low_score", self._too_low(measures)),
            ],
        )

    def _too_low(self, measures: pa.RecordBatch) -> np.ndarray:
        """Whose score is under what is asked of its language, bool [rows]; never where it is null."""
        scores = measures.column("language_score")
        if self.min_score != BY_LANGUAGE:
            return below(scores, self.min_score)
        languages = measures.column("language").to_pylist()
        least = pa.array([LEAST_SCORES.get(language, OTHERS) for language in languages], scores.type)
        return pc.fill_null(pc.less(scores, least), False).to_numpy(zero_copy_only=False)

    def config(self) -> dict[str, Any]:
        """The thresholds and the model's bytes, which decide like a threshold does, wherever the file lies."""
        config = super().config()
        del config["model_path"]
        if self.min_score == BY_LANGUAGE:
            config["min_scores"] = {"others": OTHERS, **LEAST_SCORES}
        return config | {"model_sha256": self.model_digest()}

    def _check(self, model: Any) -> None:
        known = {label.removeprefix(_PREFIX) for label in model.get_labels()}
        if unknown := sorted(set(self.keep) - known):
            raise ValueError(
                f"language.keep has {unknown}, which the model never answers; use its labels: {' '.join(sorted(known))}"
            )


def _windows(text: str) -> list[str]:
    """What the model sees: a short text whole, of a longer one `WINDOWS` windows from its head to its tail."""
    text = text.strip()
    if len(text) <= WINDOWS * WINDOW:
        windows = [text]
    else:
        step = (len(text) - WINDOW) / (WINDOWS - 1)
        starts = [round(step * k) for k in range(WINDOWS)]
        windows = [text[start : start + WINDOW] for start in starts]
    lines = [" ".join(_INVISIBLE.sub("", window).split()).lower() for window in windows]
    return [line for line in lines if line]


def _predict(model: Any, lines: list[str]) -> list[dict[str, float]]:
    """The best labels of each line with their probabilities; none for a line without a single known n-gram."""
    if not lines:
        return []
    labels, scores = model.predict(lines, k=LABELS)
    return [dict(zip(*pair, strict=True)) for pair in zip(labels, scores, strict=True)]


def _verdict(windows: Sequence[Mapping[str, float]]) -> tuple[str | None, float]:
    """The label with the highest mean over the windows, and the median of its probabilities; None, NaN without any."""
    sums: dict[str, float] = {}
    for window in windows:
        for label, probability in window.items():
            sums[label] = sums.get(label, 0.0) + probability
    if not sums:
        return None, math.nan
    best = min(sums, key=lambda label: (-sums[label], label))
    return best.removeprefix(_PREFIX), statistics.median(window.get(best, 0.0) for window in windows)
