"""Causal attention over whole sequences, each segment by itself: a padded row, or several samples packed in one.

What no segment sees is not computed: tokens are gathered into rows of one segment each, rows of like length in a group,
so that a packed row costs what its samples cost apart. A row is filled up at its end, where causal queries do not look:
there are no masks, and nothing of one segment ever meets another. On CUDA a kernel takes segments end to end instead.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FILLED = 1 / 8, 8
"""A group's rows may be filled up by this share of the longest, or by so many tokens: fewer groups, more of them empty.
Short segments cost little, calls for each length would not."""

_HALF = (torch.float16, torch.bfloat16)


class EndToEnd:
    """A kernel for segments of any lengths, end to end: torch.nn.attention.varlen, that of Flash Attention. It has not
    run in a test of this project, which have no CUDA device: what stands in for it there has the same two methods."""

    def takes(self, q_NHD: Tensor) -> bool:
        """Whether queries like these, and their keys, are for the kernel; else they are gathered into rows."""
        return q_NHD.is_cuda and q_NHD.dtype in _HALF and _has_splits()

    def __call__(self, q_NHD: Tensor, k_NGD: Tensor, v_NGD: Tensor, starts: Tensor, longest: int) -> Tensor:
        """Causal attention of each segment, [N, H, D]. `starts` int32 [S + 1] on the device: where segments begin, and
        the last one ends; `longest`: tokens of the longest. The last dimension of q, k and v is dense."""
        from torch.nn.attention.varlen import varlen_attn

        # One split of the keys: with more, a segment's sums would depend on the longest segment beside it.
        more: dict[str, Any] = {"window_size": (-1, 0), "enable_gqa": True, "num_splits": 1}
        y_NHD = varlen_attn(q_NHD, k_NGD, v_NGD, starts, starts, longest, longest, **more)
        assert isinstance(y_NHD, Tensor)
        return y_NHD


@functools.cache
def _has_splits() -> bool:
    """Whether torch's function takes a number of splits: that of older ones does not."""
    from torch.nn.attention.varlen import varlen_attn  # torch's compiler comes with it: seconds, which few calls need

    return "num_splits" in inspect.signature(varlen_attn).parameters


KERNEL = EndToEnd()
"""What segments are handed to that it takes."""


class Attention:
    """Called by each layer: q [B, H, L, D], k and v [B, G, L, D] with H a multiple of G, result as q.

    `samples_BL`: each token's segment, as a number that no other segment of the batch has; a segment is a run of tokens
    in the flattened batch. None: each row is one. `real_BL`, bool: False is padding, which nobody sees and whose result
    is 0. Lengths decide shapes: where these lie on the device, it is waited for; on the CPU, not.
    """

    def __init__(self, samples_BL: Tensor | None = None, real_BL: Tensor | None = None) -> None:
        self._segments = None if samples_BL is None else _Segments(samples_BL, real_BL)

    def __call__(self, layer: int, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        if torch.is_autocast_enabled(q_BHLD.device.type):
            # As it would cast them for torch's own attention; here, so that the kernel is chosen by that type.
            kind = torch.get_autocast_dtype(q_BHLD.device.type)
            q_BHLD, k_BGLD, v_BGLD = q_BHLD.to(kind), k_BGLD.to(kind), v_BGLD.to(kind)
        if self._segments is None:
            return _causal(q_BHLD, k_BGLD, v_BGLD)
        q_THD, k_TGD, v_TGD = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHLD, k_BGLD, v_BGLD))
        y_THD = self._segments.attend(q_THD, k_TGD, v_TGD)
        return y_THD.unflatten(0, (q_BHLD.shape[0], -1)).transpose(1, 2)


def _causal(q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
    group = q_BHLD.shape[1] // k_BGLD.shape[1]
    if group > 1 and _shares_keys(q_BHLD):
        return F.scaled_dot_product_attention(q_BHLD, k_BGLD, v_BGLD, is_causal=True, enable_gqa=True)
    if group > 1:  # not every kernel takes fewer heads of keys than of queries
        k_BGLD, v_BGLD = k_BGLD.repeat_interleave(group, 1), v_BGLD.repeat_interleave(group, 1)
    return F.scaled_dot_product_attention(q_BHLD, k_BGLD, v_BGLD, is_causal=True)


def _shares_keys(q_BHLD: Tensor) -> bool:
    """Whether torch's kernel takes fewer heads of keys than of queries: that of Flash Attention does, on CUDA, in half
    precision. In training alone, so that gates, evaluation and generation are what they were measured to be."""
    return q_BHLD.is_cuda and q_BHLD.dtype in _HALF and torch.is_grad_enabled()


class _Segments:
    """Where the segments of a batch lie, worked out once for all layers. T: tokens of the flattened batch, padding
    included; P: places of all rows of all groups."""

    def __init__(self, samples_BL: Tensor, real_BL: Tensor | None) -> None:
        self._tokens = samples_BL.numel()
        samples_T = samples_BL.flatten().cpu()
        real_N = torch.arange(self._tokens) if real_BL is None else real_BL.flatten().cpu().nonzero()[:, 0]
        self._lengths = torch.unique_consecutive(samples_T[real_N], return_counts=True)[1].tolist()
        self._real_N = real_N
        self._rows: _Rows | None = None
        self._ends: tuple[Tensor, Places | None] | None = None

    def attend(self, q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor) -> Tensor:
        """Attention of each segment, [T, H, D]."""
        if KERNEL.takes(q_THD):
            return self._end_to_end(q_THD, k_TGD, v_TGD)
        if self._rows is None:
            self._rows = _Rows(self._real_N, self._lengths, self._tokens, q_THD.device)
        return self._rows.attend(q_THD, k_TGD, v_TGD)

    def _end_to_end(self, q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor) -> Tensor:
        """By the kernel for segments of any lengths."""
        if self._ends is None:
            starts = torch.tensor([0, *accumulate(self._lengths)], dtype=torch.int32, device=q_THD.device)
            # Without padding, as in training, all tokens lie where the kernel wants them: nothing is moved.
            is_full = len(self._real_N) == self._tokens
            self._ends = starts, None if is_full else Places(self._real_N, self._tokens, q_THD.device)
        starts, places = self._ends
        longest = max(self._lengths, default=0)
        if places is None:
            return KERNEL(q_THD, k_TGD, v_TGD, starts, longest)
        q_NHD, k_NGD, v_NGD = (places.fill(x) for x in (q_THD, k_TGD, v_TGD))
        return places.empty(KERNEL(q_NHD, k_NGD, v_NGD, starts, longest))


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
