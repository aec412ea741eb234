"""Tables from strings of bytes to numbers, and what is known of each token, entered when it is met first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.text.kernels.utf8 import (
    ALPHA,
    CHARS,
    ENDS,
    GOLDEN,
    HAS_ALPHA,
    MARK,
    MERSENNE,
    PUNCT,
    ROLE,
    SENTENCE,
    WORD,
    character,
    mixed,
    product,
)

BASE = np.uint64(0x0B1D3F5A7C9E2468)  # of the polynomial over a token's bytes, below MERSENNE
# Places in `counts`.
RUNS, TOKENS, IDS, URLS = range(4)


@register_jitable
def hashed(data: Any, at: Any, end: Any) -> Any:
    """Of some bytes, 64 bits."""
    h = np.uint64(end - at)
    for i in range(at, end):
        h = h * GOLDEN + np.uint64(data[i]) + np.uint64(1)
    return mixed(h)


@register_jitable
def place_of(table: Any, data: Any, at: Any, end: Any, h: Any) -> Any:
    """The number of these bytes in a table (slots, hashes, starts, bytes), or -1 - the slot that is free for them."""
    slots, hashes, starts, stored = table
    mask = np.int64(len(slots) - 1)
    slot = np.int64(h & np.uint64(mask))
    while True:
        entry = np.int64(slots[slot])
        if entry < 0:
            return -1 - slot
        if hashes[entry] == h and starts[entry + 1] - starts[entry] == end - at:
            first = starts[entry]
            same = True
            for i in range(end - at):
                if stored[first + i] != data[at + i]:
                    same = False
                    break
            if same:
                return entry
        slot = (slot + 1) & mask


@register_jitable
def put(table: Any, count: Any, slot: Any, data: Any, at: Any, end: Any, h: Any) -> None:
    """Enters these bytes as number `count`, at a free slot. There has to be room."""
    slots, hashes, starts, stored = table
    slots[slot] = count
    hashes[count] = h
    first = starts[count]
    for i in range(end - at):
        stored[first + i] = data[at + i]
    starts[count + 1] = first + end - at


@register_jitable
def token(table: Any, facts: Any, polynomials: Any, flags: Any, counts: Any, data: Any, at: Any, end: Any) -> Any:
    """The number of a token, which is entered with all that is known of it if it is new."""
    h = hashed(data, at, end)
    entry = place_of(table, data, at, end, h)
    if entry >= 0:
        return entry
    number = counts[TOKENS]
    put(table, number, -1 - entry, data, at, end, h)
    counts[TOKENS] += 1
    word, alpha, mark = False, False, True
    characters, last = np.int64(0), np.int64(0)
    place = at
    while place < end:
        point, size = character(data, place, end)
        last = np.int64(flags[point])
        word |= last & PUNCT == 0
        alpha |= last & ALPHA != 0
        mark &= last & MARK != 0
        characters += 1
        place += size
    facts[number, WORD] = word
    facts[number, CHARS] = characters
    facts[number, HAS_ALPHA] = alpha
    facts[number, SENTENCE] = 2 if characters == 1 and last & ENDS else np.int64(mark)
    facts[number, ROLE] = 0
    value, power = np.uint64(0), np.uint64(1)
    for i in range(at, end):
        value = product(value, BASE) + np.uint64(data[i]) + np.uint64(1)
        value = value - MERSENNE if value >= MERSENNE else value
        power = product(power, BASE)
    polynomials[number, 0], polynomials[number, 1] = value, power
    return number
