"""Causal attention over whole sequences, each segment by itself: a padded row, or several samples packed in one.

What no segment sees is not computed: tokens are gathered into rows of one segment each, rows of like length in a group,
so that a packed row costs what its samples cost apart. A row is filled up at its end, where causal queries do not look:
there are no masks, and nothing of one segment ever meets another. On CUDA a kernel takes segments end to end instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

_FILLED = 1 / 8, 8
"""A group's rows may be filled up by this share of the longest, or by so many tokens: fewer groups, more of them empty.
Short segments cost little, calls for each length would not."""

_HAS_VARLEN = "num_splits" in inspect.signature(varlen_attn).parameters  # older torch has another signature


class Attention:
    """Called by each layer: q [B, H, L, D], k and v [B, G, L, D] with H a multiple of G, result as q.

    `samples_BL`: the number of each token's segment, 0 to n - 1 over the whole batch, never going back; None: each row
    is one. `real_BL`, bool: False is padding, which nobody sees and whose result is 0.
    """

    def __init__(self, samples_BL: Tensor | None = None, real_BL: Tensor | None = None) -> None:
        self._segments = None if samples_BL is None else _Segments(samples_BL, real_BL)

    def __call__(self, layer: int, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        if self._segments is None:
            return _causal(q_BHLD, k_BGLD, v_BGLD)
        q_THD, k_TGD, v_TGD = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHLD, k_BGLD, v_BGLD))
        y_THD = self._segments.attend(q_THD, k_TGD, v_TGD)
        return y_THD.unflatten(0, (q_BHLD.shape[0], -1)).transpose(1, 2)


def _causal(q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
    group = q_BHLD.shape[1] // k_BGLD.shape[1]
    if group > 1:  # not every kernel takes fewer heads of keys than of queries
        k_BGLD, v_BGLD = k_BGLD.repeat_interleave(group, 1), v_BGLD.repeat_interleave(group, 1)
    return F.scaled_dot_product_attention(q_BHLD, k_BGLD, v_BGLD, is_causal=True)


class _Segments:
    """Where the segments of a batch lie, worked out once for all layers. T: tokens of the flattened batch, padding
    included; P: places of all rows of all groups. Waits for the device, since lengths decide shapes."""

    def __init__(self, samples_BL: Tensor, real_BL: Tensor | None) -> None:
        self._device, self._tokens = samples_BL.device, samples_BL.numel()
        samples_T = samples_BL.flatten().cpu()
        real_N = torch.arange(self._tokens) if real_BL is None else real_BL.flatten().cpu().nonzero()[:, 0]
        self._lengths = torch.unique_consecutive(samples_T[real_N], return_counts=True)[1].tolist()
        self._real_N = real_N
        self._rows: _Rows | None = None
        self._ends: tuple[Tensor, Places] | None = None

    def attend(self, q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor) -> Tensor:
        """Attention of each segment, [T, H, D]."""
        if torch.is_autocast_enabled(q_THD.device.type):
            # As it would cast them for torch's own attention; here, so that the kernel is chosen by that type.
            kind = torch.get_autocast_dtype(q_THD.device.type)
            q_THD, k_TGD, v_TGD = q_THD.to(kind), k_TGD.to(kind), v_TGD.to(kind)
        if q_THD.is_cuda and q_THD.dtype in (torch.float16, torch.bfloat16) and _HAS_VARLEN:
            return self._end_to_end(q_THD, k_TGD, v_TGD)
        if self._rows is None:
            self._rows = _Rows(self._real_N, self._lengths, self._tokens, self._device)
        return self._rows.attend(q_THD, k_TGD, v_TGD)

    def _end_to_end(self, q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor) -> Tensor:
        """By the kernel for segments of any lengths. No test of this project runs it: those have no CUDA device."""
        if self._ends is None:
            starts = torch.tensor([0, *accumulate(self._lengths)], dtype=torch.int32, device=self._device)
            self._ends = starts, Places(self._real_N, self._tokens, self._device)
        starts, places = self._ends
        q_NHD, k_NGD, v_NGD = (places.fill(x) for x in (q_THD, k_TGD, v_TGD))
        longest = max(self._lengths, default=0)
        # One split of the keys: with more, a segment's sums would depend on the longest segment beside it.
        more: dict[str, Any] = {"window_size": (-1, 0), "enable_gqa": True, "num_splits": 1}
        y_NHD = varlen_attn(q_NHD, k_NGD, v_NGD, starts, starts, longest, longest, **more)
        assert isinstance(y_NHD, Tensor)
        return places.empty(y_NHD)


class _Rows:
    """Groups of rows, each row a segment and zeros behind it."""

    def __init__(self, real_N: Tensor, lengths: Sequence[int], tokens: int, device: torch.device) -> None:
        firsts = [0, *accumulate(lengths)]
        self._shapes: list[tuple[int, int]] = []  # rows and places of a row, by group
        rows: list[Tensor] = []
        for group in _groups(lengths):
            longest = lengths[group[0]]
            self._shapes.append((len(group), longest))
            for segment in group:
                row_M = torch.full((longest,), -1)
                row_M[: lengths[segment]] = real_N[firsts[segment] : firsts[segment + 1]]
                rows.append(row_M)
        self._places = Places(torch.cat(rows) if rows else real_N, tokens, device)

    def attend(self, q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor) -> Tensor:
        """As `_Segments.attend`."""
        groups: list[Tensor] = []
        for q_SHMD, k_SGMD, v_SGMD in zip(*(self._by_group(x) for x in (q_THD, k_TGD, v_TGD)), strict=True):
            groups.append(_causal(q_SHMD, k_SGMD, v_SGMD).transpose(1, 2).flatten(0, 1))
        return self._places.empty(torch.cat(groups) if groups else q_THD[:0])

    def _by_group(self, x_THD: Tensor) -> Iterator[Tensor]:
        """The rows of each group, [rows, H, places, D]."""
        x_PHD = self._places.fill(x_THD)
        for part, shape in zip(
            x_PHD.split([rows * places for rows, places in self._shapes]), self._shapes, strict=True
        ):
            yield part.unflatten(0, shape).transpose(1, 2)


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of segments in groups of like length, the longest first in each."""
    groups: list[list[int]] = []
    least = 0.0
    for segment in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        if not groups or lengths[segment] < least:
            groups.append([])
            share, tokens = _FILLED
            least = lengths[segment] - max(lengths[segment] * share, tokens)
        groups[-1].append(segment)
    return groups


class Places:
    """Tokens to places and back; a place without a token, and a token without a place, get zeros.

    `token_P`: the token of each place, each token once at most; -1: none.
    """

    def __init__(self, token_P: Tensor, tokens: int, device: torch.device) -> None:
        place_T = torch.full((tokens,), -1)
        filled = token_P >= 0
        place_T[token_P[filled]] = torch.arange(len(token_P))[filled]
        self._to_places = tuple(index.to(device) for index in (token_P.clamp(min=0), (token_P < 0).nonzero()[:, 0]))
        self._to_tokens = tuple(index.to(device) for index in (place_T.clamp(min=0), (place_T < 0).nonzero()[:, 0]))

    def fill(self, x_T: Tensor) -> Tensor:
        """[T, ...] -> [P, ...]."""
        return _Move.apply(x_T, self._to_places, self._to_tokens)

    def empty(self, x_P: Tensor) -> Tensor:
        """[P, ...] -> [T, ...]."""
        return _Move.apply(x_P, self._to_tokens, self._to_places)


class _Move(torch.autograd.Function):
    """Takes rows by index. Since each goes to one place at most, the gradient is the way back, an index_select too;
    torch would add up one row after another, in no fixed order on CUDA."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: tuple[Tensor, Tensor], back: tuple[Tensor, Tensor]) -> Tensor:
        """`there`, `back`: the index of each row, and the rows that are zero."""
        ctx.there, ctx.back = there, back
        return _taken(x, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Of `x`."""
        return _Move.apply(gradients[0], ctx.back, ctx.there), None, None


def _taken(x: Tensor, there: tuple[Tensor, Tensor]) -> Tensor:
    index, blank = there
    y = x.index_select(0, index) if len(x) else x.new_zeros(len(index), *x.shape[1:])
    return y.index_fill_(0, blank, 0) if len(blank) else y
