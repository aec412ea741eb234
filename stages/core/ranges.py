"""Ranges of a hash: how many a table of so many rows is cut into, the same for whoever cuts it."""

from __future__ import annotations

from itertools import pairwise


def hash_ranges(rows: int, rows_per_range: int) -> list[tuple[str, str]]:
    """[low, high) prefixes that split lower-case hex hashes evenly: a power of two of them."""
    parts = 1
    while rows > parts * rows_per_range:
        parts *= 2
    bounds = ["", *(f"{(i << 32) // parts:08x}" for i in range(1, parts)), "g"]
    return list(pairwise(bounds))
