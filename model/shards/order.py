"""The order of an epoch: a bijection of range(n) that answers for any place without having made the others.

A shuffled list costs memory on every rank and has to be made again for each epoch before a run can go on in its middle.
Here a place is enciphered instead: a balanced Feistel network of ROUNDS rounds over the next even power of two, and
what falls outside range(n) is enciphered again until it falls inside (cycle walking; Black & Rogaway 2002, "Ciphers
with Arbitrary Finite Domains", method 2). This mixes; it hides nothing, and its round function is no secret.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np

ROUNDS = 6
SMALLEST_HALF = 3
"""Bits of half a block at least: on two or four values a network has too few round functions to mix well."""

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_SPREAD, _STIR = 0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93  # odd: the golden ratio of 2^64; from "rrmxmx"


class Permutation:
    """One of the orders of range(n), chosen by `seed` and `epoch`: `order[k]` is what stands at place k.

    n: 1 to 2^62. Any integers may be seed and epoch. The same three numbers are the same order on every machine and in
    every release: runs resume by it. At most 4 walks through the network an element on average (64 / n below n = 16).
    Raises ValueError for an n outside these bounds.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if not 1 <= n <= 1 << 62:
            raise ValueError(f"Permutation: n is the number of things to order, 1 to 2^62, not {n}")
        self.n = n
        self._half = max(((n - 1).bit_length() + 1) // 2, SMALLEST_HALF)
        digest = hashlib.blake2b(f"gristmill order 1 {seed} {epoch}".encode(), digest_size=8 * ROUNDS).digest()
        self._keys = struct.unpack(f"<{ROUNDS}Q", digest)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> int:
        """What stands at place `k`, both in range(n). Raises IndexError; places do not count from the end."""
        if not 0 <= k < self.n:
            raise IndexError(f"place {k} is not in an order of {self.n}")
        value: int = self._encipher(k)
        while value >= self.n:
            value = self._encipher(value)
        return value

    def take(self, ks: np.ndarray) -> np.ndarray:
        """What stands at the places `ks`, integers of any shape; int64 of that shape. Raises IndexError."""
        places = np.asarray(ks)
        if places.size and not (places.min() >= 0 and places.max() < self.n):
            raise IndexError(f"places {places.min()} to {places.max()} are not in an order of {self.n}")
        values = self._encipher(places.astype(np.uint64).ravel())
        outside = np.flatnonzero(values >= self.n)
        while outside.size:
            values[outside] = self._encipher(values[outside])
            outside = outside[values[outside] >= self.n]
        return values.astype(np.int64).reshape(places.shape)

    def _encipher(self, value: Any) -> Any:
        """One walk through the network, for an int below 4^half or for an array uint64 of them."""
        half = self._half
        left, right, mask = value >> half, value & ((1 << half) - 1), 64 - half
        for key in self._keys:
            mixed = (right * _SPREAD + key) & _WORD  # `& _WORD` is for int: an array wraps by itself
            mixed = ((mixed ^ (mixed >> 32)) * _STIR) & _WORD
            left, right = right, left ^ (mixed >> mask)
        return (left << half) | right
