"""Keys and values of many sequences of different lengths, in blocks; attention whose bits depend on its sequence alone.

A matrix product gives other bits at other sizes. So blocks have one size, every block is multiplied alone, and partial
results add up in order: blocks that only other rows have reached add exact zeros. A sequence's result is then the same
in any row, beside any others, however far those have come.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import TextConfig


class Cache:
    """For `rows` sequences of up to `length` tokens, a multiple of `block`: keys and values
    [layers, 2, blocks, rows, kv_heads, block, head_dim]."""

    def __init__(
        self, config: TextConfig, rows: int, length: int, block: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block, self.rows = block, rows
        self._all = torch.zeros(_shape(config, rows, length, block), dtype=dtype, device=device)
        self._scale = config.head_dim**-0.5

    @staticmethod
    def size(config: TextConfig, rows: int, length: int, block: int, dtype: torch.dtype) -> int:
        """Bytes of such a cache."""
        return torch.Size(_shape(config, rows, length, block)).numel() * dtype.itemsize

    @property
    def bytes(self) -> int:
        return self._all.nbytes

    def at(self, positions_BL: Tensor, reach: int) -> Access:
        """For one call of the decoder on all rows: tokens [rows, L] at these positions; no row is past `reach`."""
        return Access(self, positions_BL, -(-reach // self.block))

    def copy(self, source: Cache, row: int, to: int, length: int) -> None:
        """The first `length` tokens of another cache's row (in whole blocks) become this one's."""
        blocks = -(-length // self.block)
        self._all[:, :, :blocks, to] = source._all[:, :, :blocks, row]


class Access:
    """What `model.decoder` calls for attention: writes new keys and values, then attends to all up to each query."""

    def __init__(self, cache: Cache, positions_BL: Tensor, blocks: int) -> None:
        self._cache, self._blocks = cache, blocks
        block, device = cache.block, positions_BL.device
        rows = torch.arange(cache.rows, device=device)[:, None].expand_as(positions_BL)
        self._where = (positions_BL // block, rows, slice(None), positions_BL % block)
        keys = torch.arange(blocks * block, device=device).view(blocks, 1, 1, 1, 1, block)
        self._later = keys > positions_BL[:, None, None, :, None]  # [blocks, rows, 1, 1, L, block]

    def __call__(self, layer: int, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        keys, values = self._cache._all[layer]
        keys[self._where] = k_BGLD.transpose(1, 2)
        values[self._where] = v_BGLD.transpose(1, 2)
        heads, groups, length = q_BHLD.shape[1], k_BGLD.shape[1], q_BHLD.shape[2]
        q_BGMD = q_BHLD.unflatten(1, (groups, heads // groups)).flatten(2, 3) * self._cache._scale
        scores = torch.matmul(q_BGMD, keys[: self._blocks].transpose(-1, -2)).float()
        scores = scores.unflatten(3, (-1, length)).masked_fill(self._later, -torch.inf).flatten(3, 4)
        weights = (scores - scores.amax((0, -1), keepdim=True)).exp_()
        found = torch.matmul(weights.to(values.dtype), values[: self._blocks]).float()
        y_BGMD = _in_order(found) / _in_order(weights.sum(-1, keepdim=True))
        return y_BGMD.to(q_BHLD.dtype).unflatten(2, (-1, length)).flatten(1, 2)


def _in_order(parts: Tensor) -> Tensor:
    """The sum over the first dimension, one after the other: zeros at the end change no bit."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _shape(config: TextConfig, rows: int, length: int, block: int) -> tuple[int, ...]:
    if length % block:
        raise ValueError(f"length={length} is no multiple of block={block}")
    return config.layers, 2, length // block, rows, config.kv_heads, block, config.head_dim
