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

from model.config import TextConfig

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
        return self.keys.nbytes + self.values.nbytes

    def grow(self, pages: list[int], length: int) -> bool:
        """Gives a sequence pages for so many tokens. False: there are not enough, and it got none."""
        missing = -(-length // self.block) - len(pages)
        if missing > len(self._free):
            return False
        pages.extend(heapq.heappop(self._free) for _ in range(missing))
        return True

    def release(self, pages: list[int]) -> None:
        """Cleans them: what is hidden weighs nothing, but nothing times NaN is NaN."""
        self.keys[:, pages] = 0
        self.values[:, pages] = 0
        for page in pages:
            heapq.heappush(self._free, page)
        pages.clear()

    def copy(self, source: Cache, pages: Sequence[int], to: Sequence[int]) -> None:
        """Pages of another cache, one for one."""
        self.keys[:, to] = source.keys[:, pages]
        self.values[:, to] = source.values[:, pages]

    def at(self, pages: Sequence[Sequence[int]], positions_BL: Tensor) -> Access:
        """For one call of the decoder: row b has these pages, none if it rests, and its tokens these positions."""
        return Access(self, pages, positions_BL)


class Access:
    """What `model.decoder` calls for attention: writes new keys and values, then attends to all up to each query."""

    def __init__(self, cache: Cache, pages: Sequence[Sequence[int]], positions_BL: Tensor) -> None:
        self._cache, block, device = cache, cache.block, positions_BL.device
        depth, self._pages = max(map(len, pages)), max(max(some, default=NOWHERE) for some in pages) + 1
        table = np.array([[*some, *[NOWHERE] * (depth - len(some))] for some in pages]).T
        numbers, places = np.nonzero(table != NOWHERE)
        taken = table[numbers, places]
        rows, start = np.zeros((2, self._pages), np.int64)
        rows[taken], start[taken] = places, numbers * block
        self._table_NB = torch.from_numpy(table).to(device)
        self._rows_P = torch.from_numpy(rows).to(device)
        all_B1 = torch.arange(len(pages), device=device)[:, None]
        self._places = self._table_NB[positions_BL // block, all_B1], positions_BL % block
        keys_P1K = torch.from_numpy(start).to(device)[:, None, None] + torch.arange(block, device=device)
        later = (keys_P1K > positions_BL[self._rows_P][:, :, None])[:, None, None]
        self._hide = torch.zeros(later.shape, device=device).masked_fill_(later, -torch.inf)  # [P, 1, 1, L, block]

    def __call__(self, layer: int, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """M is all queries of a row that share a key head, P pages, K keys of a page."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        pages, offsets = self._places
        keys[pages, :, :, offsets] = k_BGLD.transpose(1, 2)
        values[pages, :, offsets] = v_BGLD.transpose(1, 2)
        length = q_BHLD.shape[2]
        q_BGMD = (q_BHLD * self._cache.scale).unflatten(1, (k_BGLD.shape[1], -1)).flatten(2, 3)
        scores_PGMK = torch.matmul(q_BGMD[self._rows_P], keys[: self._pages]).float()
        scores_PGMK.unflatten(2, (-1, length)).add_(self._hide)
        most_BGM1 = self._of_rows(scores_PGMK.amax(-1, keepdim=True), -torch.inf).amax(0)
        weights = scores_PGMK.sub_(most_BGM1[self._rows_P]).exp_()
        found = torch.matmul(weights.to(values.dtype), values[: self._pages]).float()
        # The largest weight of a row is 1: only of rows that rest is the sum less.
        y_BGMD = _in_order(self._of_rows(found, 0.0))
        y_BGMD = y_BGMD / _in_order(self._of_rows(weights.sum(-1, keepdim=True), 0.0)).clamp_(min=1)
        return y_BGMD.to(q_BHLD.dtype).unflatten(2, (-1, length)).flatten(1, 2)

    def _of_rows(self, x_P: Tensor, none: float) -> Tensor:
        """What pages came to, by number of page and row: [N, B, ...]; `none` where a row has no such page."""
        x_P[NOWHERE] = none
        return x_P[self._table_NB]


def _in_order(parts: Tensor) -> Tensor:
    """The sum over the first dimension, by sixteens, and sixteens of those: zeros at the end change no bit, and many
    pages take few steps."""
    while len(parts) > _GROUP:
        whole = torch.cat([parts, parts.new_zeros(-len(parts) % _GROUP, *parts.shape[1:])])
        parts = _one_by_one(whole.unflatten(0, (-1, _GROUP)).transpose(0, 1))
    return _one_by_one(parts)


def _one_by_one(parts: Tensor) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _shape(config: TextConfig, rows: int, length: int, block: int) -> tuple[int, ...]:
    if length % block:
        raise ValueError(f"length={length} is no multiple of block={block}")
    return config.layers, NOWHERE + 1 + rows * (length // block), config.kv_heads, block, config.head_dim
