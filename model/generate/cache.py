"""Keys and values of many sequences in pages, and attention whose bits depend on its sequence alone.

A matrix product gives other bits at other sizes. So pages have one size, each is multiplied alone, and what a
sequence's pages come to is added up in their order: a result is the same in any row, beside any others, in any pages.
All pages up to the last one in use are computed, without being gathered: the lowest free page is always taken first.
Source: PagedAttention, arXiv 2309.06180, for pages; the rest is ours.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gristmill.model.phi4.config import TextConfig

_GROUP = 16  # pages whose results are added up one by one
NOWHERE = 0
"""The page of rows that rest: written to, never looked at."""


class Cache:
    """Pages for `rows` sequences of up to `length` tokens, a multiple of `block`, the tokens of a page. Keys lie
    [layers, pages, kv_heads, head_dim, block], as the product with queries reads them; values [..., block, head_dim].
    """

    def __init__(
        self, config: TextConfig, rows: int, length: int, block: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block, self.scale = block, config.head_dim**-0.5
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
        self.keys[:, pages] = 0
        self.values[:, pages] = 0
        for page in pages:
            heapq.heappush(self._free, page)
        pages.clear()

    def copy(self, source: Cache, pages: Sequence[int], to: Sequence[int]) -> None:
        """Copies pages of another cache to pages of this one, in their order."""
        self.keys[:, to] = source.keys[:, pages]
        self.values[:, to] = source.values[:, pages]

    def at(self, pages: Sequence[Sequence[int]], positions_BL: Tensor) -> Access:
        """For one call of the decoder: row b has these pages, none if it rests, and its tokens these positions."""
        return Access(self, pages, positions_BL)


class Access:
    """What `model.phi4.decoder` calls for attention: writes new keys and values, then attends to all up to each query.

    In shapes: P pages up to the last one in use, whoever has them; N the most pages of a row; B rows; K keys of a page.
    `pages`: of each row; `positions_BL`: of its queries, within its sequence.
    """

    def __init__(self, cache: Cache, pages: Sequence[Sequence[int]], positions_BL: Tensor) -> None:
        self._cache, block, device = cache, cache.block, positions_BL.device
        self._pages = 1 + max(max(of_row, default=NOWHERE) for of_row in pages)
        # Both ways: the n-th page of row b, and of each page its row and the first position that it holds. Pages that
        # nobody has belong to row 0 here: they are computed with the others, and no row of the table names them.
        depth = max(map(len, pages))
        table_NB = np.array([[*of_row, *[NOWHERE] * (depth - len(of_row))] for of_row in pages]).T
        numbers, rows = np.nonzero(table_NB != NOWHERE)
        owned = table_NB[numbers, rows]
        row_P, start_P = np.zeros((2, self._pages), np.int64)
        row_P[owned], start_P[owned] = rows, numbers * block
        self._table_NB = torch.from_numpy(table_NB).to(device)
        self._row_P = torch.from_numpy(row_P).to(device)
        # Where the new keys and values go: page and offset of each position.
        all_B1 = torch.arange(len(pages), device=device)[:, None]
        self._places_BL = self._table_NB[positions_BL // block, all_B1], positions_BL % block
        # A query sees keys up to itself. What a page holds beyond is left from its last owner, or not yet written.
        keys_P1K = torch.from_numpy(start_P).to(device)[:, None, None] + torch.arange(block, device=device)
        later = (keys_P1K > positions_BL[self._row_P][:, :, None])[:, None, None]
        self._hide = torch.zeros(later.shape, device=device).masked_fill_(later, -torch.inf)  # [P, 1, 1, L, K]

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
        scores_PGMK = torch.matmul(q_BGMD[self._row_P], keys[: self._pages]).float()
        scores_PGMK.unflatten(2, (-1, length)).add_(self._hide)
        most_BGM1 = self._by_row(scores_PGMK.amax(-1, keepdim=True), -torch.inf).amax(0)
        weights_PGMK = scores_PGMK.sub_(most_BGM1[self._row_P]).exp_()
        sums_PGMD = torch.matmul(weights_PGMK.to(values.dtype), values[: self._pages]).float()
        y_BGMD = _sum_in_order(self._by_row(sums_PGMD, 0.0))
        total_BGM1 = _sum_in_order(self._by_row(weights_PGMK.sum(-1, keepdim=True), 0.0))
        # The largest weight of a row is 1: only of rows that rest is the total less.
        y_BGMD = y_BGMD / total_BGM1.clamp_(min=1)
        return y_BGMD.to(q_BHLD.dtype).unflatten(2, (-1, length)).flatten(1, 2)

    def _by_row(self, x_P: Tensor, absent: float) -> Tensor:
        """What pages came to, by number of page and row: [N, B, ...]; `absent` where a row has no such page."""
        x_P[NOWHERE] = absent
        return x_P[self._table_NB]


def _sum_in_order(terms_N: Tensor) -> Tensor:
    """The sum over the first dimension, by sixteens, and sixteens of those: zeros at the end change no bit, and many
    pages take few steps. torch's own sum would group the terms by how many there are."""
    while len(terms_N) > _GROUP:
        whole = torch.cat([terms_N, terms_N.new_zeros(-len(terms_N) % _GROUP, *terms_N.shape[1:])])
        terms_N = _sum_one_by_one(whole.unflatten(0, (-1, _GROUP)).transpose(0, 1))
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
