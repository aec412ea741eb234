"""Transcripts: whether so much can be said in the time, in this language, and whether it is a loop.

A text that does not belong to its clip gives itself away by its rate: letters and digits a second lie between 4 and 25
in languages that write with letters, and at half of that where a character is a syllable (zh, ja). A model that heard
nothing repeats itself. The language of a text is asked of the model that the web pipeline asks, and only of texts that
are long enough for it: against the tag of the record, not against a list.
Source: Pratap et al. 2020, arXiv 2012.03411 (rates as a test of alignments); Rae et al. 2021, A1.1 (repetition).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.audio.clips import Clips, Transcripts
from gristmill.filters.base import Filter, above, below, first_reason
from gristmill.filters.language import LanguageFilter

SYLLABLES = frozenset({"zh", "ja"})
"""Languages whose characters are syllables, or nearly."""
_WORD = re.compile(r"\w")
_SIGNS = (
    r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Kana and ideographs, which are written without blanks: each is a word."""
_WORDS = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")
_RATES = pa.schema(
    [
        pa.field("letters", pa.int64()),  # letters, digits and ideographs of what is said
        pa.field("letters_per_second", pa.float64()),
        pa.field("is_syllabic", pa.int8()),
    ]
)
_TEXTS = pa.schema(
    [
        pa.field("n_letters", pa.int64()),
        pa.field("repeated_ratio", pa.float64()),  # words beyond the first of each three in a row that came before
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float32()),
        pa.field("expected", pa.string()),
    ]
)


@dataclass(frozen=True)
class SpeechRate(Filter[Clips]):
    """Keeps records whose transcript can be said in the time, and every record without one. `max_letters` and
    `max_syllables` a second: of zh and ja it is the second that counts."""

    min_letters: float | None = 1.0
    max_letters: float | None = 30.0
    min_syllables: float | None = 0.5
    max_syllables: float | None = 14.0

    name: ClassVar[str] = "speech_rate"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"too_slow": "letters_per_second", "too_fast": "letters_per_second"}
    )

    def measure(self, clips: Clips, /) -> pa.RecordBatch:
        """Of each record; nulls where nobody knows what is said."""
        columns = (clips.spoken, clips.languages, clips.seconds)
        rows = [_rate(*of_record) for of_record in zip(*columns, strict=True)]
        return pa.RecordBatch.from_pylist(rows, schema=_RATES)

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails."""
        rate = measures.column("letters_per_second")
        syllabic = pc.fill_null(measures.column("is_syllabic"), 0).to_numpy(zero_copy_only=False).astype(bool)
        slow = np.where(syllabic, below(rate, self.min_syllables), below(rate, self.min_letters))
        fast = np.where(syllabic, above(rate, self.max_syllables), above(rate, self.max_letters))
        return first_reason(self.name, measures.num_rows, [("too_slow", slow), ("too_fast", fast)])


def _rate(spoken: str | None, language: str | None, seconds: list[float]) -> dict[str, float]:
    if spoken is None or not sum(seconds):
        return {}
    letters = len(_WORD.findall(spoken))
    return {
        "letters": letters,
        "letters_per_second": round(letters / sum(seconds), 3),
        "is_syllabic": int(language in SYLLABLES),
    }


@dataclass(frozen=True)
class TranscriptQuality(Filter[Transcripts]):
    """Keeps transcripts and translations that pass, and every record whose text is neither (answers, summaries).

    `min_score`: how sure the model has to be of another language than the record's tag, in a text of at least
    `min_letters`; null: it is not asked. `model_path`: as of LanguageFilter, no part of the identity.
    """

    max_repeated_ratio: float | None = 0.5
    min_score: float | None = 0.8
    min_letters: int = 20
    model_path: str | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "transcript"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"empty": "n_letters", "repetitive": "repeated_ratio", "other_language": "language"}
    )
    measured_with: ClassVar[frozenset[str]] = frozenset({"min_score", "model_path"})

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"transcript.min_score is {self.min_score}; allowed: 0 to 1, or null")

    @property
    def _labels(self) -> LanguageFilter:
        return LanguageFilter(keep=(), min_score=None, model_path=self.model_path)

    def check(self) -> None:
        """Whether this can work at all. Raises what LanguageFilter raises."""
        if self.min_score is not None:
            self._labels.check()

    def config(self) -> dict[str, Any]:
        """The thresholds, and the model's bytes where it is asked."""
        config = super().config()
        del config["model_path"]
        return config if self.min_score is None else config | {"model_sha256": self._labels.model_digest()}

    def unmeasured(self, other: Self) -> tuple[str, ...]:
        """As of any filter; but with a `min_score` the model was asked, so that any other one, and none, is known."""
        fields = super().unmeasured(other)
        return tuple(name for name in fields if name != "min_score" or self.min_score is None)

    def measure(self, transcripts: Transcripts, /) -> pa.RecordBatch:
        """Of each transcript; nulls for what is none."""
        languages, scores = self._languages(transcripts)
        columns = (transcripts.strings, transcripts.tags.to_pylist(), languages, scores)
        rows = [
            {} if tag is None else _text_measures(text) | {"language": label, "language_score": score, "expected": tag}
            for text, tag, label, score in zip(*columns, strict=True)
        ]
        return pa.RecordBatch.from_pylist(rows, schema=_TEXTS)

    def _languages(self, transcripts: Transcripts) -> tuple[list[str | None], list[float | None]]:
        if self.min_score is None:
            return [None] * len(transcripts.strings), [None] * len(transcripts.strings)
        labelled = self._labels.measure(transcripts)
        return labelled["language"].to_pylist(), labelled["language_score"].to_pylist()

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """The first test that fails."""
        m = measures.column
        other = pc.fill_null(pc.not_equal(m("language"), m("expected")), False).to_numpy(zero_copy_only=False)
        if self.min_score is None:  # the model is not asked, though it may have been when these were measured
            other = np.zeros_like(other)
        unsure = below(m("language_score"), self.min_score) | below(m("n_letters"), self.min_letters)
        return first_reason(
            self.name,
            measures.num_rows,
            [
                ("empty", below(m("n_letters"), 1)),
                ("repetitive", above(m("repeated_ratio"), self.max_repeated_ratio)),
                ("other_language", other & ~unsure),
            ],
        )


def _text_measures(text: str) -> dict[str, Any]:
    words = _WORDS.findall(text.lower())
    threes = Counter(zip(words, words[1:], words[2:], strict=False))
    repeated = sum(count - 1 for count in threes.values())
    return {"n_letters": len(_WORD.findall(text)), "repeated_ratio": repeated / max(1, len(words))}
