"""The words of a batch of texts, and the compiled kernels that split them (`filters/text/kernels/words.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gristmill.filters.signatures.compiled import load
from gristmill.filters.text.characters import flags
from gristmill.filters.text.tables import Table, number


class Kernels(NamedTuple):
    """Numba dispatchers of one signature each, which release the GIL. What they do: `filters/text/kernels/words.py`."""

    count_runs: Callable[..., None]
    look_up: Callable[..., None]
    split: Callable[..., None]
    learn: Callable[..., None]
    rehash: Callable[..., None]
    expand: Callable[..., None]
    sums: Callable[..., None]
    sentences: Callable[..., None]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The kernels of this process, loaded or compiled at the first call."""
    folder = Path(__file__).with_name("kernels")
    of_words = [folder / name for name in ("affixes.py", "memo.py", "utf8.py")]
    return Kernels(**load(folder / "words.py", uses=of_words), **load(folder / "counts.py", uses=[folder / "utf8.py"]))


class Learned(NamedTuple):
    """What the memo knew when a batch had been looked up: later batches only add to it, so that of the table of tokens
    the first `n_tokens` count. bounds: int64 [runs, 2], where the tokens of a run begin in `token_ids` (int32) and how
    many; by a token's number: the table of their bytes, facts int32 [tokens, 5], polynomials uint64 [tokens, 2]; the
    columns are those of the kernels."""

    bounds: np.ndarray
    token_ids: np.ndarray
    tokens: Table
    n_tokens: int
    facts: np.ndarray
    polynomials: np.ndarray


class Words:
    """The words of a batch of texts: sums are int64 [rows].

    runs: int32, the numbers of all runs, end to end; ends: int64 [rows + 1], how many stand before each text. flat and
    token_ends: the same of tokens. facts: int32 [tokens, 5], polynomials: uint64 [tokens, 2], by a token's number:
    the columns are those of the kernels.
    """

    def __init__(
        self,
        learned: Learned,
        texts: tuple[np.ndarray, np.ndarray],
        runs: np.ndarray,
        ends: np.ndarray,
    ) -> None:
        self.texts, self.runs, self.ends = texts, runs, ends
        self._bounds, self._token_ids = learned.bounds, learned.token_ids
        self._n_known = learned.n_tokens
        self.tokens_table, self.facts, self.polynomials = learned.tokens, learned.facts, learned.polynomials
        self.token_ends = np.zeros(len(ends), np.int64)
        none = np.zeros(0, np.int32)
        kernels().expand(runs, ends, self._bounds, self._token_ids, self.token_ends, none)
        self.flat = np.zeros(int(self.token_ends[-1]), np.int32)
        if len(self.flat):
            kernels().expand(runs, ends, self._bounds, self._token_ids, self.token_ends, self.flat)
        sums = np.zeros((len(self), 3), np.int64)
        kernels().sums(self.flat, self.token_ends, self.facts, sums)
        self.n_tokens = np.diff(self.token_ends)  # all tokens, punctuation too
        self.n_words = sums[:, 0].copy()  # tokens that are not only punctuation
        self.word_chars = sums[:, 1].copy()  # characters of those
        self.n_alpha = sums[:, 2].copy()  # tokens with a letter

    def __len__(self) -> int:
        return len(self.ends) - 1

    def tokens(self, row: int) -> list[str]:
        """The tokens of one text, as `datatrove.utils.text.split_into_words(text, "en")` gives them."""
        _, _, starts, stored = self.tokens_table
        numbers = self.flat[self.token_ends[row] : self.token_ends[row + 1]].tolist()
        return [stored[starts[n] : starts[n + 1]].tobytes().decode() for n in numbers]

    def n_distinct(self, vocabulary: Iterable[str]) -> np.ndarray:
        """How many words of `vocabulary` are a token of each text, int64 [rows]; case matters."""
        counts = np.zeros(len(self), dtype=np.int64)
        words = list(dict.fromkeys(vocabulary))
        for first in range(0, len(words), 64):
            counts += np.bitwise_count(self._any_bits(words[first : first + 64]))
        return counts

    def n_sentences(self) -> np.ndarray:
        """Sentences of each text, as `datatrove.utils.text.split_into_sentences(text, "en")` has them, int64 [rows]."""
        counts = np.zeros(len(self), np.int64)
        arrays = (self.runs, self.ends, self._bounds, self._token_ids, self.facts)
        kernels().sentences(*self.texts, flags(), *arrays, counts)
        return counts

    def _any_bits(self, words: Sequence[str]) -> np.ndarray:
        """uint64 [rows]: bit i says whether `words[i]` (at most 64) is a token of the text."""
        bits = np.zeros(len(self.facts), dtype=np.uint64)
        for i, word in enumerate(words):
            token = number(self.tokens_table, word, self._n_known)
            if token >= 0:
                bits[token] = np.uint64(1 << i)
        any_bits = np.zeros(len(self), dtype=np.uint64)
        filled = np.flatnonzero(self.n_tokens)
        if len(filled):
            any_bits[filled] = np.bitwise_or.reduceat(bits[self.flat], self.token_ends[filled])
        return any_bits
