"""The compiled part of splitting text into words: runs of non-whitespace, the memo of them, spaCy's affix rules.

Plain functions until `filters.signatures.compiled` compiles them, from a copy of this file named by its content; so it
imports nothing of ours, and whatever it needs (classes of characters, special cases) comes in as arrays. What decides
is spaCy's `Tokenizer._split_affixes` and `_attach_tokens` (spacy/tokenizer.pyx, 3.8), whose pieces are always
consecutive parts of the run: so that a run's tokens are told by where they begin. spaCy slices and searches the whole
rest for each affix, in time quadratic in their number; here each costs the same.

long: it imports nothing of ours, so that all that is compiled for words stands here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

GOLDEN, SPLIT_A, SPLIT_B = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
MERSENNE = np.uint64((1 << 61) - 1)
BASE = np.uint64(0x0B1D3F5A7C9E2468)  # of the polynomial over a token's bytes, below MERSENNE
LOW30, LOW31 = np.uint64((1 << 30) - 1), np.uint64((1 << 31) - 1)

# Bits of a character's class; the same in filters/text/characters.py.
SPACE, BREAK, ALNUM, ALPHA, PUNCT, MARK, ENDS, TERMINAL = (1 << bit for bit in range(8))
LETTER, LOWER, UPPER, PREFIX, SUFFIX, QUOTE, BEFORE_DOT, ICON = (1 << bit for bit in range(8, 16))
ALONE, JOINS = 1 << 17, 1 << 18

# Places in `counts`.
RUNS, TOKENS, IDS, URLS = range(4)
# Whether a run's core is a URL: not asked yet, yes, no; or the run is split already.
OPEN, IS_URL, NO_URL, DONE = range(4)
MERGES, SIGNED = 1, 2  # bits of a run's state: its own tokens may merge, a neighbour may change that
# Columns of what is known of a token.
WORD, CHARS, HAS_ALPHA, SENTENCE, ROLE = range(5)
OPENS, CHANGES, SIGN = 1, 2, 4  # bits of ROLE: it begins a special case, is one that changes, tells of a merge


@register_jitable
def mixed(x: Any) -> Any:
    """A bijection of uint64 that lets every bit reach every other: SplitMix64's, Steele et al. 2014."""
    x = (x ^ (x >> np.uint64(30))) * SPLIT_A
    x = (x ^ (x >> np.uint64(27))) * SPLIT_B
    return x ^ (x >> np.uint64(31))


@register_jitable
def product(a: Any, b: Any) -> Any:
    """a * b modulo 2^61 - 1, for factors below it, in 64 bits."""
    a_high, a_low, b_high, b_low = a >> np.uint64(31), a & LOW31, b >> np.uint64(31), b & LOW31
    middle = a_low * b_high + a_high * b_low
    total = a_high * b_high * np.uint64(2) + (middle >> np.uint64(30)) + ((middle & LOW30) << np.uint64(31))
    total += a_low * b_low
    total = (total >> np.uint64(61)) + (total & MERSENNE)
    return total - MERSENNE if total >= MERSENNE else total


@register_jitable
def character(data: Any, at: Any, end: Any) -> Any:
    """(code point, bytes) of the character at `at` of UTF-8 text."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, np.int64(1)
    if lead < 0xE0 and at + 1 < end:
        return (lead & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, np.int64(2)
    if lead < 0xF0 and at + 2 < end:
        return (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, np.int64(3)
    if at + 3 < end:
        high = (lead & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
        point = high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F
        return min(point, np.int64(0x10FFFF)), np.int64(4)  # beyond it no table has a place, and no UTF-8 a character
    return np.int64(0xFFFD), np.int64(1)  # cut short: no UTF-8 is, but Arrow takes bytes from Parquet unseen


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


def count_runs(offsets: Any, data: Any, wanted: Any, flags: Any, ends: Any) -> None:
    """To `ends`, int64 [rows + 1]: how many runs of non-whitespace stand before each text; none in one not wanted."""
    total = np.int64(0)
    ends[0] = 0
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        inside = False
        while wanted[row] and at < end:
            point, size = character(data, at, end)
            space = np.int64(flags[point]) & SPACE != 0
            total += not space and not inside
            inside = not space
            at += size
        ends[row + 1] = total


def look_up(offsets: Any, data: Any, wanted: Any, flags: Any, runs: Any, counts: Any, ids: Any) -> None:
    """The number of each run of the texts, in order, to `ids`; new ones are entered."""
    n = np.int64(0)
    for row in range(len(offsets) - 1):
        if not wanted[row]:
            continue
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            point, size = character(data, at, end)
            if np.int64(flags[point]) & SPACE:
                at += size
                continue
            start = at
            while at < end:
                point, size = character(data, at, end)
                if np.int64(flags[point]) & SPACE:
                    break
                at += size
            h = hashed(data, start, at)
            entry = place_of(runs, data, start, at, h)
            if entry < 0:
                number = counts[RUNS]
                put(runs, number, -1 - entry, data, start, at, h)
                counts[RUNS] += 1
                entry = number
            ids[n] = entry
            n += 1


def split(
    plain: Any,
    first: Any,
    verdicts: Any,
    runs: Any,
    flags: Any,
    rules: Any,
    pairs: Any,
    tokens: Any,
    known: Any,
    spans: Any,
    token_ids: Any,
    counts: Any,
    cores: Any,
) -> None:
    """Splits runs, from number `first` to the last, into tokens: as spaCy does English, or `plain`, as any language.

    verdicts: uint8 [runs], on each run's core. rules: (specials, cases, tails, most), see `cut`. pairs: int64, sorted,
    first * 2^32 + second of tokens that begin a special case. tokens: the table, known: (facts, polynomials). spans:
    (int64 [runs, 2], where a run's tokens begin in `token_ids` and how many, uint8 [runs] MERGES and SIGNED). cores:
    int64 [runs, 3], run and bytes of those asked for.

    long: the loop over runs, whose buffers it owns.
    """
    specials, cases, tails, most = rules
    facts, polynomials = known
    bounds, states = spans
    _, _, starts, stored = runs
    longest = np.int64(0)
    for run in range(first, counts[RUNS]):
        longest = max(longest, starts[run + 1] - starts[run])
    points = np.zeros(longest + 1, np.int64)
    classes = np.zeros(longest + 1, np.int64)
    places = np.zeros(longest + 1, np.int64)
    begins = np.zeros(longest + 1, np.bool_)
    counts[URLS] = 0
    for run in range(first, counts[RUNS]):
        verdict = verdicts[run]
        if verdict == DONE:
            continue
        at, end, n = starts[run], starts[run + 1], np.int64(0)
        while at < end:
            point, size = character(stored, at, end)
            points[n], classes[n], places[n] = point, flags[point], at
            begins[n] = n == 0
            n += 1
            at += size
        places[n] = end
        begins[n] = False
        lo, hi = np.int64(0), np.int64(0)
        if plain:
            cut_plainly(points, classes, n, begins)
        else:
            lo, hi = cut(stored, places, points, classes, n, verdict, specials, cases, tails, most, begins)
        if hi > lo:
            asked = counts[URLS]
            cores[asked, 0], cores[asked, 1], cores[asked, 2] = run, places[lo], places[hi]
            counts[URLS] += 1
            continue
        bounds[run, 0] = counts[IDS]
        state, before, start = 0, np.int64(-1), np.int64(0)
        for i in range(1, n + 1):
            if i < n and not begins[i]:
                continue
            number = token(tokens, facts, polynomials, flags, counts, stored, places[start], places[i])
            token_ids[counts[IDS]] = number
            counts[IDS] += 1
            role = facts[number, ROLE]
            if role & CHANGES:
                state |= MERGES
            if role & SIGN:
                state |= SIGNED
            if before >= 0 and facts[before, ROLE] & OPENS:
                pair = before << 32 | number
                place = np.searchsorted(pairs, pair)
                if place < len(pairs) and pairs[place] == pair:
                    state |= MERGES
            before, start = number, np.int64(i)
        bounds[run, 1] = counts[IDS] - bounds[run, 0]
        states[run] = state


def learn(data: Any, ends: Any, flags: Any, tokens: Any, known: Any, token_ids: Any, counts: Any) -> None:
    """Enters tokens that stand end to end in `data`, whose `ends` are given; appends their numbers to `token_ids`."""
    facts, polynomials = known
    start = np.int64(0)
    for i in range(len(ends)):
        number = token(tokens, facts, polynomials, flags, counts, data, start, ends[i])
        token_ids[counts[IDS]] = number
        counts[IDS] += 1
        start = ends[i]


def rehash(hashes: Any, count: Any, slots: Any) -> None:
    """Enters the first `count` hashes in empty slots."""
    mask = np.int64(len(slots) - 1)
    for entry in range(count):
        slot = np.int64(hashes[entry] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = entry


def expand(ids: Any, ends: Any, bounds: Any, token_ids: Any, token_ends: Any, flat: Any) -> None:
    """The tokens of texts, end to end, to `flat`, from the numbers of their runs; to `token_ends`, int64 [rows + 1],
    how many stand before each text. Fills only `token_ends` if `flat` is empty."""
    n = np.int64(0)
    token_ends[0] = 0
    for row in range(len(ends) - 1):
        for i in range(ends[row], ends[row + 1]):
            run = np.int64(ids[i])
            if len(flat):
                for k in range(bounds[run, 0], bounds[run, 0] + bounds[run, 1]):
                    flat[n] = token_ids[k]
                    n += 1
            else:
                n += bounds[run, 1]
        token_ends[row + 1] = n


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


def _array(dtype: types.Type, dimensions: int, readonly: bool = False) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


_TABLE = types.Tuple((_array(types.int32, 1), _array(types.uint64, 1), _array(types.int64, 1), _array(types.uint8, 1)))
_FIXED = types.Tuple(
    (
        _array(types.int32, 1, True),
        _array(types.uint64, 1, True),
        _array(types.int64, 1, True),
        _array(types.uint8, 1, True),
    )
)
_OFFSETS, _DATA = _array(types.int64, 1, True), _array(types.uint8, 1, True)
_WANTED, _FLAGS = _array(types.boolean, 1, True), _array(types.uint32, 1, True)
_COUNTS, _IDS = _array(types.int64, 1), _array(types.int32, 1)
_KNOWN = types.Tuple((_array(types.int32, 2), _array(types.uint64, 2)))
_SPANS = types.Tuple((_array(types.int64, 2), _array(types.uint8, 1)))
_RULES = types.Tuple(
    (
        _FIXED,
        types.Tuple((_array(types.int64, 1, True), _array(types.int64, 1, True))),
        _FIXED,
        types.UniTuple(types.int64, 2),
    )
)
SIGNATURES = {
    "count_runs": types.void(_OFFSETS, _DATA, _WANTED, _FLAGS, _COUNTS),
    "look_up": types.void(_OFFSETS, _DATA, _WANTED, _FLAGS, _TABLE, _COUNTS, _IDS),
    "split": types.void(
        types.boolean,
        types.int64,
        _array(types.uint8, 1, True),
        _TABLE,
        _FLAGS,
        _RULES,
        _array(types.int64, 1, True),
        _TABLE,
        _KNOWN,
        _SPANS,
        _IDS,
        _COUNTS,
        _array(types.int64, 2),
    ),
    "learn": types.void(_DATA, _OFFSETS, _FLAGS, _TABLE, _KNOWN, _IDS, _COUNTS),
    "rehash": types.void(_array(types.uint64, 1), types.int64, _IDS),
    "expand": types.void(_IDS, _COUNTS, _array(types.int64, 2), _IDS, _COUNTS, _IDS),
    "sums": types.void(_IDS, _COUNTS, _array(types.int32, 2), _array(types.int64, 2)),
    "sentences": types.void(
        _OFFSETS,
        _DATA,
        _FLAGS,
        _IDS,
        _COUNTS,
        _array(types.int64, 2),
        _IDS,
        _array(types.int32, 2),
        _COUNTS,
    ),
}
