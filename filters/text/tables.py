"""Tables from strings to numbers as the kernels of `filters/text/kernels/words.py` read them, made in plain Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GOLDEN, SPLIT_A, SPLIT_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = (1 << 64) - 1

Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""slots int32 [a power of two] (-1: free), hashes uint64 [entries], starts int64 [entries + 1] in bytes uint8."""


def hashed(data: bytes) -> int:
    """What the kernels make of these bytes, 64 bits."""
    h = len(data)
    for byte in data:
        h = (h * GOLDEN + byte + 1) & MASK
    h = (h ^ h >> 30) * SPLIT_A & MASK
    h = (h ^ h >> 27) * SPLIT_B & MASK
    return h ^ h >> 31


def table(entries: Sequence[str]) -> Table:
    """Of different strings, numbered in their order. Read-only, half empty."""
    encoded = [entry.encode() for entry in entries]
    slots = np.full(2 << (2 * len(entries)).bit_length(), -1, np.int32)
    hashes = [hashed(data) for data in encoded]
    for number, h in enumerate(hashes):
        slot = h & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = number
    starts = np.cumsum([0, *map(len, encoded)])
    parts = (
        slots,
        np.array(hashes, np.uint64),
        starts.astype(np.int64),
        np.array(bytearray(b"".join(encoded)), np.uint8),
    )
    for part in parts:
        part.flags.writeable = False
    return parts


def number(of: Table, entry: str, count: int) -> int:
    """The number of a string among the first `count` of a table, or -1. More may have been entered since."""
    slots, hashes, starts, stored = of
    data = entry.encode()
    h = hashed(data)
    slot = h & (len(slots) - 1)
    while (place := int(slots[slot])) >= 0:
        is_known = place < count and int(hashes[place]) == h
        if is_known and stored[starts[place] : starts[place + 1]].tobytes() == data:
            return place
        slot = (slot + 1) & (len(slots) - 1)
    return -1
