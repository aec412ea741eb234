"""Screening by words: how much of a text is obscene words or slurs. Nothing is known of what it says.

What decides is a density, so that a report that quotes a word or a dictionary that explains it is kept, and a page full
of them is not. Words are matched whole: no part of Scunthorpe, cockpit or Essex is a word here. Counting is one pass of
RE2 over Arrow's buffers for each list. The lists and their sources are in filters/data/toxic-words.txt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, above, first_reason, ratio
from gristmill.filters.classify.filter import check_share, draws, not_kept
from gristmill.filters.text.docs import Docs

LISTS = ("adult", "slurs", "vulgar")
"""Sections of the file."""
SHIPPED = Path(__file__).parents[1] / "data" / "toxic-words.txt"
_ENDINGS = {"adult": "s?", "slurs": "s?", "vulgar": "(?:e?s|ed|ers?|ing)?"}
_SPACE = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\v\f", np.uint8))


@dataclass(frozen=True)
class ToxicWords(Filter[Docs]):
    """Each threshold is the most that may be of a list, a share of all words; None switches it off. `keep`: the share
    of those above that stays all the same, drawn by what they say."""

    max_adult: float | None = 0.01
    max_slurs: float | None = 0.005
    max_vulgar: float | None = 0.02
    keep: float = 0.0

    name: ClassVar[str] = "toxic_words"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({name: name for name in LISTS})

    def __post_init__(self) -> None:
        for name in ("max_adult", "max_slurs", "max_vulgar", "keep"):
            check_share(f"toxic_words.{name}", getattr(self, name))

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """Shares of the words of each list, null where there is no word, and the `draw`."""
        lowered = pc.utf8_lower(docs.texts)
        words = count_words(*docs.buffers)
        shares = [ratio(_counts(lowered, pattern), words) for pattern in patterns().values()]
        return pa.record_batch([*shares, draws(docs)], names=[*LISTS, "draw"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """Adult words, then slurs, then vulgar words; from measures alone."""
        kept_out = not_kept(measures, self.keep)
        limits = {"adult": self.max_adult, "slurs": self.max_slurs, "vulgar": self.max_vulgar}
        tests = [(name, above(measures[name], limit) & kept_out) for name, limit in limits.items()]
        return first_reason(self.name, measures.num_rows, tests)

    def config(self) -> dict[str, Any]:
        """The thresholds, and the lists by their bytes."""
        return super().config() | {"words_sha256": hashlib.sha256(SHIPPED.read_bytes()).hexdigest()}


@lru_cache(maxsize=1)
def lists() -> Mapping[str, tuple[str, ...]]:
    """List -> its words. Raises ValueError for a file that has others."""
    words: dict[str, list[str]] = {}
    section = ""
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            words.setdefault(section, []).append(line)
    if tuple(words) != LISTS:
        raise ValueError(f"{SHIPPED.name}: the lists {', '.join(words)}; there should be {', '.join(LISTS)}")
    return {name: tuple(listed) for name, listed in words.items()}


@lru_cache(maxsize=1)
def patterns() -> Mapping[str, str]:
    """List -> a regular expression of RE2 that finds its words, whole, in small letters."""
    return {name: _pattern(words, _ENDINGS[name]) for name, words in lists().items()}


def _pattern(words: tuple[str, ...], endings: str) -> str:
    spelled = "|".join(re.escape(word).replace(r"\ ", r"[\s-]") for word in words)
    # RE2 has no look-behind, and its \b takes an accented letter for the end of a word: letters are asked for by name.
    return rf"(?:^|[^\pL\pN])(?:{spelled}){endings}\b"


def count_words(offsets: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Runs of bytes that are no white space of ASCII, of each text, int64 [rows]."""
    space = _SPACE[data[offsets[0] : offsets[-1]]]
    begins = ~space
    begins[1:] &= space[:-1]
    starts = offsets[:-1] - offsets[0]
    cut = starts[(starts > 0) & (starts < len(space))]
    begins[cut] = ~space[cut]  # a text's first word, behind a text that ends without a space
    counted = np.concatenate([[0], np.cumsum(begins)])
    return counted[offsets[1:] - offsets[0]] - counted[starts]


def _counts(texts: pa.StringArray, pattern: str) -> np.ndarray:
    return pc.count_substring_regex(texts, pattern=pattern).to_numpy(zero_copy_only=False)
