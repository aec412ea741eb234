"""A fastText model as arrays, for the kernel that scores texts with it (`filters/classify/score_kernel.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.filters.classify.windows import BREAK, NUMBER
from gristmill.filters.signatures.compiled import load
from gristmill.filters.signatures.tables import buffers
from gristmill.filters.text.characters import flags

END = "</s>"
"""fastText's word at the end of every line."""
_FNV_BASIS, _FNV_PRIME = 2166136261, 16777619


@dataclass(frozen=True)
class Arrays:
    """As `score` takes them; `labels`: row of each label in the output matrix."""

    slots: np.ndarray
    hashes: np.ndarray
    blob: np.ndarray
    ends: np.ndarray
    constants: np.ndarray
    numbers: np.ndarray
    matrix: np.ndarray
    output: np.ndarray
    shape: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, fast_text: Any, prefix: str) -> Arrays | None:
        """Of a loaded model; None for one of another kind: of parts of words, quantised, or without a softmax."""
        settings = fast_text.f.getArgs()
        if settings.maxn > 0 or fast_text.f.isQuant() or settings.loss.name != "softmax":
            return None
        words = [word.encode() for word in fast_text.get_words()]
        hashes = np.array([_hash(word) for word in words], np.uint32)
        number_of = {word: number for number, word in enumerate(words)}
        fixed = [word.encode() for word in (NUMBER, BREAK, END)]
        return cls(
            slots=_slots(hashes),
            hashes=hashes,
            blob=np.frombuffer(b"".join(words) or b"\0", np.uint8).copy(),
            ends=np.cumsum([len(word) for word in words], dtype=np.int64),
            constants=np.array([_hash(word) for word in fixed], np.uint32),
            numbers=np.array([number_of.get(word, -1) for word in fixed], np.int64),
            matrix=np.ascontiguousarray(fast_text.get_input_matrix(), np.float32),
            output=np.ascontiguousarray(fast_text.get_output_matrix(), np.float32),
            shape=np.array([len(words), settings.bucket, settings.wordNgrams], np.int64),
            labels=tuple(label.removeprefix(prefix) for label in fast_text.get_labels()),
        )

    def scores(self, texts: Sequence[str], label: str) -> np.ndarray:
        """Probability of a label of each text, float64 [texts]; NaN without a word. Texts are prepared."""
        first = self.labels.index(label)
        order = [first, *(row for row in range(len(self.labels)) if row != first)]
        out = np.empty(len(texts), np.float64)
        own = (self.slots, self.hashes, self.blob, self.ends, self.constants, self.numbers, self.matrix)
        offsets, data = buffers("score", pa.array(texts, pa.large_string()))
        _kernel()(offsets, data, flags(), *own, np.ascontiguousarray(self.output[order]), self.shape, out)
        return out


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., None]:
    folder = Path(__file__).parent
    return load(folder / "score_kernel.py", uses=[folder.parent / "text" / "kernels" / "utf8.py"])["score"]


def _hash(word: bytes) -> int:
    h = _FNV_BASIS
    for byte in word:
        signed = byte if byte < 0x80 else byte | 0xFFFFFF00
        h = (h ^ signed) * _FNV_PRIME & 0xFFFFFFFF
    return h


def _slots(hashes: np.ndarray) -> np.ndarray:
    """int32, -1 where empty: each word at its hash, or at the next place that is free; at most half of it is full."""
    slots = np.full(1 << max(4, (2 * len(hashes)).bit_length()), -1, np.int32)
    mask = len(slots) - 1
    for number, h in enumerate(hashes.tolist()):
        place = h & mask
        while slots[place] >= 0:
            place = (place + 1) & mask
        slots[place] = number
    return slots
