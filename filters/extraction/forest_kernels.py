"""Forests over the blocks of a page, a threshold from its own confidence, and the text of what is kept.

Every step is exact arithmetic (no exponential, no logarithm), so that a page is judged alike on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction.columns import DE_BRUIJN, Place

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


@register_jitable
def add_trees(table: Any, start: Any, trees: Any, forest: Any, masks: Any, sums: Any) -> None:
    """Adds what the trees from `trees[0]` to `trees[1]` say of the blocks in LANES columns of `table` from `start` on.

    All that a tree can ask is asked, whatever was answered: no branch to guess, and one question for many blocks.
    """
    feature, threshold, stays, first, leaves = forest
    start, lanes = Place(start), range(Place(c.LANES))
    for tree in range(Place(trees[0]), Place(trees[1])):
        for lane in lanes:
            masks[lane] = -1
        for asked in range(Place(first[tree]), Place(first[tree + Place(1)])):
            row, most, stay = Place(feature[asked]), threshold[asked], stays[asked]
            for lane in lanes:
                masks[lane] &= stay if table[row, start + lane] > most else np.int32(-1)
        for lane in lanes:
            mask = np.int64(masks[lane])
            sums[start + lane] += leaves[tree, Place((((mask & -mask) * DE_BRUIJN) >> 27) & 31)]


@register_jitable
def settle(blocks: Any, stays: Any, count: Any, sums: Any, chances: Any, is_last: Any) -> Any:
    """Writes the chances of what is settled in the first `count` columns. `blocks`: which is in each, -1: none any
    more. Returns how many are left, whose columns `stays` has."""
    left = 0
    for place in range(count):
        block = blocks[place]
        if block < 0:
            continue
        if is_last or not -SETTLED < sums[place] < SETTLED:
            chances[block] = chance(sums[place])
            blocks[place] = -1
        else:
            stays[left] = place
            left += 1
    return left


@register_jitable
def groups(count: Any) -> Any:
    """How many groups of LANES hold so many blocks."""
    return (count + c.LANES - 1) // c.LANES


def grow(table: Any, forest: Any, chances: Any) -> None:
    """Writes each block's chance, 0 to 1, of being main text: the logistic function of a sum over the trees.

    table: float32 [features, blocks, up to a multiple of LANES]. forest: `model.Conditions`. Blocks that are not
    settled move together, so that later trees are asked about fewer.
    """
    count, n_trees = len(chances), len(forest[4])
    masks, sums = np.empty(c.LANES, np.int32), np.zeros(table.shape[1], np.float32)
    blocks, stays = np.arange(count), np.empty(count, np.int64)
    for first in range(0, n_trees, ROUND):
        last = min(first + ROUND, n_trees)
        for group in range(groups(count)):
            add_trees(table, group * c.LANES, (first, last), forest, masks, sums)
        left = settle(blocks, stays, count, sums, chances, last == n_trees)
        if groups(left) == groups(count):
            continue
        moved = np.empty((table.shape[0], groups(left) * c.LANES + c.SPARE), np.float32)
        for row in range(len(moved)):
            for place in range(left):
                moved[row, place] = table[row, Place(stays[place])]
        for place in range(left):
            blocks[place], sums[place] = blocks[stays[place]], sums[stays[place]]
        table, count = moved, left


@register_jitable
def weight(chars: Any) -> Any:
    """About the binary logarithm of 1 + chars: between powers of two, on a straight line."""
    size, power = chars + 1, 0
    while size >> (power + 1):
        power += 1
    return power + (size - (1 << power)) / (1 << power)


def context(blocks: Any, nodes: Any, chances: Any, table: Any) -> None:
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
        table[at, block] = chances[block]
        row = at + 1
        for step in (-3, -2, -1, 1, 2, 3):
            table[row, block] = chances[block + step] if 0 <= block + step < count else -0.1
            row += 1
        node = blocks[block, c.NODE]
        for _ in range(4):
            table[row, block] = likely[node] / max(whole[node], 1e-9)
            node = max(nodes[node, c.N_PARENT], 0)
            row += 1
        seen += chances[block] * blocks[block, c.CHARS]
        table[row, block], table[row + 1, block], table[row + 2, block] = (
            seen / max(total, 1e-9),
            above_half / count,
            total,
        )
        table[row + 3, block] = min(since, FAR)
        since = 1 if chances[block] > 0.7 and blocks[block, c.WORDS] >= 8 else since + 1
        near_likely, near = 0.0, 0.0
        for other in range(max(0, block - 4), min(count, block + 5)):
            near_likely += chances[other] * weights[other]
            near += weights[other]
        table[row + 5, block] = near_likely / near
    since = FAR
    for block in range(count - 1, -1, -1):
        table[at + 15, block] = min(since, FAR)
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
    (
        _array(types.int32, readonly=True),
        _array(types.float32, readonly=True),
        _array(types.int32, readonly=True),
        _array(types.int32, readonly=True),
        _array(types.float32, 2, readonly=True),
    )
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
