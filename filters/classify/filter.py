"""Filters by a trained model: the score of a text, and whether it is below or above a threshold.

`model` is a version of the lake (`grist classifier train` makes one) or a fastText file; what counts is its bytes. Of
a version only the recipe's look-up knows them (`sha256`), and workers read them from the lake (`with_objects`). A text
is scored as the model was trained: by windows, of which the score is the mean.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.base import Filter, above, below, first_reason
from gristmill.filters.classify.model import POSITIVE, Model, digest, loaded
from gristmill.filters.classify.windows import Windows
from gristmill.filters.text.docs import Docs

_VERSION = re.compile(r"[a-z0-9._-]+@[^/\\]+")
"""NAME@vN or NAME@TAG; a file of such a name is called ./NAME@vN."""
_DECIMALS = 4
"""Of a score: builds of the library differ beyond."""


@dataclass(frozen=True)
class ModelFilter(Filter[Docs]):
    """`label`: the model's, whose probability is the score. `windows`: None, those that a version was trained with, and
    of a file the usual ones. `sha256`: of the model, if it has to be that one; a recipe knows both before its run, and
    of an earlier run's recipe there is nothing else.
    `languages`: of the documents that are scored (ISO 639-1, as the language filter says); empty: all."""

    model: str = ""
    label: str = POSITIVE
    windows: Windows | None = None
    languages: tuple[str, ...] = ()
    sha256: str | None = None

    measured_with: ClassVar[frozenset[str]] = frozenset({"model", "label", "windows", "languages", "sha256"})

    def __post_init__(self) -> None:
        if not self.model and self.sha256 is None:
            raise ValueError(f"{self.name}.model is empty: give a version (NAME@vN) or the path of a fastText model")

    @property
    def is_version(self) -> bool:
        """Whether the model is a version of the lake, not a file."""
        return _VERSION.fullmatch(self.model) is not None

    def model_digest(self) -> str:
        """sha256 of the model, hex: part of a stage's identity. Raises OSError, ValueError for a version that nobody
        looked up."""
        if self.sha256 is not None:
            return self.sha256
        if self.is_version:
            raise ValueError(f"{self.name}.model: {self.model} has to be looked up in a lake first")
        return digest(self.model)

    def check(self) -> None:
        """Whether a model in a file can work at all. Raises what `model_digest` and loading raise."""
        if not self.is_version:
            self._model().check_label(self.label)

    def with_objects(self, read: Callable[[str], bytes]) -> Self:
        """Loads a model of the lake into this process. Raises ValueError for a label that it does not have, and what
        `read` raises."""
        if self.is_version:
            sha256 = self.model_digest()
            loaded(sha256, lambda: read(sha256)).check_label(self.label)
        return self

    def scores(self, docs: Docs) -> pa.FloatArray:
        """The score of each document, float32 [rows], 0 to 1; null where there is no word, or where its
        language is not asked for."""
        rows = np.flatnonzero(docs.rows_in(self.languages))
        windows = self.windows or Windows()
        pieces_of = {row: windows.pieces(docs.strings[row]) for row in rows}
        every = [piece for pieces in pieces_of.values() for piece in pieces]
        scored = iter(self._model().scores(every, self.label)) if every else iter(())
        means = np.full(len(docs), math.nan)
        for row, pieces in pieces_of.items():
            known = [score for _ in pieces if not math.isnan(score := next(scored))]
            if known:
                means[row] = sum(known) / len(known)
        rounded = np.round(np.clip(means, 0.0, 1.0), _DECIMALS).astype(np.float32)
        return pa.array(rounded, mask=np.isnan(rounded))

    def config(self) -> dict[str, Any]:
        """The thresholds and the model's bytes, which decide like a threshold does, wherever they lie."""
        config = super().config()
        del config["model"], config["sha256"]
        return config | {"windows": asdict(self.windows or Windows()), "model_sha256": self.model_digest()}

    def _model(self) -> Model:
        """The model: of a version, as `with_objects` left it in this process. A file is read once, where its digest is
        known."""
        return loaded(self.model_digest(), self._absent if self.is_version else Path(self.model).read_bytes)

    def _absent(self) -> bytes:
        raise ValueError(f"{self.name}.model: {self.model} was not read from its lake; call with_objects first")

    @abstractmethod
    def measure(self, docs: Docs) -> pa.RecordBatch:
        """As in Filter."""


@dataclass(frozen=True)
class Quality(ModelFilter):
    """Drops documents whose score is below `min_score`; None: all are scored and none is dropped."""

    min_score: float | None = 0.5

    name: ClassVar[str] = "quality"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"below": "score"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("quality.min_score", self.min_score)

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """`score` of each document, as `scores`."""
        return pa.record_batch([self.scores(docs)], names=["score"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """A low score; from measures alone."""
        return first_reason(self.name, measures.num_rows, [("below", below(measures["score"], self.min_score))])


@dataclass(frozen=True)
class Toxicity(ModelFilter):
    """Drops documents whose score is above `max_score`, but for the share `keep` of them, drawn by what they say: data
    in which nothing harmful is ever asked teaches nobody to refuse it."""

    max_score: float | None = 0.5
    keep: float = 0.0

    name: ClassVar[str] = "toxicity"
    VERSION: ClassVar[int] = 1
    evidence: ClassVar[Mapping[str, str]] = MappingProxyType({"above": "score"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("toxicity.max_score", self.max_score)
        check_share("toxicity.keep", self.keep)

    def measure(self, docs: Docs) -> pa.RecordBatch:
        """`score` of each document, as `scores`, and its `draw`."""
        return pa.record_batch([self.scores(docs), draws(docs)], names=["score", "draw"])

    def rule(self, measures: pa.RecordBatch) -> pa.StringArray:
        """A high score that is not drawn to stay; from measures alone."""
        failed = above(measures["score"], self.max_score) & not_kept(measures, self.keep)
        return first_reason(self.name, measures.num_rows, [("above", failed)])


def check_share(name: str, value: float | None) -> None:
    """Raises ValueError for a number that is not from 0 to 1. None is allowed."""
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; from 0 to 1 is allowed")


def draws(docs: Docs) -> pa.DoubleArray:
    """Of each document a number in [0, 1) that its text decides: the same wherever it comes again."""
    hashes = [hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest() for text in docs.strings]
    return pa.array([int.from_bytes(value) / 2.0**64 for value in hashes], pa.float64())


def not_kept(measures: pa.RecordBatch, keep: float) -> np.ndarray:
    """Where a document's `draw` is not among the share `keep`, bool [rows]."""
    return pc.greater_equal(measures["draw"], keep).to_numpy(zero_copy_only=False)
