"""Packing: which stretches of which samples share a window, so that few places stay empty and few documents are cut.

Best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): the longest pieces first, each into the window with the least
room that still holds it. Documents longer than a window are cut into whole windows and a rest; only if more places than
`max_waste` stay empty are others cut, to fill them. Instruction samples never are. Ties go by number, so that lengths
alone decide the result. Where samples have media, a window has budgets beside that of tokens, of crops or of frames; a
sample is as large as the largest of its shares of them, and each goes where all have room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

SLIVER = 16
"""Tokens: a shorter end of a document teaches little, and is cut off only where nothing else is left."""

_BLOCK, _INSIDE = 9, 511  # a block is 512 bits: its number is room >> 9, the place in it room & 511


class Piece(NamedTuple):
    """A stretch of a sample, in tokens."""

    sample: int
    start: int
    length: int


class Budget(NamedTuple):
    """What samples take of a resource beside tokens, int [samples], and how much of it a window has: `most`, None for
    no bound. `name`: of its units, for messages."""

    name: str
    taken: np.ndarray
    most: int | None


@dataclass(frozen=True)
class Packing:
    """`windows`: pieces by sample number. `waste`: the share of empty places. `split`: documents that were cut at all;
    `forced`: those of them that are longer than a window."""

    windows: list[list[Piece]]
    waste: float
    split: int
    forced: int


class _Bins:
    """Open windows by the room they have. A set bit says that a window with so much room is open: the least room that
    holds a piece is the lowest bit at or above its length, in two levels, so that a large window costs no more."""

    def __init__(self, window: int, budgets: Sequence[int]) -> None:
        self.window, self.whole = window, (window, *budgets)
        self.pieces: list[list[Piece]] = []
        self.room: list[int] = []
        self._open: dict[int, list[int]] = {}
        self._blocks = [0] * ((window >> _BLOCK) + 1)  # bit i of block b: room b * 512 + i
        self._top = 0  # bit b: block b is not 0
        self._rooms = np.zeros((len(self.whole), 64), np.int64)  # of each window: for tokens, and for each budget

    def add(self, piece: Piece, taken: Sequence[int] = ()) -> None:
        """Puts a piece into the window with the least room that holds it, or into a new one. `taken`: of the
        budgets."""
        number = self._with_budgets(piece.length, taken) if any(taken) else self._without_budgets(piece.length)
        if number is None:
            number = self._new()
        self.pieces[number].append(piece)
        self.room[number] -= piece.length
        self._rooms[0, number] -= piece.length
        if any(taken):
            self._rooms[1:, number] -= taken
        if self.room[number]:
            self._put(number, self.room[number])

    def _new(self) -> int:
        number = len(self.pieces)
        if number == self._rooms.shape[1]:
            self._rooms = np.concatenate([self._rooms, np.zeros_like(self._rooms)], axis=1)
        self.pieces.append([])
        self.room.append(self.window)
        self._rooms[:, number] = self.whole
        return number

    def _without_budgets(self, length: int) -> int | None:
        """The open window with the least room that holds so much, closed; None: no open window does."""
        room = self._least(length)
        return None if room is None else self._take(room)

    def _with_budgets(self, length: int, taken: Sequence[int]) -> int | None:
        """As `_without_budgets`, of the windows that have room for what is taken of budgets, too; the first of several.
        All are looked at: bits say nothing of budgets, and a shard has some thousands of windows."""
        rooms = self._rooms[:, : len(self.pieces)]
        fits = rooms[0] >= length
        for free, needed in zip(rooms[1:], taken, strict=True):
            fits &= free >= needed
        numbers = np.flatnonzero(fits)
        if not len(numbers):
            return None
        number = int(numbers[rooms[0, numbers].argmin()])
        return self._take(self.room[number], number)

    def _least(self, length: int) -> int | None:
        """The least room of an open window that holds so much; None: no open window does."""
        block, bit = length >> _BLOCK, length & _INSIDE
        if above := self._blocks[block] >> bit:
            return length + _lowest(above)
        if above := self._top >> block + 1:
            block += 1 + _lowest(above)
            return (block << _BLOCK) + _lowest(self._blocks[block])
        return None

    def _put(self, number: int, room: int) -> None:
        """Opens a window with so much room, and sets its bit."""
        self._open.setdefault(room, []).append(number)
        self._blocks[room >> _BLOCK] |= 1 << (room & _INSIDE)
        self._top |= 1 << (room >> _BLOCK)

    def _take(self, room: int, number: int | None = None) -> int:
        """The open window of exactly this room that came last, or this one; clears the bit with the last of them."""
        if number is None:
            number = self._open[room].pop()
        else:
            self._open[room].remove(number)
        if not self._open[room]:
            block = room >> _BLOCK
            self._blocks[block] ^= 1 << (room & _INSIDE)
            if not self._blocks[block]:
                self._top ^= 1 << block
        return number


def _lowest(bits: int) -> int:
    """The number of the lowest bit that is set."""
    return (bits & -bits).bit_length() - 1


def pack(
    lengths: np.ndarray,
    splittable: np.ndarray,
    window: int,
    *,
    max_waste: float = 0.02,
    budgets: Sequence[Budget] = (),
) -> Packing:
    """Packs samples of `lengths` tokens, int [samples], into windows of `window`; `splittable`, bool [samples], may be
    cut. Windows stand in order of their first sample. `budgets`: of what samples take beside tokens.

    Raises ValueError for an empty sample, one that may not be cut and is longer than a window or takes more than a
    budget has, and one that takes of a budget and may be cut.
    """
    _check(lengths, splittable, window, budgets)
    # Without a bound a budget is of no account: all is as if there were none.
    bounds = [(budget.taken, budget.most) for budget in budgets if budget.most is not None]
    limits = [most for _, most in bounds]
    bins, pieces = _Bins(window, limits), list[Piece]()
    for sample, length in enumerate(lengths.tolist()):
        if length <= window:
            pieces.append(Piece(sample, 0, length))
            continue
        whole = length // window * window
        for start in range(0, whole, window):
            bins.add(Piece(sample, start, window))
        if length > whole:
            pieces.append(Piece(sample, whole, length - whole))
    # Decreasing: large pieces while there is room for them, and small ones into what those leave. Whole windows are in.
    of = np.array([taken for taken, _ in bounds], np.int64).reshape(len(bounds), len(lengths)).T.tolist()
    # Shares as whole numbers, of all budgets multiplied: two that are equal stay equal, on every machine.
    scales = [prod(limits), *(window * prod(limits[:at] + limits[at + 1 :]) for at in range(len(limits)))]

    pieces.sort(key=lambda piece: (-_size(piece.length, of[piece.sample], scales), piece.sample))
    for piece in pieces:
        bins.add(piece, of[piece.sample])
    windows = _filled(bins, splittable, max_waste)
    places = len(windows) * window
    cut: dict[int, int] = {}
    for window_pieces in windows:
        for piece in window_pieces:
            cut[piece.sample] = cut.get(piece.sample, 0) + 1
    return Packing(
        windows=windows,
        waste=1 - int(lengths.sum()) / places if places else 0.0,
        split=sum(n > 1 for n in cut.values()),
        forced=int((lengths > window).sum()),
    )


def _size(length: int, taken: Sequence[int], scales: Sequence[int]) -> int:
    """The largest share of a piece, of tokens or of a budget."""
    return max(n * scale for n, scale in zip((length, *taken), scales, strict=True))


def _check(lengths: np.ndarray, splittable: np.ndarray, window: int, budgets: Sequence[Budget]) -> None:
    """Raises ValueError for a sample that cannot be packed."""
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"sample {int(lengths.argmin())} has no tokens")
    if len(bad := np.flatnonzero((lengths > window) & ~splittable)):
        raise ValueError(f"sample {int(bad[0])} has {int(lengths[bad[0]])} tokens, more than a window of {window}")
    for name, taken, most in budgets:
        if most is not None and len(bad := np.flatnonzero((taken > most) | (splittable & (taken > 0)))):
            raise ValueError(
                f"sample {int(bad[0])} has {int(taken[bad[0]])} {name}, allowed are {most}, 0 if it may be cut"
            )


def _filled(bins: _Bins, splittable: np.ndarray, max_waste: float) -> list[list[Piece]]:
    """The windows, after the emptiest that hold only documents were poured into the room of the others, until no more
    than `max_waste` is empty: each window less takes a window's places from the empty ones."""
    window, total = bins.window, sum(bins.window - room for room in bins.room)
    # As few windows as hold all tokens, but no fewer than leave `max_waste` empty: more would cut for no gain.
    least = max(-(-total // window), int(total / (window * (1 - max_waste))))
    surplus = len(bins.pieces) - least
    # The emptiest give up their pieces first: that moves the fewest tokens, and cuts the fewest documents.
    movable = [n for n, pieces in enumerate(bins.pieces) if _all_splittable(pieces, splittable)]
    movable.sort(key=lambda n: (-bins.room[n], n))
    emptied = set(movable[: max(surplus, 0)])
    loose = [piece for n in emptied for piece in bins.pieces[n]]
    loose.sort(key=lambda piece: (-piece.length, piece.sample))
    kept = [n for n in range(len(bins.pieces)) if n not in emptied]
    # Twice: without slivers as long as that goes; then whatever is left, since the room was counted to the last token.
    homeless = _pour(bins, kept, loose, SLIVER)
    homeless = _pour(bins, kept, homeless, 1)
    assert not homeless, "the windows that stay have room for all that goes"
    windows = [sorted(bins.pieces[n]) for n in kept]
    return sorted(windows)


def _all_splittable(pieces: Sequence[Piece], splittable: np.ndarray) -> bool:
    return all(splittable[piece.sample] for piece in pieces)


def _pour(bins: _Bins, kept: Sequence[int], loose: Sequence[Piece], least: int) -> list[Piece]:
    """Lays loose pieces into holes, the largest first, and cuts a piece that is longer than its hole, but cuts nothing
    off that is shorter than `least`, and leaves holes that small. -> The pieces, or ends of them, without a hole."""
    holes = sorted((n for n in kept if bins.room[n] >= least), key=lambda n: (-bins.room[n], n))
    at, left = 0, list[Piece]()
    for piece in loose:
        while piece.length and at < len(holes):
            number = holes[at]
            take = min(piece.length, bins.room[number])
            if 0 < piece.length - take < least <= take - least:
                take = piece.length - least  # leave enough for the end to be worth reading
            bins.pieces[number].append(Piece(piece.sample, piece.start, take))
            bins.room[number] -= take
            piece = Piece(piece.sample, piece.start + take, piece.length - take)
            if bins.room[number] < least:
                at += 1
        if piece.length:
            left.append(piece)
    return left
