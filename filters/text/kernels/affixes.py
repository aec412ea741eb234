"""Where the tokens of a run of non-whitespace begin: by spaCy's affix rules, or plainly.

What decides is spaCy's `Tokenizer._split_affixes` and `_attach_tokens` (spacy/tokenizer.pyx, 3.8), whose pieces are
always consecutive parts of the run. spaCy slices and searches the whole rest for each affix, in time quadratic in their
number; here each costs the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.text.kernels.memo import hashed, place_of
from gristmill.filters.text.kernels.utf8 import (
    ALNUM,
    ALONE,
    BEFORE_DOT,
    ICON,
    JOINS,
    LETTER,
    LOWER,
    PREFIX,
    QUOTE,
    SUFFIX,
    UPPER,
)

# Whether a run's core is a URL: not asked yet, yes, no; or the run is split already.
OPEN, IS_URL, NO_URL, DONE = range(4)


@register_jitable
def is_special(specials: Any, most: Any, data: Any, at: Any, end: Any) -> Any:
    """The number of a special case, or a negative number."""
    if end - at > most or end <= at:
        return np.int64(-1)
    return np.int64(place_of(specials, data, at, end, hashed(data, at, end)))


@register_jitable
def is_digit(point: Any) -> Any:
    """[0-9]"""
    return 48 <= point < 58


@register_jitable
def prefix(points: Any, classes: Any, lo: Any, hi: Any) -> Any:
    """Characters of the prefix of `points[lo:hi]` that spaCy cuts off, or 0."""
    first = points[lo]
    if first == 43:  # +
        return np.int64(0 if lo + 1 < hi and is_digit(points[lo + 1]) else 1)
    if classes[lo] & PREFIX:
        return np.int64(1)
    if first == 46:  # .
        end = lo + 1
        while end < hi and points[end] == 46:
            end += 1
        return np.int64(end - lo if end - lo > 1 else 0)
    if first == 85:  # US$
        return np.int64(3 if lo + 2 < hi and points[lo + 1] == 83 and points[lo + 2] == 36 else 0)
    if first == 65 or first == 67:  # A$, C$
        return np.int64(2 if lo + 1 < hi and points[lo + 1] == 36 else 0)
    return np.int64(0)


@register_jitable
def suffix(points: Any, classes: Any, places: Any, lo: Any, hi: Any, data: Any, tails: Any, most_tail: Any) -> Any:
    """Characters of the suffix of `points[lo:hi]` that spaCy cuts off, or 0: the one that begins first."""
    size = hi - lo
    if size <= 0:
        return np.int64(0)
    last = points[hi - 1]
    best = np.int64(1 if classes[hi - 1] & SUFFIX else 0)
    if size > 1:
        before = points[hi - 2]
        if last == 46:
            if before == 46:
                start = hi - 1
                while start > lo and points[start - 1] == 46:
                    start -= 1
                best = hi - start
            elif classes[hi - 2] & BEFORE_DOT:
                best = np.int64(1)
            elif size > 2:
                degrees = points[hi - 3] == 0xB0 and (before == 70 or before == 67 or before == 75)  # F, C, K
                capitals = classes[hi - 2] & UPPER != 0 and classes[hi - 3] & UPPER != 0
                best = np.int64(1 if degrees or capitals else best)
        else:
            possessive = (last == 115 or last == 83) and (before == 39 or before == 0x2019)  # 's
            best = np.int64(2 if possessive or (last == 0x2026 and before == 0x2026) else best)
    # What may stand behind a digit: a unit, a currency, a plus. No digit is in any of them.
    start = hi
    while start > lo and hi - start <= most_tail and not is_digit(points[start - 1]):
        start -= 1
    if start > lo and best < hi - start <= most_tail and is_digit(points[start - 1]):
        at, end = places[start], places[hi]
        if place_of(tails, data, at, end, hashed(data, at, end)) >= 0:
            best = hi - start
    return best


@register_jitable
def may_be_url(points: Any, classes: Any, lo: Any, hi: Any) -> Any:
    """Whether spaCy's pattern of URLs could match: a dot before two small letters (a domain), or three dots (IPv4)."""
    dots = 0
    for i in range(lo + 1, hi):
        if points[i] == 46:
            dots += 1
            if dots > 2 or (i + 2 < hi and classes[i + 1] & LOWER and classes[i + 2] & LOWER):
                return True
    return False


@register_jitable
def infix(points: Any, classes: Any, lo: Any, hi: Any, i: Any) -> Any:
    """Characters of the infix that begins at `i` of `points[lo:hi]`, or 0."""
    here = points[i]
    if here == 46 and i + 1 < hi and points[i + 1] == 46:
        end = i + 2
        while end < hi and points[end] == 46:
            end += 1
        return np.int64(end - i)
    if here == 0x2026 or classes[i] & ICON:
        return np.int64(1)
    if i == lo or i + 1 >= hi:
        return np.int64(0)
    before, behind = classes[i - 1], classes[i + 1]
    digit = is_digit(points[i - 1])
    operator = here == 43 or here == 45 or here == 42 or here == 94  # + - * ^
    if operator and digit and (is_digit(points[i + 1]) or points[i + 1] == 45):
        return np.int64(1)
    if here == 46:
        return np.int64(1 if before & (LOWER | QUOTE) and behind & (UPPER | QUOTE) else 0)
    if here == 44:
        return np.int64(1 if before & LETTER and behind & LETTER else 0)
    if not (before & LETTER or digit):
        return np.int64(0)
    if here == 45 or here == 0x2014:  # -, --, ---; one or two em dashes
        most = 3 if here == 45 else 2
        for size in range(1, most + 1):
            if i + size >= hi:
                break
            if classes[i + size] & LETTER:
                return np.int64(size)
            if points[i + size] != here:
                break
        return np.int64(0)
    if here == 0x2013 or here == 126 or here == 58 or here == 60 or here == 61 or here == 62 or here == 47:
        return np.int64(1 if behind & LETTER else 0)  # en dash ~ : < = > /
    return np.int64(0)


@register_jitable
def cut(
    data: Any,
    places: Any,
    points: Any,
    classes: Any,
    n: Any,
    verdict: Any,
    specials: Any,
    cases: Any,
    tails: Any,
    most: Any,
    begins: Any,
) -> Any:
    """Marks in `begins` where tokens of a run of `n` characters begin. `cases`: (starts, sizes), characters of each
    token of a special case; `most`: (bytes of the longest one, characters of the longest tail). Returns (core's first
    character, one behind its last) where its verdict is asked for, else (0, 0).

    long: spaCy's two functions in one, so that what they share stays local.
    """
    most_special, most_tail = most
    lo, hi, last = np.int64(0), np.int64(n), np.int64(-1)
    while hi > lo and hi - lo != last:
        if is_special(specials, most_special, data, places[lo], places[hi]) >= 0:
            break
        last = hi - lo
        front = prefix(points, classes, lo, hi)
        if front and is_special(specials, most_special, data, places[lo + front], places[hi]) >= 0:
            lo += front
            begins[lo] = True
            break
        back = suffix(points, classes, places, lo + front, hi, data, tails, most_tail)
        if back and is_special(specials, most_special, data, places[lo], places[hi - back]) >= 0:
            hi -= back
            begins[hi] = True
            break
        lo += front
        hi -= back
        begins[lo] = begins[hi] = True
    begins[n] = False
    if hi <= lo:
        return np.int64(0), np.int64(0)
    case = is_special(specials, most_special, data, places[lo], places[hi])
    if case >= 0:
        starts, sizes = cases
        at = lo
        for part in range(starts[case], starts[case + 1]):
            begins[at] = True
            at += sizes[part]
        return np.int64(0), np.int64(0)
    if verdict == OPEN and may_be_url(points, classes, lo, hi):
        return lo, hi
    if verdict == IS_URL:
        return np.int64(0), np.int64(0)
    i = lo
    while i < hi:
        size = infix(points, classes, lo, hi, i)
        if size == 0:
            i += 1
            continue
        if i != lo:  # spaCy passes over one that the string begins with
            begins[i] = True
            if i + size < n:
                begins[i + size] = True
        i += size
    return np.int64(0), np.int64(0)


@register_jitable
def cut_plainly(points: Any, classes: Any, n: Any, begins: Any) -> None:
    """Marks in `begins` where tokens of a run of `n` characters begin in any language: letters and digits in a row are
    one, with the marks upon them and one of .,:/-_@ between two of them; an apostrophe behind a letter and before one
    ends its word (l'eau). Whatever else is one by itself, and so is a letter of a script without spaces."""
    word, ended = False, False
    for i in range(n):
        kind, point = classes[i], points[i]
        letter = kind & ALNUM != 0 and kind & ALONE == 0
        begins[i] = i == 0 or ended
        ended = False
        if kind & JOINS:
            begins[i] = begins[i] and i == 0
            continue
        before_letter = i + 1 < n and classes[i + 1] & ALNUM != 0 and classes[i + 1] & ALONE == 0
        if word and before_letter and (point == 39 or point == 0x2019):
            ended = True
            continue
        inner = 44 <= point <= 47 or point == 58 or point == 95 or point == 64
        if word and before_letter and inner:
            continue
        begins[i] = begins[i] or not (word and letter)
        word = letter
