"""Identifiers that are fastText models: lid.176, any other of its kind, GlotLID."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow as pa

from gristmill.filters import lid
from gristmill.filters.fast_text.file import LABEL_PREFIX
from gristmill.filters.fast_text.model import FastTextModel
from gristmill.filters.identify.base import LABELS
from gristmill.filters.identify.codes import short_code


class FastTextIdentifier:
    """A model whose labels are called as `name` says; scores of labels of one name are added."""

    def __init__(self, model: FastTextModel, name: Callable[[str], str]) -> None:
        self._model = model
        self._names = [name(label.removeprefix(LABEL_PREFIX)) for label in model.labels]

    @cached_property
    def labels(self) -> frozenset[str]:
        """All that it can answer."""
        return frozenset(self._names)

    def best(self, lines: Sequence[str]) -> list[Mapping[str, float]]:
        """As in `Identifier`; none for a line without a known word or n-gram. Probabilities are float32."""
        named: list[Mapping[str, float]] = []
        for labels, scores in zip(*self._model.best(pa.array(lines, pa.large_string()), LABELS), strict=True):
            of_line: dict[str, float] = {}
            for label, score in zip(labels.tolist(), scores, strict=True):
                if label >= 0:
                    name = self._names[label]
                    of_line[name] = of_line[name] + score if name in of_line else score
            named.append(of_line)
        return named


@lru_cache(maxsize=2)
def as_labelled(path: Path) -> FastTextIdentifier:
    """The model in a file, with its own labels. Raises as `lid.load_model`."""
    return FastTextIdentifier(lid.load_model(path), str)


@lru_cache(maxsize=1)
def glot_lid(path: Path) -> FastTextIdentifier:
    """GlotLID's model, whose labels are ISO 639-3 with a script: eng_Latn is en, srp_Cyrl and srp_Latn are sr.

    Raises as `lid.load_model`. Source: Kargaran et al. 2023, arXiv 2310.16248.
    """
    return FastTextIdentifier(lid.load_model(path), short_code)
