"""What the compiled kernels are handed besides texts: Arrow buffers as arrays, and what each character is to a word.

Two readings of words: `folded`, in which a run of digits is one "0", for signatures of near duplicates; and `exact`, in
which every digit counts, where "3 apples" and "5 apples" are two things.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
import pyarrow as pa

from gristmill.filters.signatures.alphabet import BREAK, DIGIT, KIND_SHIFT, LETTER, Alphabet, alphabet

GOLDEN, SPLIT_A, SPLIT_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK = (1 << 64) - 1

Pair = tuple[np.ndarray, np.ndarray]


def letter_code(point: int) -> int:
    """What a folded code point adds to its word's hash."""
    x = (point + 1) * GOLDEN & MASK
    return (x ^ x >> 32) * SPLIT_A & MASK


@lru_cache(maxsize=1)
def folded() -> tuple[Pair, Pair]:
    """(table of ASCII, table of all characters), as the kernels take them; digits are folded."""
    return _pairs(alphabet())


@lru_cache(maxsize=1)
def exact() -> tuple[Pair, Pair]:
    """The same, but a decimal digit of any script is the letter of its value."""
    entries, several = alphabet()
    entries = entries.copy()
    for point in np.flatnonzero(entries >> KIND_SHIFT == DIGIT).tolist():
        entries[point] = ord("0") + unicodedata.decimal(chr(point)) | LETTER << KIND_SHIFT
    return _pairs(Alphabet(entries, several))


def _pairs(characters: Alphabet) -> tuple[Pair, Pair]:
    """Of ASCII: what a character adds to its word's hash; all ones, or 0 if it ends the word. uint64 [128] each."""
    entries = characters.entries[:128].tolist()
    breaks = [entry >> KIND_SHIFT == BREAK for entry in entries]
    codes = [0 if ends else letter_code(entry & 0x1FFFFF) for ends, entry in zip(breaks, entries, strict=True)]
    keeps = [0 if ends else MASK for ends in breaks]
    ascii_table = sealed(np.array(codes, dtype=np.uint64)), sealed(np.array(keeps, dtype=np.uint64))
    return ascii_table, (sealed(characters.entries), sealed(characters.several))


def buffers(who: str, texts: pa.StringArray | pa.LargeStringArray) -> Pair:
    """(offsets, int64 [rows + 1]; UTF-8 bytes, uint8), both contiguous; offsets are those of the slice. `who` wants
    them, for messages. Raises TypeError for what is no string array, ValueError for a null."""
    if not isinstance(texts, pa.StringArray | pa.LargeStringArray):
        raise TypeError(f"{who}: texts is a {type(texts).__name__}; pass a pyarrow string array")
    if texts.null_count:
        raise ValueError(
            f"{who}: {texts.null_count} of {len(texts)} texts are null; a record without text has to be dropped or "
            "quarantined before it is hashed (an empty text is allowed)"
        )
    _, starts, data = texts.buffers()
    if len(texts) == 0 or data is None:
        return sealed(np.zeros(len(texts) + 1, dtype=np.int64)), sealed(np.zeros(0, dtype=np.uint8))
    width = np.int32 if isinstance(texts, pa.StringArray) else np.int64
    offsets = np.frombuffer(starts, dtype=width)[texts.offset : texts.offset + len(texts) + 1]
    return sealed(offsets.astype(np.int64)), sealed(np.frombuffer(data, dtype=np.uint8))


def sealed(values: np.ndarray) -> np.ndarray:
    """The array, contiguous and read-only, as the kernels' one signature has it: others take a slower way in."""
    array = np.ascontiguousarray(values).view()
    array.flags.writeable = False
    return array
