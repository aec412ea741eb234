"""Exactly datatrove's English words, many times faster: a memo from run of non-whitespace to its tokens.

Natural text repeats its runs, so each distinct one is tokenised once in a process; a batch is then a look-up a run,
compiled (`filters/text/kernels/words.py`). Where neighbouring runs could change each other's tokens
(filters/text/english.py; about one in ten thousand), the run is split again with its neighbours in sight
and stands under another number. The memo is a cache of a pure function: it is bounded, and starts afresh when
it is full. Results do not depend on it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.filters.signatures.ngrams import slices
from gristmill.filters.signatures.tables import buffers, sealed
from gristmill.filters.text.batch import Learned, Words, kernels
from gristmill.filters.text.characters import flags
from gristmill.filters.text.english import BREAKS_SPACY, English, english
from gristmill.filters.text.plain import Plain
from gristmill.filters.text.tables import Table

MAX_RUNS = 1 << 18  # some 80 MB of memo, at the lengths of English web text
MAX_CHARS = 1 << 24  # bytes, so that pages of base64 do not fill memory with few runs
RUNS, TOKENS, IDS, URLS = range(4)  # places in `counts`; the same in the kernels, as what follows
OPEN, IS_URL, NO_URL, DONE = range(4)
MERGES, SIGNED = 1, 2
ROLE, OPENS, CHANGES, SIGN = 4, 1, 2, 4
_RUN = re.compile(r"\S+")  # the same runs as the kernels find
_HARD = (
    "don't",
    "U.S.",
    "a.b.com/x?y",
    "x@y.org",
    "3km",
    "12:30",
    "(foo:)",
    "e-mail--yes",
    "John’s",
    "…….",
    "'s's",
    "A$5",
)


class WordMemo:
    """Splits texts into words. `max_runs`, `max_chars` (bytes): how much it may carry from batch to batch."""

    def __init__(self, tokenizer: English | Plain, max_runs: int = MAX_RUNS, max_chars: int = MAX_CHARS) -> None:
        self._tokenizer = tokenizer
        self._max_runs, self._max_chars = max_runs, max_chars
        self._lock = threading.Lock()  # kernels run without the GIL, and two of them would enter runs at one place
        self._forget()

    @property
    def n_runs(self) -> int:
        """Runs that it knows."""
        return int(self._counts[RUNS])

    @property
    def n_bytes(self) -> int:
        """Bytes of the runs that it knows."""
        return int(self._runs[2][self.n_runs])

    def split(self, texts: pa.StringArray | Sequence[str], wanted: np.ndarray | None = None) -> Words:
        """Words of each text, in order; of those that are not `wanted` (bool [rows]; None: all are) none."""
        array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        asked = np.ones(len(array), bool) if wanted is None else wanted
        with self._lock:
            if self.n_runs > self._max_runs or self.n_bytes > self._max_chars:
                self._forget()
            if not isinstance(self._tokenizer, Plain):
                array = self._without_breaks(array, asked)
            return self._words(array, asked)

    def _words(self, array: pa.StringArray, asked: np.ndarray) -> Words:
        offsets, data = buffers("WordMemo", array)
        runs, ends = self._look_up(offsets, data, sealed(asked))
        self._resplit(array, runs, ends)
        known = (self.bounds, self.token_ids, self.tokens, int(self._counts[TOKENS]), self.facts, self.polynomials)
        return Words(Learned(*known), (offsets, data), runs, ends)

    def _without_breaks(self, texts: pa.StringArray, asked: np.ndarray) -> pa.StringArray:
        """The texts as datatrove splits them: where BREAKS_SPACY is a token of its own, spaCy fails, and datatrove
        tries again with all of it cut out. Where that leaves another one, datatrove fails; here it is a word then."""
        rows = [row for row in pc.indices_nonzero(pc.match_substring(texts, BREAKS_SPACY)).to_pylist() if asked[row]]
        if not rows:
            return texts
        words = self._words(texts.take(pa.array(rows)), np.ones(len(rows), bool))
        broken = np.zeros(len(texts), bool)
        broken[[row for place, row in enumerate(rows) if BREAKS_SPACY in words.tokens(place)]] = True
        cut = pc.replace_substring(texts.filter(pa.array(broken)), BREAKS_SPACY, "")
        return pc.replace_with_mask(texts, pa.array(broken), cut)

    def _forget(self) -> None:
        self._counts = np.zeros(4, np.int64)
        self._runs, self.tokens = _empty_table(), _empty_table()
        self.facts, self.polynomials = np.zeros((1024, 5), np.int32), np.zeros((1024, 2), np.uint64)
        self.bounds, self._states = np.zeros((1024, 2), np.int64), np.zeros(1024, np.uint8)
        self.token_ids = np.zeros(1024, np.int32)
        self._marked = np.zeros(1024, bool)
        self._unmerged: dict[int, list[str]] = {}  # tokens of runs in which some merged, as they were
        self._named: dict[tuple[str, ...], int] = {}  # runs that stand for tokens, and in no table
        # Those that have a part in special cases are the first tokens, so that the kernels know them by their numbers.
        rules = self._tokenizer
        roles = [(OPENS, {pair[0] for pair in rules.pairs}), (CHANGES, rules.changing), (SIGN, rules.signs)]
        parts = sorted({part for _, parts in roles for part in parts} | {pair[1] for pair in rules.pairs})
        numbers = dict(zip(parts, self._learn(parts).tolist(), strict=True))
        for bit, members in roles:
            for part in members:
                self.facts[numbers[part], ROLE] |= bit
        self._pairs = sealed(np.array(sorted(numbers[a] << 32 | numbers[b] for a, b in rules.pairs), np.int64))

    def _look_up(self, offsets: np.ndarray, data: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of all runs, end to end, and how many stand before each text."""
        ends = np.zeros(len(offsets), np.int64)
        parts = [np.zeros(0, np.int32)]
        for rows in slices(np.diff(offsets)):
            starts, some_asked = sealed(offsets[rows.start : rows.stop + 1]), sealed(asked[rows])
            counted = np.zeros(len(starts), np.int64)
            kernels().count_runs(starts, data, some_asked, flags(), counted)
            ids = np.zeros(int(counted[-1]), np.int32)
            first = self.n_runs
            self._room_for_runs(len(ids), int(starts[-1] - starts[0]))
            kernels().look_up(starts, data, some_asked, flags(), self._runs, self._counts, ids)
            self._split(first)
            parts.append(ids)
            ends[rows.start + 1 : rows.stop + 1] = ends[rows.start] + counted[1:]
        return np.concatenate(parts), ends

    def _split(self, first: int) -> None:
        """Learns the tokens of the runs from this number on."""
        end, starts = self.n_runs, self._runs[2]
        if first == end:
            return
        self._room_for_tokens(int(starts[end] - starts[first]))
        verdicts = np.zeros(end, np.uint8)
        cores = np.zeros((end - first, 3), np.int64)
        self._kernel(first, verdicts, cores)
        asked = cores[: self._counts[URLS]].copy()
        if len(asked):
            verdicts[:] = DONE
            stored = self._runs[3]
            for run, at, stop in asked.tolist():
                core = stored[at:stop].tobytes().decode()
                verdicts[run] = IS_URL if self._tokenizer.is_url(core) else NO_URL
            self._kernel(first, verdicts, cores)
        for run in (np.flatnonzero(self._states[first:end]) + first).tolist():
            self._merge(run)

    def _kernel(self, first: int, verdicts: np.ndarray, cores: np.ndarray) -> None:
        known, spans = (self.facts, self.polynomials), (self.bounds, self._states)
        rules = tuple(self._tokenizer.rules)
        texts = (isinstance(self._tokenizer, Plain), first, sealed(verdicts), self._runs, flags(), rules, self._pairs)
        kernels().split(*texts, self.tokens, known, spans, self.token_ids, self._counts, cores)

    def _merge(self, run: int) -> None:
        """Merges the tokens of a run that may, and marks it if a neighbour could change that."""
        tokens = self._tokens_of(run)
        if self._states[run] & MERGES:
            merged = [token for token, _ in self._tokenizer.merged(tokens, [0] * len(tokens))]
            if merged != tokens:
                self._unmerged[run] = tokens
                self.bounds[run] = self._counts[IDS], len(merged)
                self._learn(merged)
                tokens = merged
        self._marked[run] = self._tokenizer.marked(self._run(run), tokens)

    def _resplit(self, texts: pa.Array, runs: np.ndarray, ends: np.ndarray) -> None:
        """Splits runs again whose neighbours could change their tokens; puts their new numbers in `runs`."""
        edges = set(ends.tolist())
        rows: dict[int, list[int]] = {}
        seam = self._tokenizer.seam
        for i in np.flatnonzero(self._marked[runs]).tolist():
            here = self._run(runs[i])
            left = i not in edges and seam(self._run(runs[i - 1]), here)
            if left or (i + 1 not in edges and seam(here, self._run(runs[i + 1]))):
                rows.setdefault(int(np.searchsorted(ends, i, side="right")) - 1, []).append(i)
        for row, members in rows.items():
            text, first = texts[row].as_py(), int(ends[row])
            spans = [match.span() for match in _RUN.finditer(text)]
            own = runs[first : int(ends[row + 1])].copy()
            for i in members:
                runs[i] = self._as_run(self._in_context(text, spans, own, i - first))

    def _in_context(self, text: str, spans: list[tuple[int, int]], runs: np.ndarray, place: int) -> tuple[str, ...]:
        """Tokens of a run of a text, given by its place, as the other runs leave them."""
        reach = self._tokenizer.reach
        first, last = max(place - reach, 0), min(place + reach, len(spans) - 1)
        tokens: list[str | None] = []
        owners: list[int] = []
        for at in range(first, last + 1):
            if at > first and text[spans[at - 1][1] : spans[at][0]] != " ":
                tokens.append(None)
                owners.append(-1)
            own = self._unmerged.get(int(runs[at])) or self._tokens_of(int(runs[at]))
            tokens += own
            owners += [at] * len(own)
        return tuple(token for token, owner in self._tokenizer.merged(tokens, owners) if owner == place)

    def _as_run(self, tokens: tuple[str, ...]) -> int:
        """The number of a run with these tokens, which no text finds."""
        if tokens not in self._named:
            self._room_for_runs(1, 0)
            run = self.n_runs
            self._runs[1][run], self._runs[2][run + 1] = 0, self._runs[2][run]
            self._counts[RUNS] += 1
            self.bounds[run] = self._counts[IDS], len(tokens)
            self._learn(tokens)
            self._named[tokens] = run
        return self._named[tokens]

    def _learn(self, tokens: Sequence[str]) -> np.ndarray:
        """The numbers of these tokens, which are appended to those of all runs."""
        if not tokens:
            return np.zeros(0, np.int32)
        encoded = [token.encode() for token in tokens]
        ends = np.cumsum([len(data) for data in encoded]).astype(np.int64)
        self._room_for_tokens(sum(map(len, encoded)))
        data = sealed(np.frombuffer(b"".join(encoded), np.uint8))
        before = int(self._counts[IDS])
        known = (self.facts, self.polynomials)
        kernels().learn(data, sealed(ends), flags(), self.tokens, known, self.token_ids, self._counts)
        return self.token_ids[before : before + len(tokens)].copy()

    def _room_for_runs(self, runs: int, data: int) -> None:
        """So many more runs, of so many bytes."""
        self._runs = _with_room(self._runs, self.n_runs, runs, data)
        end = self.n_runs + runs
        self.bounds, self._states = _grown(self.bounds, end), _grown(self._states, end)
        self._marked = _grown(self._marked, end)

    def _room_for_tokens(self, data: int) -> None:
        """The tokens of runs of so many bytes: few are of a single byte."""
        count, more = int(self._counts[TOKENS]), min(data, data // 2 + 256)
        self.tokens = _with_room(self.tokens, count, more, data)
        self.facts, self.polynomials = _grown(self.facts, count + more), _grown(self.polynomials, count + more)
        self.token_ids = _grown(self.token_ids, int(self._counts[IDS]) + data)

    def _run(self, run: int) -> str:
        _, _, starts, stored = self._runs
        return stored[starts[run] : starts[run + 1]].tobytes().decode()

    def _tokens_of(self, run: int) -> list[str]:
        _, _, starts, stored = self.tokens
        at, size = self.bounds[run].tolist()
        return [stored[starts[n] : starts[n + 1]].tobytes().decode() for n in self.token_ids[at : at + size].tolist()]


def _empty_table() -> Table:
    return np.full(1024, -1, np.int32), np.zeros(512, np.uint64), np.zeros(513, np.int64), np.zeros(8192, np.uint8)


def _with_room(table: Table, count: int, more: int, data: int) -> Table:
    """The table of `count` entries with room for `more`, of so many bytes; at most half of its slots are used."""
    slots, hashes, starts, stored = table
    if len(slots) < 2 * (count + more):
        slots = np.full(1 << (2 * (count + more)).bit_length(), -1, np.int32)
        kernels().rehash(hashes, count, slots)
    hashes, starts = _grown(hashes, count + more), _grown(starts, count + more + 1)
    return slots, hashes, starts, _grown(stored, int(starts[count]) + data)


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    """The array, or a larger copy with so many rows at least; new ones are zero."""
    if len(array) >= rows:
        return array
    larger = np.zeros((max(rows, 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


@lru_cache(maxsize=1)
def english_words() -> WordMemo:
    """The memo of this process. Raises RuntimeError if spaCy, as it is installed, splits some runs otherwise."""
    memo = WordMemo(english())
    runs = [chunk for chunk in (*english().specials, *_HARD) if chunk.split() == [chunk]]
    words = memo.split(runs)
    for row, (run, tokens) in enumerate(zip(runs, english().by_spacy(runs), strict=True)):
        if words.tokens(row) != tokens:
            raise RuntimeError(
                f"spaCy's English tokenizer splits {run!r} into {tokens}, and ours into {words.tokens(row)}; "
                "filters/text/english.py does not fit this version of spaCy"
            )
    return WordMemo(english())


@lru_cache(maxsize=1)
def plain_words() -> WordMemo:
    """The memo of this process for words of any language."""
    return WordMemo(Plain())
