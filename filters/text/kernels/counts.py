"""What is counted of the tokens of texts: words, their characters, sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from gristmill.filters.text.kernels.utf8 import (
    CHARS,
    DATA,
    FLAGS,
    HAS_ALPHA,
    OFFSETS,
    SENTENCE,
    SPACE,
    WORD,
    array,
    character,
)


def sums(flat: Any, token_ends: Any, facts: Any, out: Any) -> None:
    """To `out`, int64 [rows, 3]: words, their characters, tokens with a letter."""
    for row in range(len(token_ends) - 1):
        words = characters = alpha = np.int64(0)
        for i in range(token_ends[row], token_ends[row + 1]):
            number = np.int64(flat[i])
            words += facts[number, WORD]
            characters += facts[number, WORD] * facts[number, CHARS]
            alpha += facts[number, HAS_ALPHA]
        out[row, 0], out[row, 1], out[row, 2] = words, characters, alpha


def sentences(
    offsets: Any, data: Any, flags: Any, ids: Any, ends: Any, bounds: Any, token_ids: Any, facts: Any, out: Any
) -> None:
    """How many sentences spaCy's sentencizer makes of each text, to `out`, int64 [rows]. A text of whitespace is one.

    It begins one at the first token that is no punctuation behind one that ends a sentence; whitespace that is not one
    space between two words is a token.
    """
    for row in range(len(offsets) - 1):
        at, end, run = offsets[row], offsets[row + 1], ends[row]
        count, ended, place = np.int64(1), False, at
        while place < end:
            point, size = character(data, place, end)
            if np.int64(flags[point]) & SPACE:
                start = place
                while place < end and np.int64(flags[point]) & SPACE:
                    place += size
                    if place < end:
                        point, size = character(data, place, end)
                single = place - start == 1 and data[start] == 32 and start > at
                if ended and not single:
                    count += 1
                    ended = False
                continue
            while place < end and np.int64(flags[point]) & SPACE == 0:
                place += size
                if place < end:
                    point, size = character(data, place, end)
            if run == ends[row + 1]:
                break  # its runs are not those of the text: it is counted elsewhere
            number = np.int64(ids[run])
            run += 1
            for k in range(bounds[number, 0], bounds[number, 0] + bounds[number, 1]):
                kind = facts[token_ids[k], SENTENCE]
                if kind == 2:
                    ended = True
                elif kind == 0 and ended:
                    count += 1
                    ended = False
        out[row] = count


_COUNTS, _IDS = array(types.int64), array(types.int32)
SIGNATURES = {
    "sums": types.void(_IDS, _COUNTS, array(types.int32, 2), array(types.int64, 2)),
    "sentences": types.void(
        OFFSETS,
        DATA,
        FLAGS,
        _IDS,
        _COUNTS,
        array(types.int64, 2),
        _IDS,
        array(types.int32, 2),
        _COUNTS,
    ),
}
