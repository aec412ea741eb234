"""A fastText classifier as it is used here: bytes in, a score for each line out; loaded once a process.

A model counts by its bytes (sha256), wherever they lie: in a file, or as an object of the lake.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from gristmill.filters.classify.arrays import Arrays
from gristmill.filters.classify.windows import words
from gristmill.filters.fast_text.file import LABEL_PREFIX, read_bytes
from gristmill.filters.fast_text.model import FastTextModel

POSITIVE, NEGATIVE = "positive", "negative"
"""The labels of models that are trained here."""
_LOADED: OrderedDict[str, Model] = OrderedDict()
_MOST_LOADED = 4


class Scorer(Protocol):
    """What scores prepared texts."""

    def scores(self, texts: Sequence[str], label: str, /) -> np.ndarray:
        """Probability of a label of each text, float64 [texts]; NaN for one without a word."""
        ...


class AnyKind(NamedTuple):
    """Scores with a model of any kind: of parts of words, quantised, of another loss."""

    model: FastTextModel

    def scores(self, texts: Sequence[str], label: str) -> np.ndarray:
        """As `Scorer`; 0 for a label that is not among those which fastText gives at all."""
        lines = [words(text) for text in texts]
        labels, scores = self.model.best(pa.array(lines, pa.large_string()), len(self.model.labels))
        names = [name.removeprefix(LABEL_PREFIX) for name in self.model.labels]
        wanted = labels == names.index(label)
        out = np.where(wanted, scores, 0.0).sum(axis=1)
        is_empty = np.array([not line for line in lines])
        out[is_empty | (labels[:, 0] < 0)] = math.nan
        return out


class Model(NamedTuple):
    """A loaded model. `sha256`: of its bytes, hex; `labels`: without fastText's prefix."""

    sha256: str
    labels: frozenset[str]
    scorer: Scorer

    def scores(self, pieces: Sequence[str], label: str) -> np.ndarray:
        """Probability of `label` for each piece of a text (prepared, or a line of words), float64 [pieces]; NaN for one
        without a word. Raises ValueError for a label that the model does not have."""
        self.check_label(label)
        return self.scorer.scores(pieces, label) if pieces else np.zeros(0)

    def check_label(self, label: str) -> None:
        """Raises ValueError for a label that it does not have."""
        if label not in self.labels:
            raise ValueError(f"label={label!r}: the model has {', '.join(sorted(self.labels))}")


def digest(path: str) -> str:
    """sha256 of a model's file, hex. Raises OSError."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def from_file(path: str) -> Model:
    """The model in a file. Raises OSError, ValueError for a file that is none."""
    sha256 = digest(path)
    return loaded(sha256, Path(path).read_bytes)


def loaded(sha256: str, read: Callable[[], bytes]) -> Model:
    """The model of this digest; `read` gives its bytes where this process does not have it yet.

    Raises ValueError for bytes that are another's, or no model, and what `read` raises.
    """
    if sha256 in _LOADED:
        _LOADED.move_to_end(sha256)
        return _LOADED[sha256]
    data = read()
    if (there := hashlib.sha256(data).hexdigest()) != sha256:
        raise ValueError(f"the model has the sha256 {there[:12]}, not {sha256[:12]}: its file changed")
    model = parsed(data)
    _LOADED[sha256] = model
    while len(_LOADED) > _MOST_LOADED:
        _LOADED.popitem(last=False)
    return model


def parsed(data: bytes) -> Model:
    """A model from its bytes. Raises ValueError for bytes that are none."""
    try:
        file = read_bytes(data)
    except ValueError as error:
        raise ValueError(f"these bytes are no fastText model that can be used: {error}") from error
    labels = frozenset(label.removeprefix(LABEL_PREFIX) for label in file.labels)
    scorer = Arrays.of(file) or AnyKind(FastTextModel.of(file))
    return Model(hashlib.sha256(data).hexdigest(), labels, scorer)
