"""A fastText model as arrays, for the kernel that scores texts with it (`filters/classify/score_kernel.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.filters.classify.windows import BREAK, NUMBER
from gristmill.filters.fast_text.file import LABEL_PREFIX, SOFTMAX, ModelFile
from gristmill.filters.fast_text.words import END, WordTable, word_hashes
from gristmill.filters.signatures.compiled import load
from gristmill.filters.signatures.tables import buffers
from gristmill.filters.text.characters import flags


@dataclass(frozen=True)
class Arrays:
    """As `score` takes them; `labels`: row of each label in the output matrix."""

    table: WordTable
    constants: np.ndarray
    numbers: np.ndarray
    matrix: np.ndarray
    output: np.ndarray
    shape: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, file: ModelFile) -> Arrays | None:
        """Of a file that was read; None for a model of another kind: of parts of words, quantised, or without a
        softmax."""
        settings = file.settings
        if settings.max_n > 0 or file.is_quantised or settings.loss != SOFTMAX:
            return None
        number_of = {word: number for number, word in enumerate(file.words)}
        fixed = [NUMBER.encode(), BREAK.encode(), END]
        return cls(
            table=WordTable.of(file.words),
            constants=word_hashes(fixed),
            numbers=np.array([number_of.get(word, -1) for word in fixed], np.int64),
            matrix=file.matrix,
            output=file.output,
            shape=np.array([len(file.words), settings.buckets, settings.word_ngrams], np.int64),
            labels=tuple(label.removeprefix(LABEL_PREFIX) for label in file.labels),
        )

    def scores(self, texts: Sequence[str], label: str) -> np.ndarray:
        """Probability of a label of each text, float64 [texts]; NaN without a word. Texts are prepared."""
        first = self.labels.index(label)
        order = [first, *(row for row in range(len(self.labels)) if row != first)]
        out = np.empty(len(texts), np.float64)
        own = (*self.table, self.constants, self.numbers, self.matrix)
        offsets, data = buffers("score", pa.array(texts, pa.large_string()))
        _kernel()(offsets, data, flags(), *own, np.ascontiguousarray(self.output[order]), self.shape, out)
        return out


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., None]:
    folder = Path(__file__).parent
    uses = [folder.parent / "fast_text" / "hash_kernel.py", folder.parent / "text" / "kernels" / "utf8.py"]
    return load(folder / "score_kernel.py", uses=uses)["score"]
