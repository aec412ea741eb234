"""Keys and values of many sequences in pages, and attention whose bits depend on its sequence alone.

A matrix product gives other bits at other sizes. So pages have one size, each is multiplied alone, and what a
sequence's pages come to is added up in their order: a result is the same in any row, beside any others, in any pages.
All pages up to the last one in use are computed, without being gathered: the lowest free page is always taken first.
Where their scores would be large, as those of a chunk of a long prompt, pages are gathered and computed by sixteens, in
the same order: the same bits, and memory that does not grow with the length.
Source: PagedAttention, arXiv 2309.06180, for pages; the rest is ours.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gristmill.model.generate.graphs import on_device
from gristmill.model.phi4.config import TextConfig

GROUP = 16
"""Pages whose results are added up one by one."""
SCORES = 1 << 26
"""Bytes of scores up to which all pages are computed at once."""
NOWHERE = 0
"""The page of rows that rest: written to, never looked at."""


class Cache:
    """Pages for `rows` sequences of up to `length` tokens, a multiple of `block`, the tokens of a page. Keys lie
    [layers, pages, kv_heads, head_dim, block], as the product with queries reads them; values [..., block, head_dim].
    `depth`: pages of the longest sequence. Nothing here waits for the device.
    """

    def __init__(
        self, config: TextConfig, rows: int, length: int, block: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block, self.depth, self.scale = block, length // block, config.head_dim**-0.5
        layers, pages, heads, block, dim = _shape(config, rows, length, block)
        self.keys = torch.zeros(layers, pages, heads, dim, block, dtype=dtype, device=device)
        self.values = torch.zeros(layers, pages, heads, block, dim, dtype=dtype, device=device)
        self._free = list(range(NOWHERE + 1, pages))

    @staticmethod
    def size(config: TextConfig, rows: int, length: int, block: int, dtype: torch.dtype) -> int:
        """Bytes of such a cache."""
        return 2 * torch.Size(_shape(config, rows, length, block)).numel() * dtype.itemsize

    @property
    def bytes(self) -> int:
        """What keys and values take."""
        return self.keys.nbytes + self.values.nbytes

    def grow(self, pages: list[int], length: int) -> bool:
        """Gives a sequence pages for so many tokens. False: there are not enough, and it got none."""
        missing = -(-length // self.block) - len(pages)
        if missing > len(self._free):
            return False
        pages.extend(heapq.heappop(self._free) for _ in range(missing))
        return True

    def release(self, pages: list[int]) -> None:
        """Takes pages back, and cleans them: what is hidden weighs nothing, but nothing times NaN is NaN."""
        index = on_device(np.array(pages, np.int64), self.keys.device)
        self.keys.index_fill_(1, index, 0)
        self.values.index_fill_(1, index, 0)
        for page in pages:
            heapq.heappush(self._free, page)
        pages.clear()

    def copy(self, source: Cache, pages: Sequence[int], to: Sequence[int]) -> None:
        """Copies pages of another cache to pages of this one, in their order; a few at a time, as they are gathered."""
        for first in range(0, len(pages), GROUP):
            numbers = np.array([pages[first : first + GROUP], to[first : first + GROUP]])
            other, own = on_device(numbers, self.keys.device)
            self.keys[:, own] = source.keys[:, other]
            self.values[:, own] = source.values[:, other]

    def at(self, pages: Sequence[Sequence[int]], positions_BL: Tensor) -> Access:
        """For one call of the decoder: row b has these pages, none if it rests, and its tokens these positions."""
        return Access(self, pages, positions_BL)


@dataclass(frozen=True, eq=False)
class _Part:
    """Pages that are computed together, P of them, of which the first is NOWHERE. `numbers`: in the cache; `rows`,
    `starts` [P]: of each its row and the first position that it holds; `table` [N, B]: which of them is the n-th of row
    b, 0 where a row has no such page."""

    numbers: slice | Tensor
    rows: Tensor
    starts: Tensor
    table: Tensor

    def by_row(self, x_P: Tensor, absent: float) -> Tensor:
        """What pages came to, by number of page and row: [N, B, ...]; `absent` where a row has no such page."""
        x_P[NOWHERE] = absent
        return x_P[self.table]


class Access:
    """What `model.phi4.decoder` calls for attention: writes new keys and values, then attends to all up to each query.

    In shapes: P pages that are computed together; N the most pages of a row; B rows; K keys of a page.
    `pages`: of each row; `positions_BL`: of its queries, within its sequence.
    """

    def __init__(self, cache: Cache, pages: Sequence[Sequence[int]], positions_BL: Tensor) -> None:
        self._cache, self._positions_BL = cache, positions_BL
        depth = max(map(len, pages))
        self._table_NB = np.array([[*of_row, *[NOWHERE] * (depth - len(of_row))] for of_row in pages]).T
        # Where the new keys and values go: page and offset of each position.
        all_B1 = torch.arange(len(pages), device=positions_BL.device)[:, None]
        table_NB = torch.from_numpy(self._table_NB).to(positions_BL.device)
        self._places_BL = table_NB[positions_BL // cache.block, all_B1], positions_BL % cache.block

    @cached_property
    def _whole(self) -> _Part:
        """All pages up to the last one in use, whoever has them, as they lie. Pages that nobody has belong to row 0
        here: they are computed with the others, and no row of the table names them."""
        numbers, rows = np.nonzero(self._table_NB != NOWHERE)
        owned = self._table_NB[numbers, rows]
        row_P, start_P = np.zeros((2, 1 + int(self._table_NB.max())), np.int64)
        row_P[owned], start_P[owned] = rows, numbers * self._cache.block
        return self._part(slice(0, len(row_P)), row_P, start_P, self._table_NB)

    @cached_property
    def _groups(self) -> list[_Part]:
        """The pages that rows have, by sixteens of each row, in order."""
        groups = []
        for first in range(0, len(self._table_NB), GROUP):
            table_NB = self._table_NB[first : first + GROUP]
            numbers, rows = np.nonzero(table_NB != NOWHERE)
            owned = np.array([NOWHERE, *table_NB[numbers, rows]])
            own_NB = np.zeros_like(table_NB)
            own_NB[numbers, rows] = np.arange(1, len(owned))
            starts = np.array([0, *(first + numbers) * self._cache.block])
            index = torch.from_numpy(owned).to(self._positions_BL.device)
            groups.append(self._part(index, np.array([0, *rows]), starts, own_NB))
        return groups

    def _part(self, numbers: slice | Tensor, row_P: np.ndarray, start_P: np.ndarray, table_NB: np.ndarray) -> _Part:
        device = self._positions_BL.device
        return _Part(numbers, *(torch.from_numpy(array).to(device) for array in (row_P, start_P, table_NB)))

    @cached_property
    def _whole_hidden(self) -> Tensor:
        return self._hidden(self._whole)

    def _hidden(self, part: _Part) -> Tensor:
        """-inf where a query does not see a key, else 0: [P, 1, 1, L, K]. A query sees keys up to itself. What a page
        holds beyond is left from its last owner, or not yet written."""
        keys_P1K = part.starts[:, None, None] + torch.arange(self._cache.block, device=part.starts.device)
        later = (keys_P1K > self._positions_BL[part.rows][:, :, None])[:, None, None]
        return torch.zeros(later.shape, device=later.device).masked_fill_(later, -torch.inf)

    def __call__(self, layer: int, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """As `model.phi4.decoder.Attend`. M is all queries of a row that share a key head.

        A softmax over pages: scores of each page alone, the largest of a row over its pages (exact in any order), then
        weights and weighted values of each page, added up in the order of the row's pages.
        """
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        pages, offsets = self._places_BL
        # Two index tensors with slices between them: torch puts their [B, L] first, so what is written is [B, L, G, D].
        keys[pages, :, :, offsets] = k_BGLD.transpose(1, 2)
        values[pages, :, offsets] = v_BGLD.transpose(1, 2)
        length = q_BHLD.shape[2]
        # Queries of one key head side by side: a page is multiplied once for all of them. The softmax and
        # the sum over pages are float32: in bfloat16 what is less than 1/512 of the sum so far would be lost.
        q_BGMD = (q_BHLD * self._cache.scale).unflatten(1, (k_BGLD.shape[1], -1)).flatten(2, 3)
        scores = 4 * (1 + int(self._table_NB.max())) * self._cache.block * q_BHLD[0, :, :, 0].numel()
        attend = self._at_once if scores <= SCORES else self._in_groups
        y_BGMD, total_BGM1 = attend(q_BGMD, keys, values)
        # The largest weight of a row is 1: only of rows that rest is the total less.
        y_BGMD = y_BGMD / total_BGM1.clamp_(min=1)
        return y_BGMD.to(q_BHLD.dtype).unflatten(2, (-1, length)).flatten(1, 2)

    def _at_once(self, q_BGMD: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of weighted values, and of weights, of all pages."""
        part = self._whole
        scores_PGMK = self._scores(part, q_BGMD, keys, self._whole_hidden)
        most_BGM1 = part.by_row(scores_PGMK.amax(-1, keepdim=True), -torch.inf).amax(0)
        terms = self._weighted(part, scores_PGMK, most_BGM1, values)
        return _sum_in_order(terms[0]), _sum_in_order(terms[1])

    def _in_groups(self, q_BGMD: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same, with the scores of sixteen pages of each row at a time, computed twice: the weights of the first
        page need the largest score of the last one."""
        most_BGM1: Tensor | None = None
        for part in self._groups:
            largest_BGM1 = part.by_row(self._scores(part, q_BGMD, keys).amax(-1, keepdim=True), -torch.inf).amax(0)
            # one tensor for all groups: of many, each would lie where large scores were, which then need a new place
            most_BGM1 = largest_BGM1 if most_BGM1 is None else torch.maximum(most_BGM1, largest_BGM1, out=most_BGM1)
        assert most_BGM1 is not None
        y, total = _Sum(), _Sum()
        for part in self._groups:
            terms = self._weighted(part, self._scores(part, q_BGMD, keys), most_BGM1, values)
            y.add(_sum_one_by_one(terms[0]))
            total.add(_sum_one_by_one(terms[1]))
        return y.end(), total.end()

    def _scores(self, part: _Part, q_BGMD: Tensor, keys: Tensor, hidden: Tensor | None = None) -> Tensor:
        """[P, G, M, K], float32."""
        scores_PGMK = torch.matmul(q_BGMD[part.rows], keys[part.numbers]).float()
        hidden = self._hidden(part) if hidden is None else hidden
        scores_PGMK.unflatten(2, (-1, hidden.shape[3])).add_(hidden)
        return scores_PGMK

    def _weighted(self, part: _Part, scores_PGMK: Tensor, most_BGM1: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Of each page its weighted values [N, B, G, M, D], and the sum of its weights [N, B, G, M, 1]."""
        weights_PGMK = scores_PGMK.sub_(most_BGM1[part.rows]).exp_()
        sums_PGMD = torch.matmul(weights_PGMK.to(values.dtype), values[part.numbers]).float()
        return part.by_row(sums_PGMD, 0.0), part.by_row(weights_PGMK.sum(-1, keepdim=True), 0.0)


class _Sum:
    """What `_sum_in_order` makes of all terms, of terms that come one by one, each the sum of sixteen."""

    def __init__(self) -> None:
        self._levels: list[tuple[Tensor | None, int]] = []  # the sum so far of each level, and of how many

    def add(self, term: Tensor, level: int = 0) -> None:
        """The next term."""
        if level == len(self._levels):
            self._levels.append((None, 0))
        sum_, count = self._levels[level]
        sum_, count = term if sum_ is None else sum_ + term, count + 1
        self._levels[level] = (sum_, count)
        if count == GROUP:
            self._levels[level] = (None, 0)
            self.add(sum_, level + 1)

    def end(self) -> Tensor:
        """The sum of all terms, at least one."""
        total: Tensor | None = None
        for sum_, _ in self._levels:
            total = sum_ if total is None else total if sum_ is None else sum_ + total
        assert total is not None
        return total


def _sum_in_order(terms_N: Tensor) -> Tensor:
    """The sum over the first dimension, by sixteens, and sixteens of those: zeros at the end change no bit, and many
    pages take few steps. torch's own sum would group the terms by how many there are."""
    while len(terms_N) > GROUP:
        whole = torch.cat([terms_N, terms_N.new_zeros(-len(terms_N) % GROUP, *terms_N.shape[1:])])
        terms_N = _sum_one_by_one(whole.unflatten(0, (-1, GROUP)).transpose(0, 1))
    return _sum_one_by_one(terms_N)


def _sum_one_by_one(terms_N: Tensor) -> Tensor:
    total = terms_N[0]
    for term in terms_N[1:]:
        total = total + term
    return total


def _shape(config: TextConfig, rows: int, length: int, block: int) -> tuple[int, ...]:
    """Layers, pages (with the one for rows that rest), key heads, tokens of a page, channels of a head."""
    if length % block:
        raise ValueError(f"length={length} is no multiple of block={block}")
    return (
        config.num_hidden_layers,
        NOWHERE + 1 + rows * (length // block),
        config.num_key_value_heads,
        block,
        config.head_dim,
    )
