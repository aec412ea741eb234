"""Trains a fastText classifier on lines, to the same bytes every time.

fastText trains by racing threads, and its loss runs away to NaN by chance where no n-grams are counted: seen in 4 to 70
of 100 trainings, by build. So one thread trains, on pairs of words at least, and what came out is looked at: a model
that is not finite is trained again with another seed, a few times, and then refused.
Source: Joulin et al. 2016, arXiv 1607.01759; settings as in DCLM, arXiv 2406.11794, section 4.4, but for fewer buckets.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.filters.classify.model import PREFIX

TRIES = 5
"""Seeds that are tried before a training fails."""


class NotTrained(RuntimeError):
    """No seed gave a model that can be used."""


class Trained(NamedTuple):
    """A model's file, and the seed that it came from."""

    data: bytes
    seed: int


@dataclass(frozen=True)
class FastText:
    """fastText's settings. `word_ngrams`: 2 or more; `buckets`: of n-grams. Raises ValueError that names the field."""

    dimensions: int = 16
    epochs: int = 10
    learning_rate: float = 0.2
    word_ngrams: int = 2
    buckets: int = 200_000
    min_count: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "dimensions": (1, 1024),
            "epochs": (1, 1000),
            "word_ngrams": (2, 5),
            "buckets": (200_000, 20_000_000),
            "min_count": (1, 1_000_000),
            "seed": (0, 2**31 - TRIES),
        }
        for name, (least, most) in bounds.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}={value}: allowed are {least:,} to {most:,}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate={self.learning_rate}: allowed is above 0, up to 1")

    def train(self, lines: Iterable[tuple[str, str]]) -> Trained:
        """Trains on (label, words) in their order, which decides the result.

        Raises NotTrained, RuntimeError where the module `fasttext` cannot train.
        """
        with tempfile.TemporaryDirectory() as folder:
            texts, model = Path(folder) / "lines.txt", Path(folder) / "model.bin"
            with texts.open("w", encoding="utf-8") as stream:
                stream.writelines(f"{PREFIX}{label} {words}\n" for label, words in lines)
            for seed in range(self.seed, self.seed + TRIES):
                fast_text = self._tried(texts, seed)
                if fast_text is not None:
                    fast_text.save_model(str(model))
                    return Trained(model.read_bytes(), seed)
        raise NotTrained(
            f"fastText's loss was not a number with {TRIES} seeds from {self.seed} on: lower learning_rate"
            f" ({self.learning_rate}), or give other texts"
        )

    def _tried(self, texts: Path, seed: int) -> Any:
        """A training; None where its numbers ran away."""
        import fasttext

        try:
            model = fasttext.train_supervised(
                input=str(texts),
                dim=self.dimensions,
                epoch=self.epochs,
                lr=self.learning_rate,
                wordNgrams=self.word_ngrams,
                bucket=self.buckets,
                minCount=self.min_count,
                seed=seed,
                thread=1,
                verbose=0,
            )
        except RuntimeError as error:
            if "NaN" not in str(error):
                raise
            return None
        finite = all(np.isfinite(matrix).all() for matrix in (model.get_input_matrix(), model.get_output_matrix()))
        return model if finite else None
