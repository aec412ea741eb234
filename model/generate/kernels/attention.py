"""Attention over pages of keys and values, and the writing of new ones.

The table names the pages of each row in order: token t of row b lies in page `table[b, t // K]`, at t % K. A query at
position p sees keys 0 to p of its row. A query at position -1 rests: its result is 0, nothing is read or written of it.
Positions beyond the table and pages beyond the cache are the caller's to avoid: nobody checks them on the device.

A row's bits depend on its own queries, positions, keys and values: not on B, on N, on which pages it has, or on other
rows. Tiles and splits have fixed numbers of tokens, and sums go in their order; which program computes a split is free,
what it computes is not. They do depend on L, on K where it is no multiple of a tile, and on the dtype, since those
choose what is compiled.

Run so far: by Triton's interpreter against torch, which rounds to bfloat16 by cutting off; compiled for sm_90 with the
registers and shared memory that the comments speak of. Never yet on a card.
Source: FlashAttention, arXiv 2205.14135; Flash-Decoding, for splits; PagedAttention, arXiv 2309.06180.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gristmill.model.generate.kernels.launch import check_dtype, interpreted, launch, power_of_two

_HEAD_DIMS = range(16, 129, 16)
_BLOCK = 16
"""Tokens of a page are a multiple of this: as many as a tensor core takes at once."""
DECODING_SPLIT, CHUNK_SPLIT = 512, 4096
"""Tokens whose weighted values are summed up apart: those of a split are read one tile after the other, by one program
(512 tokens take some 5 us, by arithmetic), so few rows of long contexts would leave most of a card idle. A chunk has
more queries, so more programs, and partial results that are larger."""
PROGRAMS = 1024
"""Programs to aim for by giving each fewer splits: twice as many as an H100 has room for, since rows differ."""
_PARTS = 16
"""Splits that are added up at a time: their order is fixed by it."""
_HEADS_TILE = 8
"""Heads of a token that a program rotates: 8 channels a thread of 128, which are 16 bytes."""
_MOST = 2**31
"""Entries of queries and of partial results, whose offsets have 32 bits."""


def check_shapes(heads: int, kv_heads: int, head_dim: int, block: int, dtype: torch.dtype) -> None:
    """Raises ValueError for what kernels cannot do, and torch can: other head_dim than multiples of 16 up to 128, other
    tokens of a page than multiples of 16, query heads that are no multiple of key heads, other dtypes than float32,
    bfloat16 and float16."""
    if head_dim not in _HEAD_DIMS:
        raise ValueError(f"head_dim={head_dim}: kernels are for multiples of 16 up to 128")
    if block < _BLOCK or block % _BLOCK:
        raise ValueError(f"{block} tokens of a page: kernels are for multiples of {_BLOCK}")
    if kv_heads < 1 or heads < kv_heads or heads % kv_heads:
        raise ValueError(f"{heads} query heads are no multiple of {kv_heads} key heads")
    check_dtype(dtype)


def paged_attention(
    q_BHLD: Tensor, keys: Tensor, values: Tensor, table_BN: Tensor, positions_BL: Tensor, scale: float
) -> Tensor:
    """[B, H, L, D] of queries: softmax(scale q k) v over each row's pages, the softmax in float32. `keys` [pages, G, D,
    K], `values` [pages, G, K, D], `table_BN` int32, `positions_BL` int64. What is returned lies as [B, L, H, D], and
    queries that lie so are not copied. One launch where N pages hold one split, `DECODING_SPLIT` or (more than 16
    queries a key head) `CHUNK_SPLIT` tokens, else two: a table cut to the columns in use, `table_BN[:, :n]`, is
    allowed and changes no bit. Raises ValueError as `check_shapes`, and for other shapes, dtypes or layouts.
    """
    rows, heads, length, dim = q_BHLD.shape
    groups, block = _check_cache(keys, values, table_BN, positions_BL, (rows, length))
    check_shapes(heads, groups, dim, block, q_BHLD.dtype)
    check_dtype(q_BHLD.dtype, keys=keys)
    if keys.shape[2] != dim:
        raise ValueError(f"queries have {dim} channels, keys {keys.shape[2]}")
    from gristmill.model.generate.kernels import jit_attention

    q = q_BHLD.transpose(1, 2).contiguous()
    y = torch.empty_like(q)
    shared = heads // groups
    queries, tile, warps, stages = _tiles(length * shared, q.dtype)
    split = DECODING_SPLIT if queries == 16 else CHUNK_SPLIT
    splits = -(-table_BN.shape[1] * block // split)
    parts = _partial_results(q, splits)
    across = groups * -(-length * shared // queries)
    programs = max(1, min(splits, PROGRAMS // max(across * rows, 1)))
    tensors = {"q": q, "keys": keys, "values": values, "table": table_BN, "positions": positions_BL, "y": y}
    numbers = {"table_stride": table_BN.stride(0), "splits": splits, "programs": programs}
    shapes = {"LENGTH": length, "GROUPS": groups, "SHARED": shared, "PAGE": block}
    common = {"DIM": dim, "DIM_PADDED": power_of_two(dim), "SPLIT": split}
    tiles = {"QUERIES": queries, "TILE": tile, "EXACT": interpreted()}
    arguments: dict[str, Any] = {
        **tensors,
        **numbers,
        **shapes,
        **parts,
        **common,
        **tiles,
        "scale": scale * math.log2(math.e),
    }
    launch(jit_attention.attend, (across, rows, programs), arguments, num_warps=warps, num_stages=stages)
    if splits > 1:
        arguments = {**parts, **common, "positions": positions_BL, "y": y, "splits": splits}
        arguments |= {"HEADS": heads, "PARTS": _PARTS}
        launch(jit_attention.combine, (rows * length * heads,), arguments, num_warps=4)
    return y.transpose(1, 2)


def rotate_and_write(
    qkv_BLE: Tensor,
    cos_B1LR: Tensor,
    sin_B1LR: Tensor,
    keys: Tensor,
    values: Tensor,
    table_BN: Tensor,
    positions_BL: Tensor,
) -> Tensor:
    """Takes [B, L, (H + 2 G) D] as `qkv_proj` gives it; turns queries and keys as `model.phi4.rope.rotate` does, writes
    keys and values to their pages and returns the queries [B, H, L, D], which lie as [B, L, H, D]. One launch, with the
    bits of torch. H follows from the width. Raises ValueError as `paged_attention`.
    """
    rows, length, width = qkv_BLE.shape
    groups, block = _check_cache(keys, values, table_BN, positions_BL, (rows, length))
    dim, rotary = keys.shape[2], cos_B1LR.shape[-1]
    heads = width // dim - 2 * groups
    if width % dim:
        raise ValueError(f"{width} channels are no heads of {dim}")
    check_shapes(heads, groups, dim, block, qkv_BLE.dtype)
    check_dtype(qkv_BLE.dtype, keys=keys, cos=cos_B1LR, sin=sin_B1LR)
    for name, angles in (("cos", cos_B1LR), ("sin", sin_B1LR)):
        if angles.shape != (rows, 1, length, rotary) or rotary % 2 or rotary > dim:
            raise ValueError(f"{name} is {list(angles.shape)}, for {rows} rows of {length} and heads of {dim}")
    from gristmill.model.generate.kernels import jit_layers

    q = qkv_BLE.new_empty(rows, length, heads, dim)
    arguments: dict[str, Any] = {
        "qkv": qkv_BLE.contiguous(),
        "cos": cos_B1LR.contiguous(),
        "sin": sin_B1LR.contiguous(),
        "q": q,
    }
    arguments |= {"keys": keys, "values": values, "table": table_BN, "positions": positions_BL}
    arguments |= {"table_stride": table_BN.stride(0), "LENGTH": length, "HEADS": heads, "GROUPS": groups, "DIM": dim}
    arguments |= {"DIM_PADDED": power_of_two(dim), "ROTARY": rotary, "PAGE": block, "TILE": _HEADS_TILE}
    grid = (rows * length, -(-(heads + 2 * groups) // _HEADS_TILE))
    # A product and a sum in one instruction are rounded once, and by torch twice.
    launch(jit_layers.rotate_write, grid, arguments, num_warps=4, enable_fp_fusion=False)
    return q.transpose(1, 2)


def write_pages(
    keys: Tensor, values: Tensor, k_BGLD: Tensor, v_BGLD: Tensor, table_BN: Tensor, positions_BL: Tensor
) -> None:
    """New keys and values [B, G, L, D], the keys turned, to their places; of tokens that rest, nothing. Raises
    ValueError as `paged_attention`."""
    rows, groups, length, dim = k_BGLD.shape
    _, block = _check_cache(keys, values, table_BN, positions_BL, (rows, length))
    check_shapes(groups, groups, dim, block, keys.dtype)
    check_dtype(keys.dtype, k=k_BGLD, v=v_BGLD)
    if v_BGLD.shape != k_BGLD.shape or keys.shape[1:3] != (groups, dim):
        raise ValueError(f"k is {list(k_BGLD.shape)}, v {list(v_BGLD.shape)}, for keys {list(keys.shape)}")
    from gristmill.model.generate.kernels import jit_layers

    arguments: dict[str, Any] = {"k": k_BGLD.transpose(1, 2).contiguous(), "v": v_BGLD.transpose(1, 2).contiguous()}
    arguments |= {"keys": keys, "values": values, "table": table_BN, "positions": positions_BL}
    arguments |= {"table_stride": table_BN.stride(0), "LENGTH": length, "GROUPS": groups, "DIM": dim}
    arguments |= {"DIM_PADDED": power_of_two(dim), "PAGE": block}
    launch(jit_layers.write, (rows * length, groups), arguments, num_warps=1)


def _partial_results(q_BLHD: Tensor, splits: int) -> dict[str, Tensor]:
    """Where weighted values and weights of each split go."""
    # Without a second split nothing of these is written or read, but the kernel is the same.
    kept = splits if splits > 1 else 0
    rows, length, heads, dim = q_BLHD.shape
    partial_y = q_BLHD.new_empty(rows, length, heads, kept, dim, dtype=torch.float32)
    if max(q_BLHD.numel(), partial_y.numel()) >= _MOST:
        raise ValueError(f"{rows} rows of {length} queries, {splits} splits: their offsets need more than 32 bits")
    partial_stat = q_BLHD.new_empty(rows, length, heads, kept, 2, dtype=torch.float32)
    return {"partial_y": partial_y, "partial_stat": partial_stat}


def _tiles(queries: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """(queries of a tile, keys of a tile, warps, stages) for so many queries of a row that share a key head."""
    if queries <= 16:  # decoding: the least that a tensor core takes; see `jit_attention` for the rest
        return 16, 32, 4, 3
    if dtype == torch.float32:  # no tensor cores: its products take registers instead
        return 32, 32, 4, 2
    # 64 queries are what a warpgroup's product takes. Two tiles of 64 keys in flight leave room for two programs.
    return 64, 64, 4, 2


def _check_cache(
    keys: Tensor, values: Tensor, table_BN: Tensor, positions_BL: Tensor, queries: tuple[int, int]
) -> tuple[int, int]:
    """Key heads, and tokens of a page. `queries`: rows and tokens of each."""
    pages, groups, dim, block = keys.shape
    if values.shape != (pages, groups, block, dim) or values.dtype != keys.dtype:
        raise ValueError(f"values are {list(values.shape)} of {values.dtype}, keys {list(keys.shape)} of {keys.dtype}")
    if table_BN.dtype != torch.int32 or table_BN.dim() != 2 or len(table_BN) != queries[0]:
        raise ValueError(f"the table is {list(table_BN.shape)} of {table_BN.dtype}, for {queries[0]} rows")
    if positions_BL.dtype != torch.int64 or positions_BL.shape != queries:
        raise ValueError(f"positions are {list(positions_BL.shape)} of {positions_BL.dtype}, for queries {queries}")
    if table_BN.stride(1) != 1 or not (
        keys.is_contiguous() and values.is_contiguous() and positions_BL.is_contiguous()
    ):
        raise ValueError("keys, values, positions and each row of the table must be contiguous")
    return groups, block
