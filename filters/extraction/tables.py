"""The vocabulary as arrays that kernels read: hash tables of words, and automata that find many words in one pass."""

from __future__ import annotations

import html.entities
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction import vocabulary

FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
"""FNV-1a with 64 bits, http://www.isthe.com/chongo/tech/comp/fnv. Kernels have the same in signed integers."""
LEGACY = 1 << 32
"""Bit beside an entity's character: it counts without its semicolon too."""


class Words(NamedTuple):
    """An open hash table: int64 [a power of 2] each, key 0 where there is none. A key is a word's hash."""

    keys: np.ndarray
    values: np.ndarray


class Automaton(NamedTuple):
    """Aho and Corasick's, as one column: the state after a byte is `after[state + classes[byte]]`, uint16 and uint8
    [256]. In states from `marked` on words end, whose bits are `groups[(state - marked) >> width]`, int64. A state is
    the place of its row of `1 << width` classes; the nearer it is to the start, the nearer to the front."""

    after: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    marked: int


class Tables(NamedTuple):
    """Everything that the pass looks up. `properties`, `ancestors` and `categories`: of tags, int64 [tags]."""

    tags: Words
    properties: np.ndarray
    ancestors: np.ndarray
    categories: np.ndarray
    attributes: Automaton
    phrases: Automaton
    stop_words: Words
    entities: Words


@lru_cache(maxsize=1)
def tables() -> Tables:
    """Those of this process, built at the first call."""
    tags = vocabulary.TAGS
    bits = {tag: getattr(c, f"IN_{name.upper()}") for tag, name in vocabulary.ANCESTORS.items()}
    return Tables(
        tags=_words([(tag, number) for number, tag in enumerate(tags) if number]),
        properties=_column([_properties(tag) for tag in tags]),
        ancestors=_column([bits.get(tag, 0) for tag in tags]),
        categories=_column([vocabulary.CATEGORIES.get(tag, 0) for tag in tags]),
        attributes=_automaton([group.split() for group in vocabulary.ATTRIBUTE_WORDS], _letters(), c.WORD_WIDTH),
        phrases=_automaton(
            [group.split(",") for group in vocabulary.PHRASES], _bytes_of(vocabulary.PHRASES), c.PHRASE_WIDTH
        ),
        stop_words=_words([(word, 1) for word in sorted(set(vocabulary.STOP_WORDS.split()))]),
        entities=_words(_entities()),
    )


def hash_of(word: str) -> int:
    """FNV-1a of its UTF-8, as a signed integer; never 0, which is an empty place."""
    value = FNV_START
    for byte in word.encode():
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return (value - (1 << 64) if value >> 63 else value) or 1


def _properties(tag: str) -> int:
    sets = (
        (vocabulary.BLOCKS, c.IS_BLOCK),
        (vocabulary.VOID, c.IS_VOID),
        (vocabulary.RAW, c.IS_RAW),
        (vocabulary.HIDDEN, c.IS_HIDDEN),
        (vocabulary.CLOSES_P, c.CLOSES_P),
    )
    return sum(bit for members, bit in sets if tag in members)


def _words(items: Sequence[tuple[str, int]]) -> Words:
    size = 1 << (2 * len(items)).bit_length()
    keys, values = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for word, value in items:
        key = hash_of(word)
        place = (key ^ (key >> 32)) & (size - 1)
        while keys[place] not in (0, key):
            place = (place + 1) & (size - 1)
        keys[place], values[place] = key, value
    return Words(_frozen(keys), _frozen(values))


def _entities() -> list[tuple[str, int]]:
    """Named characters, those of one code point, with LEGACY where the semicolon may be missing."""
    names = html.entities.html5
    single = {name.removesuffix(";"): value for name, value in names.items() if len(value) == 1 and name.endswith(";")}
    return [(name, ord(value) | LEGACY * (name in names)) for name, value in sorted(single.items())]


def _letters() -> np.ndarray:
    """Letters in either case, a class each; 26: everything else."""
    classes = np.full(256, 26, np.uint8)
    for letter in range(26):
        classes[ord("a") + letter] = classes[ord("A") + letter] = letter
    return classes


def _bytes_of(texts: Sequence[str]) -> np.ndarray:
    """The bytes of texts, a class each, capitals as small letters; 0: everything else."""
    classes = np.zeros(256, np.uint8)
    used = sorted(set("".join(texts).lower().encode()))
    classes[used] = np.arange(1, len(used) + 1)
    classes[ord("A") : ord("Z") + 1] = classes[ord("a") : ord("z") + 1]
    return classes


def _automaton(groups: Sequence[Iterable[str]], classes: np.ndarray, width: int) -> Automaton:
    """Finds the words of each group; a word of group `k` sets bit `k`. There are at most 1 << width classes."""
    after, bits = [[-1] * (1 << width)], [0]
    for group, words in enumerate(groups):
        for word in words:
            state = 0
            for byte in word.encode():
                kind = int(classes[byte])
                if after[state][kind] < 0:
                    after.append([-1] * (1 << width))
                    bits.append(0)
                    after[state][kind] = len(after) - 1
                state = after[state][kind]
            bits[state] |= 1 << group
    shorter, order = [0] * len(after), [0]
    for state in order:  # which grows: the states in the order of their depth
        bits[state] |= bits[shorter[state]]
        for kind, following in enumerate(after[state]):
            fallback = after[shorter[state]][kind] if state else 0
            if following < 0:
                after[state][kind] = fallback
            else:
                shorter[following] = fallback
                order.append(following)
    order.sort(key=lambda state: bits[state] > 0)
    place = {state: number << width for number, state in enumerate(order)}
    rows = [place[following] for state in order for following in after[state]]
    ends = [bits[state] for state in order if bits[state]]
    return Automaton(
        _frozen(np.array(rows, np.uint16)), _frozen(classes), _column(ends), (len(order) - len(ends)) << width
    )


def _column(values: Sequence[int]) -> np.ndarray:
    return _frozen(np.array(values, np.int64))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
