"""Packing: which stretches of which samples share a window, so that few places stay empty and few documents are cut.

Best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): the longest pieces first, each into the window with the least
room that still holds it. Documents longer than a window are cut into whole windows and a rest; only if more places than
`max_waste` stay empty are others cut, to fill them. Instruction samples never are. Ties go by number, so that lengths
alone decide the result. Where samples have images, a window has a budget of crops beside that of tokens; a sample is as
large as the larger of its shares of the two, and each goes where both have room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

    def __init__(self, window: int, max_crops: int) -> None:
        self.window, self.max_crops = window, max_crops
        self.pieces: list[list[Piece]] = []
        self.room: list[int] = []
        self._open: dict[int, list[int]] = {}
        self._blocks = [0] * ((window >> _BLOCK) + 1)  # bit i of block b: room b * 512 + i
        self._top = 0  # bit b: block b is not 0
        self._rooms = np.zeros((2, 64), np.int64)  # of each window: room for tokens, and for crops

    def add(self, piece: Piece, crops: int = 0) -> None:
        """Puts a piece into the window with the least room that holds it, or into a new one."""
        number = self._with_crops(piece.length, crops) if crops else self._without_crops(piece.length)
        if number is None:
            number = self._new()
        self.pieces[number].append(piece)
        self.room[number] -= piece.length
        self._rooms[:, number] -= (piece.length, crops)
        if self.room[number]:
            self._put(number, self.room[number])

    def _new(self) -> int:
        number = len(self.pieces)
        if number == self._rooms.shape[1]:
            self._rooms = np.concatenate([self._rooms, np.zeros_like(self._rooms)], axis=1)
        self.pieces.append([])
        self.room.append(self.window)
        self._rooms[:, number] = (self.window, self.max_crops)
        return number

    def _without_crops(self, length: int) -> int | None:
        """The open window with the least room that holds so much, closed; None: no open window does."""
        room = self._least(length)
        return None if room is None else self._take(room)

    def _with_crops(self, length: int, crops: int) -> int | None:
        """As `_without_crops`, of the windows that have room for so many crops, too; the first of several.
        All are looked at: bits say nothing of crops, and a shard has some thousands of windows."""
        tokens, free = self._rooms[:, : len(self.pieces)]
        numbers = np.flatnonzero((tokens >= length) & (free >= crops))
        if not len(numbers):
            return None
        number = int(numbers[tokens[numbers].argmin()])
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
    crops: np.ndarray | None = None,
    max_crops: int | None = None,
) -> Packing:
    """Packs samples of `lengths` tokens, int [samples], into windows of `window`; `splittable`, bool [samples], may be
    cut. Windows stand in order of their first sample. `crops`, int [samples]: of their images, at most `max_crops` of
    them a window (None: no bound).

    Raises ValueError for an empty sample, one that may not be cut and is longer than a window or has more crops, and
    one with crops that may be cut.
    """
    # Without a bound crops are of no account: all is as if there were none.
    crops = np.zeros(len(lengths), np.int64) if crops is None or max_crops is None else crops
    most = max_crops or 1
    _check(lengths, crops, splittable, window, most)
    bins, pieces = _Bins(window, most), list[Piece]()
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
    of = crops.tolist()
    pieces.sort(key=lambda piece: (-max(piece.length * most, of[piece.sample] * window), piece.sample))
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


def _check(lengths: np.ndarray, crops: np.ndarray, splittable: np.ndarray, window: int, max_crops: int) -> None:
    """Raises ValueError for a sample that cannot be packed."""
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"sample {int(lengths.argmin())} has no tokens")
    if len(bad := np.flatnonzero((lengths > window) & ~splittable)):
        raise ValueError(f"sample {int(bad[0])} has {int(lengths[bad[0]])} tokens, more than a window of {window}")
    if len(bad := np.flatnonzero((crops > max_crops) | (splittable & (crops > 0)))):
        raise ValueError(
            f"sample {int(bad[0])} has {int(crops[bad[0]])} crops, allowed are {max_crops}, 0 if it may be cut"
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
