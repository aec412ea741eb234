"""Texts of a shard: the tokens of all that a mixture's plan draws for it, and the media that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.accounts.balance import Tally, total
from gristmill.lake.accounts.fan import Draw, draw_tally
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef, read_table
from gristmill.model.processing.packing import Piece
from gristmill.stages.mix.drawn import Drawn
from gristmill.stages.mix.fitting import UNITS, Bounds, mixed, taken_of, within
from gristmill.stages.mix.pairs import REJECTED
from gristmill.stages.mix.plan_rows import PlanRow
from gristmill.stages.mix.tokenize import draw_keys


@dataclass(frozen=True)
class Limits:
    """By what the plan chose: tokens of a window, bounds of media, and the seed."""

    window: int
    bounds: Bounds
    seed: int


@dataclass(frozen=True)
class Slice:
    """The draws of one row of the plan. ids (int32) and loss_mask (bool; None: all) of their tokens, end to end;
    starts: where the tokens of each draw begin, and the last ends. taken: by each of each unit, int64 [draws, units];
    media: as `stages.mix.media.MEDIA` has them, empty where none of the source has any. rejected: of pairs, at which
    token of each draw its second side begins; None: the source has no pairs."""

    source: str
    samples: bool
    epoch: int
    input: str
    names: list[str]
    rows: list[int]
    starts: np.ndarray
    ids: np.ndarray
    loss_mask: np.ndarray | None
    taken: np.ndarray
    media: list[list[dict[str, Any]]]
    rejected: list[int] | None = None

    @classmethod
    def read(cls, store: Store, ref: ObjectRef, row: PlanRow, limits: Limits) -> Slice:
        """The tokens of a row of the plan, chosen as the plan chose them: what fits, below the cut, from first to end.

        Raises ValueError where they are not as many as it says.
        """
        # `first` and `end` count draws, not rows: the plan's choice has to be made once more, step by step, on the
        # tokens themselves. Where the two differ, the numbers below do not fit.
        table = read_table(store, ref)
        if row.samples:
            table = table.filter(pc.less_equal(pc.list_value_length(table["ids"]), limits.window))
        if any(most is not None for most in limits.bounds):
            table = table.filter(pa.array(within(taken_of(table), limits.bounds)))
        if row.cut is not None:
            keys = mixed(draw_keys(table["id"].to_pylist()), limits.seed)
            table = table.filter(pa.array(keys < row.cut))
        table = table.slice(row.first, row.end - row.first).combine_chunks()
        ids = table["ids"].combine_chunks()
        starts = ids.offsets.to_numpy()
        loss_mask = table["learn"].combine_chunks()
        nulls = loss_mask.null_count  # a null is a document, of which every token counts
        if nulls not in ((0,) if row.samples else (0, len(loss_mask))):
            raise ValueError(f"{row.source}: {nulls} of {len(loss_mask)} rows do not say what is learned")
        self = cls(
            source=row.source,
            samples=row.samples,
            epoch=row.epoch,
            input=row.input,
            names=table["id"].to_pylist(),
            rows=table["row"].to_pylist(),
            starts=starts - starts[0],  # a sliced array keeps the offsets of the whole; `flatten` below begins at 0
            ids=ids.flatten().to_numpy(),
            loss_mask=None if nulls else loss_mask.flatten().to_numpy(zero_copy_only=False),
            taken=taken_of(table),
            media=table["media"].to_pylist() if "media" in table.column_names else [],
            rejected=table[REJECTED].to_pylist() if REJECTED in table.column_names else None,
        )
        if (len(self.names), len(self.ids)) != (row.documents, row.units):
            raise ValueError(
                f"{self.source}: {len(self.names):,} records of {len(self.ids):,} tokens were drawn, the plan has"
                f" {row.documents:,} of {row.units:,}; this is a defect, please report it"
            )
        return self


class Texts:
    """All draws of a shard, numbered through. lengths: int64 [draws]; taken: int64 [draws, units]; splittable:
    bool [draws]."""

    def __init__(self, slices: Sequence[Slice]) -> None:
        self.slices = slices
        self.lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.starts) for part in slices)])
        counts = [len(part.names) for part in slices]
        self.taken = np.concatenate([np.zeros((0, len(UNITS)), np.int64), *(part.taken for part in slices)])
        self.splittable = np.repeat(np.array([not part.samples for part in slices], bool), counts)
        self._slice = np.repeat(np.arange(len(slices)), counts)
        self._at = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in counts)])

    def where(self, number: int) -> tuple[Slice, int]:
        """The slice of a draw, and its place in it."""
        return self.slices[self._slice[number]], int(self._at[number])

    def stretches(self, piece: Piece) -> list[Piece]:
        """A piece as it stands in a window: of a pair, each side by itself, the chosen one first."""
        part, at = self.where(piece.sample)
        if part.rejected is None:
            return [piece]
        chosen = part.rejected[at]
        return [Piece(piece.sample, 0, chosen), Piece(piece.sample, chosen, piece.length - chosen)]

    def tokens(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """ids and loss_mask of a stretch."""
        part, at = self.where(piece.sample)
        first = int(part.starts[at]) + piece.start
        end = first + piece.length
        loss_mask = np.ones(piece.length, bool) if part.loss_mask is None else part.loss_mask[first:end].copy()
        loss_mask[0] = False  # nothing stands before it in its segment, from which it could be predicted
        return part.ids[first:end], loss_mask

    def media(self, pieces: Sequence[Piece]) -> list[Drawn]:
        """Those of a window, in the order of their tokens."""
        media = []
        for stretch, piece in enumerate(pieces):
            part, at = self.where(piece.sample)
            own = part.media[at] if part.media else []
            media += [Drawn(stretch, part.input, part.rows[at], **medium) for medium in own]
        return media

    def rows_with_media(self, shard: str) -> set[int]:
        """Of a shard, the rows with media that are drawn."""
        parts = [part for part in self.slices if part.input == shard and part.media]
        return {row for part in parts for row, own in zip(part.rows, part.media, strict=True) if own}

    def media_drawn(self, kind: str) -> int:
        """How many of a kind all draws have."""
        return sum(medium["kind"] == kind for part in self.slices for own in part.media for medium in own)

    def draws(self) -> dict[Draw, int]:
        """Each draw, and how many tokens it has."""
        tokens: dict[Draw, int] = {}
        for part in self.slices:
            for name, length in zip(part.names, np.diff(part.starts), strict=True):
                tokens[part.source, name, part.epoch] = int(length)
        return tokens

    @cached_property
    def tally(self) -> Tally:
        """Of all draws: a draw is a record in an epoch."""
        tallies = []
        for part in self.slices:
            tallies.append(draw_tally(part.input, [(part.epoch, row) for row in part.rows]))
        return total(tallies)
