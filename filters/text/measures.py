"""Measures of a batch of texts that several filters are made of, compiled: `filters/text/kernels`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.filters.signatures.compiled import load
from gristmill.filters.signatures.tables import sealed
from gristmill.filters.text.batch import Words
from gristmill.filters.text.characters import flags

Texts = tuple[np.ndarray, np.ndarray]
"""(offsets, int64 [rows + 1]; UTF-8 bytes), as `Docs.buffers` has them."""


class Kernels(NamedTuple):
    """Numba dispatchers of one signature each, which release the GIL."""

    symbols: Callable[..., None]
    line_repeats: Callable[..., None]
    gram_repeats: Callable[..., None]
    lines: Callable[..., None]
    c4_lines: Callable[..., None]


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The kernels of this process, loaded or compiled at the first call."""
    folder = Path(__file__).with_name("kernels")
    uses = [folder / "segments.py", folder / "utf8.py"]
    compiled: dict[str, Callable[..., None]] = {}
    for name in ("lines.py", "grams.py", "c4.py"):
        compiled |= load(folder / name, uses=uses)
    return Kernels(**compiled)


class Symbols(NamedTuple):
    """int64 [rows] each: "#"; "..." and "…"; lines that begin with "•" or "-"; that end with "..." or "…"; lines, as
    `str.splitlines` has them; the longest run of symbols, 0 for those of less than 16. Zero for rows not asked for."""

    hashes: np.ndarray
    ellipses: np.ndarray
    bullet_lines: np.ndarray
    ellipsis_lines: np.ndarray
    n_lines: np.ndarray
    longest_run: np.ndarray


def symbols(texts: Texts, rows: np.ndarray) -> Symbols:
    """Of the texts where `rows` (bool) is true."""
    out = np.zeros((len(rows), 6), np.int64)
    kernels().symbols(*texts, sealed(rows), flags(), out)
    return Symbols(*out.T)


class LineRepeats(NamedTuple):
    """int64 [rows] each: characters; paragraphs, those that stood before in the text, characters of those; lines, ...
    Zero for rows not asked for."""

    characters: np.ndarray
    paragraphs: np.ndarray
    repeated_paragraphs: np.ndarray
    paragraph_characters: np.ndarray
    lines: np.ndarray
    repeated_lines: np.ndarray
    line_characters: np.ndarray


def line_repeats(texts: Texts, rows: np.ndarray) -> LineRepeats:
    """Of the texts where `rows` (bool) is true."""
    out = np.zeros((len(rows), 7), np.int64)
    kernels().line_repeats(*texts, sealed(rows), flags(), out)
    return LineRepeats(*out.T)


def gram_repeats(words: Words, top: Sequence[int], duplicated: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [len(top), rows], int64 [len(duplicated), rows]): for each n, characters of the most frequent n-gram of
    words with spaces times its frequency; and characters of n-grams that stood before, without overlaps."""
    out = np.zeros((len(words), len(top) + len(duplicated)), np.int64)
    _, _, starts, stored = words.tokens_table
    ns = [sealed(np.array(sizes, np.int64)) for sizes in (top, duplicated)]
    arrays = (words.token_ends, words.flat, starts, stored, words.facts, words.polynomials)
    kernels().gram_repeats(*arrays, *ns, out)
    return out.T[: len(top)], out.T[len(top) :]


class Lines(NamedTuple):
    """int64 [rows] each, of lines between newlines: characters but newlines; newlines; lines that are not blank, those
    of them that end a sentence, those that are short, characters of those that stood before in the text."""

    characters: np.ndarray
    newlines: np.ndarray
    n_lines: np.ndarray
    ending: np.ndarray
    short: np.ndarray
    repeated_characters: np.ndarray


def lines(texts: Texts, rows: np.ndarray, short: int) -> Lines:
    """Of the texts where `rows` (bool) is true; a line of at most `short` characters is short."""
    out = np.zeros((len(rows), 6), np.int64)
    kernels().lines(*texts, sealed(rows), flags(), short, out)
    return Lines(*out.T)


KEPT, LONG_WORD, NO_TERMINAL, FEW_WORDS, SCRIPT, POLICY = range(6)
"""What becomes of a line under C4's rules."""
CITATIONS = ("[edit]", "[citation needed]")
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


@dataclass(frozen=True)
class LineRules:
    """C4's rules for lines, as settings: datatrove's `C4QualityFilter`; None switches one off."""

    terminal_punctuation: bool = True
    min_words_per_line: int | None = 3
    max_word_length: int | None = 1000
    javascript: bool = True
    policy: bool = True
    remove_citations: bool = True


class RuledLines(NamedTuple):
    """Lines of a batch: int64 [lines] each: `row`, `start` and `end` in the batch's bytes (with what ends the line),
    `state` (KEPT, ...), `lorem` and `bracket` (whether it stands in a line that gets as far as the question). kept:
    large_string, those that are kept, stripped and without citations, in order."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    state: np.ndarray
    lorem: np.ndarray
    bracket: np.ndarray
    kept: pa.LargeStringArray


def ruled_lines(texts: Texts, rows: np.ndarray, rules: LineRules) -> RuledLines:
    """What becomes of the lines (`str.splitlines`) of the texts where `rows` (bool) is true."""
    offsets = texts[0]
    most = int(np.maximum(symbols(texts, rows).n_lines, 0).sum()) + 1
    table, ends = np.zeros((most, 6), np.int64), np.zeros(most, np.int64)
    edited, counts = np.zeros(int(offsets[-1] - offsets[0]) + 1, np.uint8), np.zeros(3, np.int64)
    phrases = [phrase.encode() for phrase in (*CITATIONS, "lorem ipsum", "javascript", *POLICIES)]
    bounds = np.cumsum([0, *map(len, phrases)]).astype(np.int64)
    in_order = (  # of the kernel
        rules.max_word_length,
        rules.remove_citations,
        rules.terminal_punctuation,
        rules.min_words_per_line,
        rules.javascript,
        rules.policy,
    )
    numbers = np.array([-1 if rule is None else int(rule) for rule in in_order], np.int64)
    constants = [sealed(array) for array in (numbers, np.frombuffer(b"".join(phrases), np.uint8), bounds)]
    kernels().c4_lines(*texts, sealed(rows), flags(), *constants, table, edited, ends, counts)
    n, kept, used = counts.tolist()
    kept_ends = np.concatenate([[0], ends[:kept]]).astype(np.int64)
    strings = pa.LargeStringArray.from_buffers(kept, pa.py_buffer(kept_ends), pa.py_buffer(edited[:used].copy()))
    row, start, end, state, lorem, bracket = table[:n].T
    return RuledLines(row, start, end, state, lorem, bracket, strings)
