"""Exactly datatrove's English words, several times faster: a memo from run of non-whitespace to its tokens.

Natural text repeats its runs, so each distinct one is tokenised once in a process; a batch is then a
dictionary lookup a run and numpy sums over per-run tables. Where neighbouring runs could change each other's
tokens (filters/text/english.py; about one in ten thousand), the run is split again with its neighbours in sight
and stands under another name. The memo is a cache of a pure function: it is bounded, and starts afresh when
it is full. Results do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

from gristmill.filters.text.english import BREAKS_SPACY, English, english

MAX_RUNS = 1 << 18  # some 80 MB of memo, at the lengths of English web text
MAX_CHARS = 1 << 24  # so that pages of base64 do not fill memory with few runs


class Tables(NamedTuple):
    """The memo as it was when a batch had been looked up. Arrays are indexed by run, or by token entry."""

    n_tokens: np.ndarray  # int32
    n_words: np.ndarray  # int32: tokens that are not only punctuation
    word_chars: np.ndarray  # int32: characters of those
    n_alpha: np.ndarray  # int32: tokens with a letter
    starts: np.ndarray  # int64: where the run's tokens start in `token_ids`
    token_ids: np.ndarray  # int32
    runs_of: np.ndarray  # int32: the run of each entry of `token_ids`
    vocabulary: dict[str, int]
    spellings: list[str]


class Words:
    """The words of a batch of texts: sums are int64 [rows]."""

    def __init__(self, tables: Tables, runs: np.ndarray, offsets: np.ndarray) -> None:
        self._tables, self._runs, self._offsets = tables, runs, offsets
        self.n_tokens = self._sum(tables.n_tokens)  # all tokens, punctuation too
        self.n_words = self._sum(tables.n_words)  # tokens that are not only punctuation
        self.word_chars = self._sum(tables.word_chars)  # characters of those
        self.n_alpha = self._sum(tables.n_alpha)  # tokens with a letter

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def tokens(self, row: int) -> list[str]:
        """The tokens of one text, as `datatrove.utils.text.split_into_words(text, "en")` gives them."""
        t = self._tables
        runs = self._runs[self._offsets[row] : self._offsets[row + 1]].tolist()
        ids = chain.from_iterable(t.token_ids[t.starts[run] : t.starts[run] + t.n_tokens[run]] for run in runs)
        return [t.spellings[i] for i in ids]

    def n_distinct(self, vocabulary: Iterable[str]) -> np.ndarray:
        """How many words of `vocabulary` are a token of each text, int64 [rows]; case matters."""
        counts = np.zeros(len(self), dtype=np.int64)
        words = list(dict.fromkeys(vocabulary))
        for first in range(0, len(words), 64):
            counts += np.bitwise_count(self._any_bits(words[first : first + 64]))
        return counts

    def _any_bits(self, words: Sequence[str]) -> np.ndarray:
        """uint64 [rows]: bit i says whether `words[i]` (at most 64) is a token of the text."""
        t = self._tables
        bits = np.zeros(len(t.n_tokens), dtype=np.uint64)
        for i, word in enumerate(words):
            token = t.vocabulary.get(word)
            if token is not None:
                bits[t.runs_of[t.token_ids == token]] |= np.uint64(1 << i)
        any_bits = np.zeros(len(self), dtype=np.uint64)
        filled = np.flatnonzero(np.diff(self._offsets))
        if len(filled):
            any_bits[filled] = np.bitwise_or.reduceat(bits[self._runs], self._offsets[filled])
        return any_bits

    def _sum(self, table: np.ndarray) -> np.ndarray:
        running = np.zeros(len(self._runs) + 1, dtype=np.int64)
        np.cumsum(table[self._runs], out=running[1:])
        return running[self._offsets[1:]] - running[self._offsets[:-1]]


class WordMemo:
    """Splits texts into words. `max_runs`, `max_chars`: how much it may carry from batch to batch."""

    def __init__(self, tokenizer: English, max_runs: int = MAX_RUNS, max_chars: int = MAX_CHARS) -> None:
        from datatrove.utils.text import PUNCTUATION_SET

        self._tokenizer = tokenizer
        self._punctuation = frozenset(PUNCTUATION_SET)
        self._max_runs, self._max_chars = max_runs, max_chars
        self._forget()

    def split(self, texts: Sequence[str]) -> Words:
        """Words of each text, in order."""
        if len(self._ids) > self._max_runs or self._chars > self._max_chars:
            self._forget()
        # Texts with this string are split by datatrove itself, and enter as if each token were a run.
        whole = {row for row, text in enumerate(texts) if BREAKS_SPACY in text}
        runs = [
            self._as_runs([[token] for token in self._tokenizer.whole(text)]) if row in whole else text.split()
            for row, text in enumerate(texts)
        ]
        flat = list(chain.from_iterable(runs))
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in runs], out=offsets[1:])
        ids = self._look_up(flat)
        for row, members in self._seams(flat, ids, offsets).items():
            if row not in whole:
                changed = self._tokenizer.in_context(texts[row], [i - int(offsets[row]) for i in members])
                ids[members] = self._look_up(self._as_runs(changed))
        return Words(self._tables(), ids, offsets)

    def _forget(self) -> None:
        self._ids: dict[str, int] = {}
        self._chars = 0
        self._vocabulary: dict[str, int] = {}
        self._spellings: list[str] = []
        self._token_facts = _Rows(3)  # is a word, characters if so, has a letter
        self._run_facts = _Rows(4)  # tokens, words, characters of words, tokens with a letter
        self._token_ids = _Rows(2)  # token, run
        self._marked = _Rows(1)

    def _look_up(self, runs: Sequence[str]) -> np.ndarray:
        ids = np.fromiter(map(self._ids.get, runs, repeat(-1)), dtype=np.int32, count=len(runs))
        missing = np.flatnonzero(ids < 0).tolist()
        if missing:
            new = list(dict.fromkeys(runs[i] for i in missing))
            tokens = self._tokenizer.tokens(new)
            self._learn(new, tokens, [self._tokenizer.marked(*pair) for pair in zip(new, tokens, strict=True)])
            ids[missing] = [self._ids[runs[i]] for i in missing]
        return ids

    def _seams(self, flat: list[str], ids: np.ndarray, offsets: np.ndarray) -> dict[int, list[int]]:
        """Marked runs that have a neighbour that could change their tokens: row to indices in `flat`."""
        rows: dict[int, list[int]] = {}
        edges = set(offsets.tolist())
        seam = self._tokenizer.seam
        for i in np.flatnonzero(self._marked.view[ids, 0]).tolist():
            left = i not in edges and seam(flat[i - 1], flat[i])
            if left or (i + 1 not in edges and seam(flat[i], flat[i + 1])):
                rows.setdefault(int(np.searchsorted(offsets, i, side="right")) - 1, []).append(i)
        return rows

    def _as_runs(self, tokens: Sequence[Sequence[str]]) -> list[str]:
        """Learns runs with these tokens, and returns names for them. No run of a text starts with a space."""
        names = [" " + " ".join(run) for run in tokens]
        new = {name: run for name, run in zip(names, tokens, strict=True) if name not in self._ids}
        self._learn(list(new), list(new.values()), [False] * len(new))
        return names

    def _learn(self, runs: Sequence[str], tokens: Sequence[Sequence[str]], marked: Sequence[bool]) -> None:
        flat = list(chain.from_iterable(tokens))
        new = [token for token in dict.fromkeys(flat) if token not in self._vocabulary]
        self._vocabulary.update(zip(new, range(len(self._spellings), len(self._spellings) + len(new)), strict=True))
        self._spellings += new
        self._token_facts.extend([self._facts(token) for token in new])

        first = len(self._ids)
        self._ids.update(zip(runs, range(first, first + len(runs)), strict=True))
        self._chars += sum(map(len, runs))
        sizes = np.array([len(run) for run in tokens], dtype=np.int32)
        token_ids = np.array([self._vocabulary[token] for token in flat], dtype=np.int32)
        run_of = np.repeat(np.arange(len(runs), dtype=np.int32), sizes)
        sums = np.zeros((len(runs), 3), dtype=np.int32)
        np.add.at(sums, run_of, self._token_facts.view[token_ids])
        self._run_facts.extend(np.column_stack([sizes, sums]))
        self._token_ids.extend(np.column_stack([token_ids, run_of + first]))
        self._marked.extend([[flag] for flag in marked])

    def _facts(self, token: str) -> tuple[bool, int, bool]:
        word = not self._punctuation.issuperset(token)
        return word, len(token) if word else 0, token.isalpha() or any(map(str.isalpha, token))

    def _tables(self) -> Tables:
        facts = self._run_facts.view
        n_tokens, n_words, word_chars, n_alpha = (np.ascontiguousarray(facts[:, i]) for i in range(4))
        token_ids, runs_of = (np.ascontiguousarray(self._token_ids.view[:, i]) for i in range(2))
        starts = np.cumsum(n_tokens, dtype=np.int64) - n_tokens
        return Tables(
            n_tokens,
            n_words,
            word_chars,
            n_alpha,
            starts,
            token_ids,
            runs_of,
            self._vocabulary,
            self._spellings,
        )


class _Rows:
    """An int32 array [rows, columns] that grows at its end."""

    def __init__(self, columns: int) -> None:
        self._room = np.zeros((1024, columns), dtype=np.int32)
        self._used = 0

    @property
    def view(self) -> np.ndarray:
        return self._room[: self._used]

    def extend(self, rows: Sequence[Sequence[int]] | np.ndarray) -> None:
        end = self._used + len(rows)
        if end > len(self._room):
            grown = np.zeros((max(end, 2 * len(self._room)), self._room.shape[1]), dtype=np.int32)
            grown[: self._used] = self.view
            self._room = grown
        if len(rows):
            self._room[self._used : end] = rows
        self._used = end


@lru_cache(maxsize=1)
def english_words() -> WordMemo:
    """The memo of this process."""
    return WordMemo(english())
