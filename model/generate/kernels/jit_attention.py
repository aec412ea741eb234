"""What runs on the device for attention over pages. Import it only where Triton is installed.

Offsets into the cache are 64 bits wide: a layer of 1,024 slots may have more than 2^31 entries. All others are 32 bits
wide, which takes half the registers; `paged_attention` refuses what is larger.

What decoding needs, by arithmetic, since no card has run it yet: memory is the limit (an H100: 132 processors, 3.35
TB/s, 0.6 us from asking to having), so 2 MB have to be asked for at any time, 16 KB a processor. A program asks for two
tiles of 32 keys and their values ahead of the one that it computes, 32 KB in loads of 16 bytes that take no registers
(cp.async); with 128 registers a thread and 38 KB of shared memory four programs of 128 threads fit a processor, and so
the card has room for 64 rows of 8 key heads at once. Three query heads of a key head use 3 of the 16 rows that a tensor
core multiplies: tensor cores idle here anyway.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _page_of(
    row_table: tl.tensor, first: tl.tensor, end: tl.tensor, PAGE: tl.constexpr, TILE: tl.constexpr
) -> tl.tensor:
    """Page of a tile of keys from `first` on, 64 bits: one number where tiles lie in pages whole, else [TILE]. Where
    keys are beyond `end`, page 0, which is there but whose keys nobody sees."""
    if PAGE % TILE == 0:
        page = tl.load(row_table + first // PAGE, mask=first < end, other=0)
    else:
        key = first + tl.arange(0, TILE)
        # By sixteens, so that the compiler knows that sixteen keys have one address.
        page = tl.load(row_table + key // PAGE, mask=key // 16 * 16 < end, other=0)
    return page.to(tl.int64)


@triton.jit(do_not_specialize=["table_stride", "splits", "programs"])
def attend(
    q: tl.tensor,  # [B, L, H, D]
    keys: tl.tensor,  # [pages, G, D, K]
    values: tl.tensor,  # [pages, G, K, D]
    table: tl.tensor,  # [B, N], int32
    positions: tl.tensor,  # [B, L], int64
    y: tl.tensor,  # [B, L, H, D]
    partial_y: tl.tensor,  # [B, L, H, splits, D], float32
    partial_stat: tl.tensor,  # [B, L, H, splits, 2], float32: largest score, as a power of two; sum of weights
    scale: tl.tensor,  # of scores, times log2(e)
    table_stride: tl.tensor,
    splits: tl.tensor,
    programs: tl.tensor,
    LENGTH: tl.constexpr,
    GROUPS: tl.constexpr,
    SHARED: tl.constexpr,  # query heads of a key head
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    PAGE: tl.constexpr,
    QUERIES: tl.constexpr,  # of a tile: tokens and heads that share keys
    TILE: tl.constexpr,  # keys of a tile
    SPLIT: tl.constexpr,  # tokens whose weighted values are summed up apart
    EXACT: tl.constexpr,  # products in float32, as the interpreter needs them
) -> None:
    """A tile of queries that share a key head, over every `programs`-th split of their row's keys.

    Queries of a key head lie side by side in a tile, token by token and in each token head by head, so that a key is
    read once for all of them. A program of the grid [G * tiles of queries, B, programs].
    """
    # long: Triton compiles what is called into it anyway, and each part would need most of these names
    group = tl.program_id(0) % GROUPS
    row = tl.program_id(1)
    heads = GROUPS * SHARED
    query = tl.program_id(0) // GROUPS * QUERIES + tl.arange(0, QUERIES)
    token = query // SHARED
    head = group * SHARED + query % SHARED
    position = tl.load(positions + row * LENGTH + token, mask=token < LENGTH, other=-1).to(tl.int32)
    count = tl.max(position, 0) + 1  # keys that some query of the tile sees
    # The first split also answers queries that see nothing.
    end_split = tl.maximum(tl.cdiv(count, SPLIT), 1)
    if tl.program_id(2) >= end_split:
        return
    channel = tl.arange(0, DIM_PADDED)
    real = channel < DIM
    place = (row * LENGTH + token) * heads + head
    q_MD = tl.load(
        q + place[:, None] * DIM + channel[None, :], mask=(token < LENGTH)[:, None] & real[None, :], other=0.0
    )
    if EXACT:
        q_MD = q_MD.to(tl.float32)
    for split in range(tl.program_id(2), end_split, programs):
        start = split * SPLIT
        end = tl.minimum(start + SPLIT, count)
        most = tl.full([QUERIES], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES], tl.float32)
        y_MD = tl.zeros([QUERIES, DIM_PADDED], tl.float32)
        page = _page_of(table + row * table_stride, start, end, PAGE, TILE)
        for first in range(start, end, TILE):
            inner = (first + tl.arange(0, TILE)) % PAGE
            at = (page * GROUPS + group) * (DIM * PAGE)
            # For the next tile, a turn ahead: addresses do not wait for it.
            page = _page_of(table + row * table_stride, first + TILE, end, PAGE, TILE)
            # Keys that are not seen are read with the others, since 16 bytes are 8 keys: whatever they hold, NaN too,
            # their scores are replaced. Values that are not seen are not read: 0 times NaN is NaN.
            k_DT = tl.load(keys + (at + inner)[None, :] + (channel * PAGE)[:, None], mask=real[:, None], other=0.0)
            key = first + tl.arange(0, TILE)
            v_TD = tl.load(
                values + (at + inner * DIM)[:, None] + channel[None, :],
                mask=(key < end)[:, None] & real[None, :],
                other=0.0,
            )
            if EXACT:
                k_DT = k_DT.to(tl.float32)
            scores_MT = tl.dot(q_MD, k_DT, input_precision="ieee") * scale
            scores_MT = tl.where(key[None, :] <= position[:, None], scores_MT, float("-inf"))
            more = tl.maximum(most, tl.max(scores_MT, 1))
            # Of a query that has seen nothing yet, -inf - -inf would be NaN.
            base = tl.where(more == float("-inf"), 0.0, more)
            weights_MT = tl.exp2(scores_MT - base[:, None])
            fading = tl.exp2(most - base)
            total = total * fading + tl.sum(weights_MT, 1)
            weights_MT = weights_MT.to(v_TD.dtype)
            if EXACT:
                weights_MT = weights_MT.to(tl.float32)
                v_TD = v_TD.to(tl.float32)
            y_MD = tl.dot(weights_MT, v_TD, y_MD * fading[:, None], input_precision="ieee")
            most = more
        # A query that sees no further than the first split has its result; others have a part of it. This goes by
        # query, not by tile: a query has the same bits whatever the others of its tile see.
        whole = (token < LENGTH) & (position < SPLIT) & (split == 0)
        part = (token < LENGTH) & (position >= SPLIT) & (position >= start)
        mean_MD = y_MD / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(
            y + place[:, None] * DIM + channel[None, :],
            mean_MD.to(y.dtype.element_ty),
            mask=whole[:, None] & real[None, :],
        )
        part_at = place * splits + split
        tl.store(partial_y + part_at[:, None] * DIM + channel[None, :], y_MD, mask=part[:, None] & real[None, :])
        tl.store(partial_stat + part_at * 2, most, mask=part)
        tl.store(partial_stat + part_at * 2 + 1, total, mask=part)


@triton.jit(do_not_specialize=["splits"])
def combine(
    partial_y: tl.tensor,  # [B, L, H, splits, D], float32
    partial_stat: tl.tensor,  # [B, L, H, splits, 2], float32
    positions: tl.tensor,  # [B, L], int64
    y: tl.tensor,  # [B, L, H, D]
    splits: tl.tensor,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr,
    SPLIT: tl.constexpr,
    PARTS: tl.constexpr,  # splits that are read at a time
) -> None:
    """One query of one head: its splits, sixteen at a time, in order. Absent ones weigh exactly nothing, so that the
    bits do not depend on how many there could be."""
    place = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + place // HEADS).to(tl.int32)
    if position < SPLIT:
        return
    channel = tl.arange(0, DIM_PADDED)
    most = tl.full([], float("-inf"), tl.float32)
    total = tl.zeros([], tl.float32)
    y_D = tl.zeros([DIM_PADDED], tl.float32)
    count = position // SPLIT + 1
    for first in range(0, count, PARTS):
        split = first + tl.arange(0, PARTS)
        at = place * splits + split
        present = split < count
        most_P = tl.load(partial_stat + at * 2, mask=present, other=float("-inf"))
        total_P = tl.load(partial_stat + at * 2 + 1, mask=present, other=0.0)
        y_PD = tl.load(
            partial_y + at[:, None] * DIM + channel[None, :],
            mask=present[:, None] & (channel < DIM)[None, :],
            other=0.0,
        )
        more = tl.maximum(most, tl.max(most_P, 0))
        weight_P = tl.exp2(most_P - more)
        fading = tl.exp2(most - more)
        total = total * fading + tl.sum(weight_P * total_P, 0)
        y_D = y_D * fading + tl.sum(weight_P[:, None] * y_PD, 0)
        most = more
    tl.store(y + place * DIM + channel, (y_D / total).to(y.dtype.element_ty), mask=channel < DIM)
