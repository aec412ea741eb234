"""The rows of a line's words and n-grams, of characters and of words, in a fastText model, as its library takes them.

A line's end within a text is a blank, where the library's Python refuses it.
Source: fastText 0.9.2, dictionary.cc (readWord, getLine, computeSubwords, addWordNgrams, pushHash).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.fast_text.hash_kernel import FNV_BASIS, NGRAM_FACTOR, hashed, token_hash, word_number

N_WORDS, BUCKETS, WORD_NGRAMS, MIN_N, MAX_N, LOSS, END, END_HASH = range(8)
"""Places in `shape`: words; rows for n-grams; words of an n-gram; characters of one, of which the most is 0 for none;
loss; the number of the word at the end of a line, -1 for none, and its hash."""
_OPENS, _CLOSES = np.uint8(60), np.uint8(62)  # < and >, around a word whose n-grams are taken
_LABEL = np.frombuffer(b"__label__", np.uint8)
_END = np.frombuffer(b"</s>", np.uint8)


@register_jitable
def is_blank(byte: Any) -> Any:
    """Whether a byte parts words: blank, tab, line feed, vertical tab, form feed, carriage return, zero."""
    return byte == 32 or 9 <= byte <= 13 or byte == 0


@register_jitable
def begins(data: Any, start: Any, end: Any, with_these: Any) -> Any:
    """Whether these bytes begin so."""
    if end - start < len(with_these):
        return False
    for k in range(len(with_these)):  # noqa: SIM110 (numba compiles no generators)
        if data[start + k] != with_these[k]:
            return False
    return True


@register_jitable
def remainder(h: Any, divisor: Any, inverse: Any) -> Any:
    """h % divisor for numbers of 32 bits without a division; `inverse`: 2^64 / divisor, rounded up.
    Source: Lemire, Kaser, Kurz 2019, arXiv 1902.01961."""
    low = inverse * h
    low_part = ((low & np.uint64(0xFFFFFFFF)) * divisor) >> np.uint64(32)
    return ((low >> np.uint64(32)) * divisor + low_part) >> np.uint64(32)


@register_jitable
def count_bits(x: Any) -> Any:
    """Ones among 64 bits."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> np.uint64(56)


@register_jitable
def bucket_row(bucket: Any, kept: Any, kept_before: Any) -> Any:
    """The row behind the words of an n-gram's bucket, -1 for one that was pruned. `kept`: a bit a bucket, empty where
    all are kept; `kept_before`: ones before each 64 of them."""
    if len(kept) == 0:
        return np.int64(bucket)
    block, bit = bucket >> np.uint64(6), bucket & np.uint64(63)
    bits = kept[block]
    if (bits >> bit) & np.uint64(1) == 0:
        return np.int64(-1)
    return np.int64(kept_before[block]) + np.int64(count_bits(bits & ((np.uint64(1) << bit) - np.uint64(1))))


@register_jitable
def add_grams(
    word: Any, size: Any, kept: Any, kept_before: Any, shape: Any, inverse: Any, rows: Any, added: Any
) -> Any:
    """Appends to `rows` those of the n-grams of characters of a word between its marks; returns how many there are."""
    buckets, n_words = np.uint64(shape[BUCKETS]), shape[N_WORDS]
    for first in range(size):
        if word[first] & 0xC0 == 0x80:
            continue
        h = FNV_BASIS
        at, length = first, 0
        while at < size and length < shape[MAX_N]:
            h = hashed(h, word[at])
            at += 1
            while at < size and word[at] & 0xC0 == 0x80:
                h = hashed(h, word[at])
                at += 1
            length += 1
            if length >= shape[MIN_N] and not (length == 1 and (first == 0 or at == size)):
                row = bucket_row(remainder(np.uint64(h), buckets, inverse), kept, kept_before)
                if row >= 0:
                    rows[added] = n_words + row
                    added += 1
    return added


@register_jitable
def add_word_grams(hashes: Any, tokens: Any, kept: Any, kept_before: Any, shape: Any, rows: Any, added: Any) -> Any:
    """Appends to `rows` those of n-grams of words, given by their hashes; returns how many there are."""
    for first in range(tokens):
        h: Any = np.uint64(np.int64(np.int32(hashes[first])))
        for last in range(first + 1, min(tokens, first + shape[WORD_NGRAMS])):
            h = h * NGRAM_FACTOR + np.uint64(np.int64(np.int32(hashes[last])))
            row = bucket_row(h % np.uint64(shape[BUCKETS]), kept, kept_before)
            if row >= 0:
                rows[added] = shape[N_WORDS] + row
                added += 1
    return added


@register_jitable
def gather(
    data: Any,
    at: Any,
    end: Any,
    slots: Any,
    hashes: Any,
    blob: Any,
    ends: Any,
    kept: Any,
    kept_before: Any,
    shape: Any,
    inverse: Any,
    rows: Any,
    word: Any,
    tokens: Any,
) -> Any:
    """Rows of a line's words, n-grams of characters and n-grams of words, in this order; returns how many there are.
    `word`, `tokens`: room for a word between its marks, and for the hashes of all."""
    # long: one pass, of which each part needs all that the others keep
    added, n_tokens = np.int64(0), np.int64(0)
    ended = False
    while not ended:
        while at < end and is_blank(data[at]):
            at += 1
        start = at
        while at < end and not is_blank(data[at]):
            at += 1
        ended = at == start or (at - start == len(_END) and begins(data, start, at, _END))
        if ended:
            number, h = shape[END], np.uint32(shape[END_HASH])
        else:
            h = token_hash(data, start, at)
            number = word_number(slots, hashes, blob, ends, h, data, start, at)
            if number >= shape[N_WORDS] or (number < 0 and begins(data, start, at, _LABEL)):
                continue
        if number >= 0:
            rows[added] = number
            added += 1
        if not ended and shape[MAX_N]:
            size = at - start + 2
            word[0] = _OPENS
            for k in range(at - start):
                word[k + 1] = data[start + k]
            word[size - 1] = _CLOSES
            added = add_grams(word, size, kept, kept_before, shape, inverse, rows, added)
        tokens[n_tokens] = h
        n_tokens += 1
    if shape[WORD_NGRAMS] > 1:
        added = add_word_grams(tokens, n_tokens, kept, kept_before, shape, rows, added)
    return added
