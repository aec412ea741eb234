"""Sequences in pages that are dealt at random among NaN, and what torch makes of them: for checks of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from gristmill.model.generate import kernels

CLOSE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Of results near 1: a few units of float32; a rounding of the others, two where it is cut off."""
ABSENT = 10**6
"""A page that no cache here has."""


@dataclass(frozen=True)
class Shape:
    """Of a layer and its cache."""

    heads: int = 6
    groups: int = 2
    dim: int = 32
    block: int = 16
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def random(self, *sizes: int, seed: int) -> Tensor:
        """Normal numbers, the same on every device."""
        return torch.randn(sizes, generator=torch.Generator().manual_seed(seed)).to(self.dtype).to(self.device)

    def sequence(self, seed: int, length: int) -> Tensor:
        """Queries, keys and values of a sequence, turned already: [H + 2 G, length, D]. A longer one begins alike."""
        return self.random(length, self.heads + 2 * self.groups, self.dim, seed=seed).transpose(0, 1)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of [..., H + 2 G, L, D]."""
        q, k, v = rows.split([self.heads, self.groups, self.groups], -3)
        return q, k, v


class Pages:
    """Sequences in pages that are dealt at random (`deal`: the seed), all else NaN. The last `count` tokens of each are
    those of a call; a row that is None rests. `spare` columns of the table, and what is not a row's own in it, name
    pages that do not exist."""

    def __init__(
        self, shape: Shape, rows: Sequence[Tensor | None], count: int = 1, deal: int = 0, spare: int = 1
    ) -> None:
        self.shape, self.rows, self.count = shape, rows, count
        lengths = [0 if row is None else row.shape[1] for row in rows]
        owned = [-(-length // shape.block) for length in lengths]
        order = 1 + torch.randperm(sum(owned) + 2, generator=torch.Generator().manual_seed(deal))
        table = torch.full((len(rows), max(owned) + spare), ABSENT, dtype=torch.int32)
        positions = torch.full((len(rows), count), -1)
        for row, (length, pages) in enumerate(zip(lengths, order[: sum(owned)].split(owned), strict=True)):
            table[row, : len(pages)] = pages
            if length:
                positions[row] = torch.arange(length - count, length)
        self.table, self.positions = table.to(shape.device), positions.to(shape.device)
        pages_all = len(order) + 1
        nothing = torch.full((pages_all, shape.groups, shape.dim, shape.block), torch.nan, dtype=shape.dtype)
        self.keys = nothing.to(shape.device)
        self.values = self.keys.transpose(2, 3).contiguous()

    @property
    def new(self) -> Tensor:
        """This call's queries, keys and values [B, H + 2 G, count, D]; of rows that rest, NaN."""
        sizes = self.shape.heads + 2 * self.shape.groups, self.count, self.shape.dim
        resting = torch.full(sizes, torch.nan, dtype=self.shape.dtype, device=self.shape.device)
        return torch.stack([resting if row is None else row[:, -self.count :] for row in self.rows])

    def fill(self, but: int = 0) -> Pages:
        """Writes all tokens but the last ones of each row, with torch; returns itself."""
        for row, sequence in enumerate(self.rows):
            if sequence is None:
                continue
            _, k, v = self.shape.split(sequence)
            for first in range(0, sequence.shape[1] - but, self.shape.block):
                page = int(self.table[row, first // self.shape.block])
                end = min(first + self.shape.block, sequence.shape[1] - but)
                self.keys[page, :, :, : end - first] = k[:, first:end].transpose(1, 2)
                self.values[page, :, : end - first] = v[:, first:end]
        return self

    def attend(self) -> Tensor:
        """The kernel's [B, H, count, D]."""
        q, scale = self.shape.split(self.new)[0], self.shape.dim**-0.5
        return kernels.paged_attention(q, self.keys, self.values, self.table, self.positions, scale)

    @cached_property
    def expected(self) -> Tensor:
        """That of torch in float32; of rows that rest, 0."""
        results = torch.zeros_like(self.shape.split(self.new)[0], dtype=torch.float32)
        for row, sequence in enumerate(self.rows):
            if sequence is not None:
                q, k, v = self.shape.split(sequence.float()[None])
                whole = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
                results[row] = whole[0, :, -self.count :]
        return results


def rows_of(shape: Shape, *lengths: int) -> list[Tensor | None]:
    """Sequences of these lengths; 0: a row that rests."""
    return [shape.sequence(seed, length) if length else None for seed, length in enumerate(lengths)]


def assert_attends(pages: Pages) -> None:
    """Fills the pages; the kernel's result is torch's, to within rounding."""
    y = pages.fill().attend()
    assert y.dtype == pages.shape.dtype
    torch.testing.assert_close(y.float(), pages.expected, atol=CLOSE[pages.shape.dtype], rtol=0)
