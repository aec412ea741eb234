"""Language by fastText's lid.176, or another identifier by name: the label of five windows spread over a text, and how
sure the middle one is.

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
from gristmill.filters.identify.base import Identifier
from gristmill.filters.identify.names import MODELS, Name, identifier, model_file, version
from gristmill.filters.text.docs import Docs
from gristmill.filters.text.scores import LEAST_SCORES, OTHERS

WINDOWS, WINDOW = 5, 200
"""Windows of a text, and characters of one: 1,000 in all, as many as one head would need to be told from others."""
BY_LANGUAGE: Literal["by_language"] = "by_language"
DEFAULT: Literal["lid.176"] = "lid.176"
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]+")  # soft hyphen, zero-width space, word joiner, BOM: inside words

_SCHEMA = pa.schema(
    [
        pa.field("language", pa.string()),  # ISO 639-1 where there is one, else ISO 639-3
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

    `identifier`: who says what language it is (filters/identify). `model_path` says where its model lies, lid.176's
    (see `filters.lid`) or GlotLID's; it is no threshold and no part of the filter's identity (`compare=False`):
    `model_digest()` is.
    """

    keep: tuple[str, ...] = ("en",)
    min_score: float | Literal["by_language"] | None = 0.65
    model_path: str | None = field(default=None, compare=False, repr=False)
    identifier: Name = DEFAULT

    name: ClassVar[str] = "language"
    VERSION: ClassVar[int] = 2
    measured_with: ClassVar[frozenset[str]] = frozenset({"model_path", "identifier"})
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"no_text": "language", "unwanted": "language", "low_score": "language_score"}
    )

    def __post_init__(self) -> None:
        is_number = isinstance(self.min_score, int | float)
        if self.min_score not in (None, BY_LANGUAGE) and not (is_number and 0 <= self.min_score <= 1):
            raise ValueError(
                f"language.min_score is {self.min_score}; a probability, from 0 to 1, {BY_LANGUAGE} or null is allowed"
            )
        if self.min_score == BY_LANGUAGE and self.identifier != DEFAULT:
            raise ValueError(
                f"language.min_score is {BY_LANGUAGE}, which are scores of lid.176 and none of {self.identifier}; give"
                " one number, or null"
            )
        if self.model_path is not None and self.identifier not in MODELS:
            raise ValueError(f"language.model_path is given, and {self.identifier} has its model within its package")

    def model_digest(self) -> str:
        """sha256 of the model's file, hex: part of a stage's identity. Raises OSError, ValueError for an identifier
        without one."""
        return lid.digest(model_file(self.identifier, self.model_path))

    def check(self) -> None:
        """Whether this can work at all. Raises what `measure` and `identify.names.identifier` raise."""
        self._checked()

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Label and score of each document, null where there is no text; also sets `docs.languages`.

        Raises ValueError if `keep` has a label that the identifier does not know.
        """
        chosen = self._checked()
        windows = [_windows(text) for text in docs.strings]
        every = [window for of_text in windows for window in of_text]
        answers = iter(chosen.best(every) if every else ())
        verdicts = [_verdict([next(answers) for _ in of_text]) for of_text in windows]
        labels = [label for label, _ in verdicts]
        scores = np.array([score for _, score in verdicts], np.float64)
        rounded = np.round(np.clip(scores, 0.0, 1.0), 4).astype(np.float32)
        columns = [pa.array(labels, pa.string()), pa.array(rounded, mask=np.isnan(rounded))]
        docs.languages = columns[0]
        return pa.record_batch(columns, schema=_SCHEMA)

    def glance(self, windows: Sequence[str]) -> Glance:
        """What windows over a text look like of which nobody has extracted the main part. Raises as `measure`."""
        lines = [line for window in windows for line in _windows(window)]
        predicted = self._checked().best(lines) if lines else []
        wanted = [sum(window.get(language, 0.0) for language in self.keep) for window in predicted]
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
        config = deciding(super().config()) | self.asked()
        if self.min_score == BY_LANGUAGE:
            config["min_scores"] = {"others": OTHERS, **LEAST_SCORES}
        return config

    def asked(self) -> dict[str, str]:
        """Who is asked, as it belongs to an identity: the model's bytes, a package's release."""
        about = {"model_sha256": self.model_digest()} if self.identifier in MODELS else {}
        if self.identifier != DEFAULT:
            about["identifier"] = f"{self.identifier} {version(self.identifier)}".strip()
        return about

    def _checked(self) -> Identifier:
        """The identifier. Raises ValueError where it never answers what `keep` has."""
        chosen = identifier(self.identifier, self.model_path)
        if unknown := sorted(set(self.keep) - chosen.labels):
            known = " ".join(sorted(chosen.labels))
            raise ValueError(f"language.keep has {unknown}, which the model never answers; use its labels: {known}")
        return chosen


def deciding(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The filter's fields as they stand in a recipe's identity: without the address of its model, whose bytes count,
    and without an identifier that is lid.176, so that a recipe is what it was before there were others."""
    ignored = {"model_path"} | ({"identifier"} if fields["identifier"] == DEFAULT else set())
    return {name: value for name, value in fields.items() if name not in ignored}


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


def _verdict(windows: Sequence[Mapping[str, float]]) -> tuple[str | None, float]:
    """The label with the highest mean over the windows, and the median of its probabilities; None, NaN without any."""
    sums: dict[str, float] = {}
    for window in windows:
        for label, probability in window.items():
            sums[label] = sums.get(label, 0.0) + probability
    if not sums:
        return None, math.nan
    best = min(sums, key=lambda label: (-sums[label], label))
    return best, statistics.median(window.get(best, 0.0) for window in windows)
