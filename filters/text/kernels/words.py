"""Splitting texts into words: runs of non-whitespace, the memo of them, their tokens.

Whatever they need (classes of characters, special cases) comes in as arrays; a run's tokens are told by where they
begin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from gristmill.filters.text.kernels.affixes import DONE, cut, cut_plainly
from gristmill.filters.text.kernels.memo import IDS, RUNS, URLS, hashed, place_of, put, token
from gristmill.filters.text.kernels.utf8 import DATA, FLAGS, OFFSETS, ROLE, SPACE, WANTED, array, character

MERGES, SIGNED = 1, 2  # bits of a run's state: its own tokens may merge, a neighbour may change that
OPENS, CHANGES, SIGN = 1, 2, 4  # bits of ROLE: it begins a special case, is one that changes, tells of a merge


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


_TABLE = types.Tuple((array(types.int32), array(types.uint64), array(types.int64), array(types.uint8)))
_FIXED = types.Tuple(
    (
        array(types.int32, readonly=True),
        array(types.uint64, readonly=True),
        array(types.int64, readonly=True),
        array(types.uint8, readonly=True),
    )
)
_COUNTS, _IDS = array(types.int64), array(types.int32)
_KNOWN = types.Tuple((array(types.int32, 2), array(types.uint64, 2)))
_SPANS = types.Tuple((array(types.int64, 2), array(types.uint8)))
_RULES = types.Tuple(
    (
        _FIXED,
        types.Tuple((array(types.int64, readonly=True), array(types.int64, readonly=True))),
        _FIXED,
        types.UniTuple(types.int64, 2),
    )
)
SIGNATURES = {
    "count_runs": types.void(OFFSETS, DATA, WANTED, FLAGS, _COUNTS),
    "look_up": types.void(OFFSETS, DATA, WANTED, FLAGS, _TABLE, _COUNTS, _IDS),
    "split": types.void(
        types.boolean,
        types.int64,
        array(types.uint8, readonly=True),
        _TABLE,
        FLAGS,
        _RULES,
        array(types.int64, readonly=True),
        _TABLE,
        _KNOWN,
        _SPANS,
        _IDS,
        _COUNTS,
        array(types.int64, 2),
    ),
    "learn": types.void(DATA, OFFSETS, FLAGS, _TABLE, _KNOWN, _IDS, _COUNTS),
    "rehash": types.void(array(types.uint64), types.int64, _IDS),
    "expand": types.void(_IDS, _COUNTS, array(types.int64, 2), _IDS, _COUNTS, _IDS),
}
