"""Words of a model as arrays that a kernel looks them up in (`hash_kernel.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

END = b"</s>"
"""fastText's word at the end of every line."""
_FARTHEST = 1000
"""Slots from its hash to a word at most; of words that nobody chose for their hashes, 400,000 lie within ten."""
_BASIS, _PRIME = np.uint32(2166136261), np.uint32(16777619)


class WordTable(NamedTuple):
    """`slots`: int32, a power of two of them, the number of a word at its hash or behind it, -1 where empty; at most
    half are full. `hashes`: uint32 [words]; `ends`: int64 [words], of each in `blob`, the bytes of all."""

    slots: np.ndarray
    hashes: np.ndarray
    blob: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, words: Sequence[bytes]) -> WordTable:
        """The table of these words, by their order."""
        hashes = word_hashes(words)
        blob = np.frombuffer(b"".join(words) or b"\0", np.uint8).copy()
        return cls(_slots(hashes), hashes, blob, np.cumsum([len(word) for word in words], dtype=np.int64))


def word_hashes(words: Sequence[bytes]) -> np.ndarray:
    """FNV-1a of 32 bits of each word, uint32 [words]; bytes are signed numbers, as fastText reads them."""
    lengths = np.array([len(word) for word in words], np.int64)
    order = np.argsort(-lengths, kind="stable")
    shortness = -lengths[order]  # made once: a word of a stranger's file may have as many bytes as there are words
    starts = (np.cumsum(lengths) - lengths)[order]
    signed = np.frombuffer(b"".join(words), np.int8).astype(np.int32).view(np.uint32)
    hashes = np.full(len(words), _BASIS, np.uint32)
    for place in range(int(lengths.max(initial=0))):
        still = int(np.searchsorted(shortness, -place))  # words of more bytes than `place`
        hashes[:still] = (hashes[:still] ^ signed[starts[:still] + place]) * _PRIME
    result = np.empty_like(hashes)
    result[order] = hashes
    return result


def check_spread(words: Sequence[bytes]) -> None:
    """Raises ValueError for words whose hashes are so much alike that a table of them is slow to make and to use."""
    homes = np.sort((word_hashes(words) & np.uint32(_size(len(words)) - 1)).astype(np.int64))
    # Where each would lie if they came in this order: behind the one before it, or at its hash. Another order moves
    # other words, but fills the same slots.
    order = np.arange(len(homes))
    farthest = int((np.maximum.accumulate(homes - order) + order - homes).max(initial=0))
    if farthest > _FARTHEST:
        raise ValueError(f"words lie up to {farthest:,} places from their hashes, which were chosen to be alike")


def _size(words: int) -> int:
    """Slots for so many words, a power of two."""
    return 1 << max(4, (2 * words).bit_length())


def _slots(hashes: np.ndarray) -> np.ndarray:
    slots = np.full(_size(len(hashes)), -1, np.int32)
    mask = len(slots) - 1
    for number, h in enumerate(hashes.tolist()):
        place = h & mask
        while slots[place] >= 0:
            place = (place + 1) & mask
        slots[place] = number
    return slots
