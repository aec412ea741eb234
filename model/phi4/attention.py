"""Causal attention over whole sequences: padded rows, or several samples packed in one row that do not see each other.

Without padding or packing there is no mask. Else queries go in blocks against the keys up to their end, so that a
mask never holds more than a block of rows. A padded place sees itself at least: no row is without a key, and none NaN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1024  # queries that share a mask


class Attention:
    """Called by each layer: q [B, H, L, D], k and v [B, G, L, D] with H a multiple of G, result as q.

    `samples_BL`: tokens see only earlier ones of the same number, and `real_BL` ones; both None: plain causal.
    """

    def __init__(self, samples_BL: Tensor | None = None, real_BL: Tensor | None = None) -> None:
        self._samples, self._real = samples_BL, real_BL
        self._masks: dict[int, Tensor] = {}

    def __call__(self, layer: int, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        group = q_BHLD.shape[1] // k_BGLD.shape[1]
        # Not every kernel takes fewer heads of keys than of queries.
        k_BHLD = k_BGLD.repeat_interleave(group, 1) if group > 1 else k_BGLD
        v_BHLD = v_BGLD.repeat_interleave(group, 1) if group > 1 else v_BGLD
        if self._samples is None and self._real is None:
            return F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLD, is_causal=True)
        length, blocks = q_BHLD.shape[2], list[Tensor]()
        for start in range(0, length, _BLOCK):  # N queries of a block, E keys up to its end
            end = min(start + _BLOCK, length)
            q_BHND, k_BHED, v_BHED = q_BHLD[:, :, start:end], k_BHLD[:, :, :end], v_BHLD[:, :, :end]
            blocks.append(F.scaled_dot_product_attention(q_BHND, k_BHED, v_BHED, attn_mask=self._mask(start, end)))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 2)

    def _mask(self, start: int, end: int) -> Tensor:
        """What queries start..end see of keys 0..end: bool [B, 1, end - start, end]. That of the first block
        is kept for the next layer."""
        if (kept := self._masks.get(start)) is not None:
            return kept
        either = self._real if self._samples is None else self._samples
        assert either is not None
        query, key = torch.arange(start, end, device=either.device)[:, None], torch.arange(end, device=either.device)
        seen = (key <= query)[None]
        if self._samples is not None:
            seen = seen & (self._samples[:, start:end, None] == self._samples[:, None, :end])
        if self._real is not None:
            seen = seen & self._real[:, None, :end] | (key == query)
        # Most rows are one block, whose mask all layers share; to keep those of a long row would be length^2 of memory.
        if start == 0:
            self._masks[start] = seen[:, None]
        return seen[:, None]
