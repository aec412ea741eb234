"""Forests over the blocks of a page, a threshold from its own confidence, and the text of what is kept.

Every step is exact arithmetic (no exponential, no logarithm), so that a page is judged alike on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c

TAB, NEWLINE, SPACE, DOT, BULLET = 9, 10, 32, ord("."), ord("-")
ROUND, SETTLED = 25, np.float32(3)
"""Trees after which it is looked whether a block is settled: its margin is beyond SETTLED, on either side."""
CELL_BYTES = 300
"""Longer cells are no cells of a table: it only lays out the page."""
FAR = 40


@register_jitable
def chance(margin: Any) -> Any:
    """The logistic function, with (1 + x / 256) ** 256 for exp(x). A flatter one lets the many blocks that are surely
    none, a menu's, outweigh the few that are: on half of the pages the threshold then falls below all of them."""
    odds = 1.0 + np.float64(max(np.float32(-20), min(np.float32(20), margin))) / 256.0
    for _ in range(8):
        odds *= odds
    return odds / (1.0 + odds)


def grow(features: Any, forest: Any, chances: Any) -> None:
    """Writes each block's chance, 0 to 1, of being main text: the logistic function of a sum over the trees.

    forest: (feature [nodes], -1 of a leaf; threshold; left; right; value of a leaf; first node of each tree).
    """
    feature, threshold, left, right, value, roots = forest
    count = len(features)
    sums, open_blocks, unsettled = np.zeros(count, np.float32), np.arange(count), count
    for first in range(0, len(roots), ROUND):
        for tree in range(first, min(first + ROUND, len(roots))):
            for place in range(unsettled):
                block = open_blocks[place]
                node = roots[tree]
                while feature[node] >= 0:
                    goes_left = features[block, feature[node]] <= threshold[node]
                    node = left[node] if goes_left else right[node]
                sums[block] += value[node]
        left_open = 0
        for place in range(unsettled):
            block = open_blocks[place]
            if -SETTLED < sums[block] < SETTLED:
                open_blocks[left_open] = block
                left_open += 1
        unsettled = left_open
    for block in range(count):
        chances[block] = chance(sums[block])


@register_jitable
def weight(chars: Any) -> Any:
    """About the binary logarithm of 1 + chars: between powers of two, on a straight line."""
    size, power = chars + 1, 0
    while size >> (power + 1):
        power += 1
    return power + (size - (1 << power)) / (1 << power)


def context(blocks: Any, nodes: Any, chances: Any, features: Any) -> None:
    """What the first forest says of the blocks around, for the second: columns.CONTEXT columns behind FEATURES."""
    count, at = len(blocks), c.FEATURES
    weights = np.empty(count)
    likely, whole = np.zeros(len(nodes)), np.zeros(len(nodes))
    total, above_half = 0.0, 0
    for block in range(count):
        weights[block] = weight(blocks[block, c.CHARS])
        likely[blocks[block, c.NODE]] += chances[block] * weights[block]
        whole[blocks[block, c.NODE]] += weights[block]
        total += chances[block] * blocks[block, c.CHARS]
        above_half += chances[block] > 0.5
    for node in range(len(nodes) - 1, 0, -1):
        likely[nodes[node, c.N_PARENT]] += likely[node]
        whole[nodes[node, c.N_PARENT]] += whole[node]
    since, seen = FAR, 0.0
    for block in range(count):
        f = features[block]
        f[at] = chances[block]
        place = at + 1
        for step in (-3, -2, -1, 1, 2, 3):
            f[place] = chances[block + step] if 0 <= block + step < count else -0.1
            place += 1
        node = blocks[block, c.NODE]
        for _ in range(4):
            f[place] = likely[node] / max(whole[node], 1e-9)
            node = max(nodes[node, c.N_PARENT], 0)
            place += 1
        seen += chances[block] * blocks[block, c.CHARS]
        f[place], f[place + 1], f[place + 2] = seen / max(total, 1e-9), above_half / count, total
        f[place + 3] = min(since, FAR)
        since = 1 if chances[block] > 0.7 and blocks[block, c.WORDS] >= 8 else since + 1
        near_likely, near = 0.0, 0.0
        for other in range(max(0, block - 4), min(count, block + 5)):
            near_likely += chances[other] * weights[other]
            near += weights[other]
        f[place + 5] = near_likely / near
    since = FAR
    for block in range(count - 1, -1, -1):
        features[block, at + 15] = min(since, FAR)
        since = 1 if chances[block] > 0.7 and blocks[block, c.WORDS] >= 8 else since + 1


@register_jitable
def least_chance(blocks: Any, chances: Any, share: Any) -> Any:
    """The chance from which a block is kept: `share` of what the surer half of the page's likely text has at least."""
    order = np.argsort(-chances, kind="mergesort")
    total = 0.0
    for block in range(len(chances)):
        total += chances[block] * blocks[block, c.CHARS]
    seen, median = 0.0, 0.0
    for block in order:
        seen += chances[block] * blocks[block, c.CHARS]
        if seen >= total * 0.5:
            median = chances[block]
            break
    return min(share, max(0.03, share * median))


def keep(blocks: Any, chances: Any, share: Any, keeps: Any) -> None:
    """`keeps`, bool [blocks]: whether each is main text."""
    least = least_chance(blocks, chances, share)
    for block in range(len(blocks)):
        keeps[block] = chances[block] >= least


@register_jitable
def put_number(out: Any, end: Any, number: Any) -> Any:
    """Writes a number from 1; returns where it ends."""
    power = 1
    while number // power >= 10:
        power *= 10
    while power:
        out[end] = 48 + number // power % 10
        power //= 10
        end += 1
    return end


def assemble(blocks: Any, keeps: Any, text: Any, marks_items: Any, out: Any, sizes: Any) -> None:
    """Writes the text of the blocks that are kept; `sizes[0]`: how many bytes it has.

    Cells of a row are parted by a tab, rows and items by a line, all else by an empty line. `marks_items`: 1: an item
    of a list begins with `- ` or its number.
    """
    end, before = 0, -1
    for block in range(len(blocks)):
        if not keeps[block]:
            continue
        row = blocks[block]
        if before >= 0:
            last = blocks[before]
            is_short = row[c.END] - row[c.START] <= CELL_BYTES and last[c.END] - last[c.START] <= CELL_BYTES
            is_list = row[c.ANCESTORS] & c.IN_LIST and last[c.ANCESTORS] & c.IN_LIST
            if row[c.ROW] and row[c.ROW] == last[c.ROW] and row[c.CELL] != last[c.CELL] and is_short:
                out[end] = TAB
            else:
                out[end] = NEWLINE
                if not is_list and not (row[c.ROW] and last[c.ROW] and is_short):
                    end += 1
                    out[end] = NEWLINE
            end += 1
        if marks_items and row[c.ITEM]:
            if row[c.ITEM] > 0:
                end = put_number(out, end, row[c.ITEM])
                out[end] = DOT
            else:
                out[end] = BULLET
            out[end + 1] = SPACE
            end += 2
        for at in range(row[c.START], row[c.END]):
            out[end] = text[at]
            end += 1
        before = block
    sizes[0] = end


def _array(dtype: types.Type, dimensions: int = 1, readonly: bool = False) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


_FOREST = types.Tuple(
    [
        _array(dtype, 1, True)
        for dtype in (types.int16, types.float32, types.int32, types.int32, types.float32, types.int32)
    ]
)
SIGNATURES = {
    "grow": types.void(_array(types.float32, 2), _FOREST, _array(types.float64)),
    "context": types.void(
        _array(types.int64, 2), _array(types.int64, 2), _array(types.float64), _array(types.float32, 2)
    ),
    "keep": types.void(_array(types.int64, 2), _array(types.float64), types.float64, _array(types.boolean)),
    "assemble": types.void(
        _array(types.int64, 2),
        _array(types.boolean),
        _array(types.uint8),
        types.int64,
        _array(types.uint8),
        _array(types.int64),
    ),
}
