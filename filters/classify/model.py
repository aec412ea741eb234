"""A fastText classifier as it is used here: bytes in, a score for each line out; loaded once a process.

A model counts by its bytes (sha256), wherever they lie: in a file, or as an object of the lake. The library can read
from a path alone, so bytes are written to a file that is gone again once they are loaded.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.filters.classify.arrays import Arrays
from gristmill.filters.classify.windows import words
from gristmill.filters.lid import open_model

PREFIX = "__label__"
POSITIVE, NEGATIVE = "positive", "negative"
"""The labels of models that are trained here."""
_LOADED: OrderedDict[str, Model] = OrderedDict()
_MOST_LOADED = 4


class Model(NamedTuple):
    """A loaded model. `sha256`: of its bytes, hex; `labels`: without fastText's prefix; `arrays`: for our own kernel,
    None where it cannot read such a model."""

    sha256: str
    labels: frozenset[str]
    fast_text: Any
    arrays: Arrays | None

    def scores(self, pieces: Sequence[str], label: str) -> np.ndarray:
        """Probability of `label` for each piece of a text (prepared, or a line of words), float64 [pieces]; NaN for one
        without a word. Raises ValueError for a label that the model does not have."""
        self.check_label(label)
        if not pieces:
            return np.zeros(0)
        return self.by_library(pieces, label) if self.arrays is None else self.arrays.scores(pieces, label)

    def by_library(self, pieces: Sequence[str], label: str) -> np.ndarray:
        """The same by fastText's own code."""
        lines = [words(piece) for piece in pieces]
        labels, scores = self.fast_text.predict(lines, k=len(self.labels))
        wanted = PREFIX + label
        answers = zip(lines, labels, scores, strict=True)
        return np.array([_score_of(wanted, *answer) if line else math.nan for line, *answer in answers])

    def check_label(self, label: str) -> None:
        """Raises ValueError for a label that it does not have."""
        if label not in self.labels:
            raise ValueError(f"label={label!r}: the model has {', '.join(sorted(self.labels))}")


def _score_of(wanted: str, labels: Sequence[str], scores: Sequence[float]) -> float:
    if not len(labels):
        return float("nan")
    return float(dict(zip(labels, scores, strict=True)).get(wanted, 0.0))


def digest(path: str) -> str:
    """sha256 of a model's file, hex. Raises OSError."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def from_file(path: str) -> Model:
    """The model in a file. Raises OSError, ValueError for a file that is none, RuntimeError as `filters.lid`."""
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
    handle, path = tempfile.mkstemp(suffix=".bin")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        try:
            fast_text = open_model(Path(path))
        except ValueError as error:
            raise ValueError("these bytes are no fastText model") from error
    finally:
        os.unlink(path)
    labels = frozenset(label.removeprefix(PREFIX) for label in fast_text.get_labels())
    return Model(hashlib.sha256(data).hexdigest(), labels, fast_text, Arrays.of(fast_text, PREFIX))
