"""Features of a block: what it is, where it stands, and what stands around it.

No logarithm is taken anywhere: a forest asks only what is greater, and counts are exact on every machine. The table has
a row for each feature, so that loops go over blocks side by side, many at a time; for the same reason division is
numpy's, which has no branch for a zero.

long: 170 features, group by group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction import node_kernels as tree
from gristmill.filters.extraction.columns import Place
from gristmill.filters.extraction.node_kernels import AGAINST, FAR, FOR, H1, share

# Rows of what `describe` says of each node.
CHARS, LINKED, STOPS, BLOCKS, OF_PAGE, IN_P, SCORE, LINKS, ALIKE, WORDS, OF_PROSE, RICH, KIDS = range(13)
NODE_ROWS = 13


@register_jitable
def divide(table: Any, part: Any, whole: Any, count: Any) -> None:
    """Row `part` becomes its share of row `whole`."""
    for at in range(Place(count)):
        table[part, at] = np.divide(table[part, at], max(table[whole, at], np.float32(1)))


@register_jitable
def divide_all(table: Any, part: Any, whole: Any, count: Any) -> None:
    """Row `part` becomes its share of one number."""
    divisor = np.float32(max(whole, 1))
    for at in range(Place(count)):
        table[part, at] = np.divide(table[part, at], divisor)


@register_jitable
def fill(table: Any, row: Any, value: Any, count: Any) -> None:
    """A row of what is the same for every block of the page."""
    for at in range(Place(count)):
        table[row, at] = value


@register_jitable
def write_bits(bits: Any, n_bits: Any, table: Any, row: Any) -> None:
    """A row for each of the first bits, int64 [blocks]."""
    for bit in range(n_bits):
        for at in range(Place(len(bits))):
            table[row + bit, at] = (bits[at] >> bit) & 1


@register_jitable
def own_features(blocks: Any, table: Any, categories: Any) -> None:
    """0 to 51: of the block alone, with what its ancestors are and are called."""
    count = len(blocks)
    inherited, ancestors, lexicon = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    for at in range(Place(count)):
        row = blocks[at]
        table[0, at], table[1, at], table[2, at] = row[c.CHARS], row[c.WORDS], row[c.LINK_CHARS]
        table[3, at], table[4, at], table[5, at] = row[c.STOPS], row[c.ENDS], row[c.COMMAS]
        table[6, at], table[7, at], table[8, at] = row[c.DIGITS], row[c.CAPITALS], row[c.LETTERS]
        table[9, at], table[10, at], table[11, at] = row[c.LAST], min(row[c.LINKS], 10), categories[row[c.TAG]]
        table[12, at], table[13, at] = row[c.DEPTH], min(row[c.BREAKS], 10)
        table[14, at], table[15, at] = row[c.CHARS], row[c.IDEOGRAPHS]
        inherited[at], ancestors[at], lexicon[at] = row[c.INHERITED], row[c.ANCESTORS], row[c.LEXICON]
    for part, whole in ((2, 0), (3, 1), (4, 1), (5, 1), (6, 0), (7, 8), (8, 0), (14, 1), (15, 0)):
        divide(table, part, whole, count)
    write_bits(inherited, c.ATTRIBUTE_BITS, table, 16)
    write_bits(ancestors, c.ANCESTOR_BITS, table, 32)
    write_bits(lexicon, 6, table, 46)


@register_jitable
def ones(bits: Any, mask: Any) -> Any:
    """How many bits under a mask are set."""
    left, count = bits & mask, 0
    while left:
        left &= left - 1
        count += 1
    return count


@register_jitable
def describe(nodes: Any, best: Any, prose: Any, richest: Any, alike: Any, by_node: Any) -> None:
    """Fills `by_node`, float32 [NODE_ROWS, nodes]. best: the best score of the page. Of each node: characters of prose
    in it and right below it, and how many nodes are like it."""
    count = len(nodes)
    for at in range(Place(count)):
        row = nodes[at]
        by_node[CHARS, at], by_node[OF_PAGE, at] = row[c.N_CHARS], row[c.N_CHARS]
        by_node[LINKED, at], by_node[IN_P, at] = row[c.N_LINK_CHARS], row[c.N_P_CHARS]
        by_node[STOPS, at], by_node[WORDS, at] = row[c.N_STOPS], row[c.N_WORDS]
        by_node[LINKS, at], by_node[BLOCKS, at] = row[c.N_LINKS], row[c.N_BLOCKS]
        by_node[SCORE, at], by_node[KIDS, at] = row[c.N_SCORE], min(row[c.N_KIDS], FAR)
        by_node[OF_PROSE, at], by_node[RICH, at], by_node[ALIKE, at] = prose[at], richest[at], min(alike[at], FAR)
    for part, whole in ((LINKED, CHARS), (IN_P, CHARS), (STOPS, WORDS), (LINKS, BLOCKS)):
        divide(by_node, part, whole, count)
    divide_all(by_node, OF_PAGE, nodes[0, c.N_CHARS], count)
    divide_all(by_node, SCORE, np.int64(best), count)
    divide_all(by_node, OF_PROSE, prose[0], count)
    divide_all(by_node, RICH, prose[0], count)


@register_jitable
def node_features(blocks: Any, table: Any, nodes: Any, by_node: Any, below: Any) -> None:
    """52 to 97 and some behind: of the nodes around the block, up to its great-grandparent's parent. below: bits."""
    count = len(blocks)
    bits = np.empty(count, np.int64)
    for at in range(Place(count)):
        node = Place(blocks[at, c.NODE])
        parent = Place(tree.up(nodes, node))
        grand = Place(tree.up(nodes, parent))
        great = Place(tree.up(nodes, grand))
        above = nodes[parent, c.N_OWN] | nodes[grand, c.N_OWN]
        table[52, at], table[53, at] = ones(nodes[node, c.N_OWN], AGAINST), ones(nodes[node, c.N_OWN], FOR)
        table[54, at], table[55, at] = ones(above, AGAINST), ones(above, FOR)
        first = 56
        for place in (node, parent, grand, great):
            for row in range(ALIKE + 1):
                table[first + row, at] = by_node[row, place]
            first += ALIKE + 1
        table[92, at], table[93, at] = by_node[KIDS, parent], by_node[KIDS, grand]
        table[94, at], table[95, at], table[96, at] = (
            by_node[CHARS, grand],
            by_node[CHARS, parent],
            by_node[CHARS, node],
        )
        table[97, at] = by_node[ALIKE, Place(tree.up(nodes, great))]
        table[135, at], table[136, at] = by_node[OF_PROSE, parent], by_node[OF_PROSE, grand]
        table[143, at], table[147, at] = nodes[node, c.N_BLOCKS] > 1, by_node[RICH, parent]
        table[169, at] = by_node[ALIKE, node]
        bits[at] = below[node]
    for part, whole in ((94, 83), (95, 74), (96, 65)):  # of the characters in the node above
        divide(table, part, whole, count)
    write_bits(bits, c.ATTRIBUTE_BITS, table, 152)


@register_jitable
def neighbour_features(blocks: Any, table: Any) -> None:
    """98 to 120: of two blocks before and two behind; of the nine around, sums."""
    count, place = len(blocks), 98
    for step in (-2, -1, 1, 2):
        first, last = max(0, -step), count - max(0, step)
        for row in (1, 2, 11, 3):
            fill(table, place, -1, count)
            for at in range(first, last):
                table[place, Place(at)] = table[row, Place(at + step)]
            place += 1
        fill(table, place, -1, count)
        for at in range(first, last):
            table[place, Place(at)] = blocks[Place(at + step), c.LEXICON] != 0
        place += 1
    sums, chars, links, stops = np.zeros((3, count + 1), np.int64), 0, 0, 0
    for at in range(count):
        chars, links, stops = chars + blocks[at, c.CHARS], links + blocks[at, c.LINK_CHARS], stops + blocks[at, c.STOPS]
        sums[0, at + 1], sums[1, at + 1], sums[2, at + 1] = chars, links, stops
    for at in range(count):
        nearest, behind = Place(max(0, at - 4)), Place(min(count, at + 5))
        for row in range(3):
            table[118 + row, Place(at)] = sums[row, behind] - sums[row, nearest]
    divide(table, 119, 118, count)


@register_jitable
def centre_features(blocks: Any, table: Any, nodes: Any, inside: Any, marks: Any) -> None:
    """127 to 134: whether the block is in each centre, how many blocks before its first and behind its last, and how
    deep below two of them. marks: what `centres` returns."""
    count = len(blocks)
    for bit in range(3):
        first, last = -1, -1
        for at in range(count):
            is_inside = (inside[blocks[at, c.NODE]] >> bit) & 1
            table[127 + bit, at] = is_inside
            if is_inside:
                first = at if first < 0 else first
                last = at
        for at in range(count):
            distance = max(-20, min(20, max(at - last, 0) - max(first - at, 0)))
            table[130 + bit, Place(at)] = distance if first >= 0 else 0
    for row, mark in ((133, marks[0]), (134, marks[1])):
        depth = nodes[mark, c.N_DEPTH]
        for at in range(Place(count)):
            table[row, at] = blocks[at, c.DEPTH] - depth


@register_jitable
def page_features(blocks: Any, table: Any, nodes: Any, prose: Any, good: Any) -> None:
    """123 to 126, 140, 141 and 144: of the page, and how far from its first <h1> a block stands. prose: its characters
    on the page, good: its blocks."""
    count, total = len(blocks), nodes[0, c.N_CHARS]
    fill(table, 123, total, count)
    fill(table, 124, share(nodes[0, c.N_LINK_CHARS], total), count)
    fill(table, 125, count, count)
    fill(table, 126, prose, count)
    fill(table, 144, min(good, 60), count)
    h1, h1_count = -1, 0
    for at in range(count):
        if blocks[at, c.TAG] == H1 and blocks[at, c.WORDS] > 0:
            h1_count += 1
            h1 = at if h1 < 0 else h1
    fill(table, 141, min(h1_count, 5), count)
    for at in range(count):
        table[140, Place(at)] = max(-FAR, min(2 * FAR, at - h1)) if h1 >= 0 else 0


@register_jitable
def place_features(blocks: Any, table: Any, nodes: Any, is_good: Any, prose: Any, good: Any, richest: Any) -> None:
    """121 to 151, those that are left: what stands before the block and behind it. prose and good as above."""
    count, depth_sum, rich = len(blocks), 0, 0
    for at in range(count):
        depth_sum += blocks[at, c.CHARS] * blocks[at, c.DEPTH] * is_good[at]
    for node in range(len(nodes)):
        rich = node if richest[node] > richest[rich] else rich
    mean_depth, before, prose_before, since = share(depth_sum, prose), 0, 0, FAR
    for at in range(count):
        row = blocks[at]
        node = row[c.NODE]
        parent = tree.up(nodes, node)
        table[121, at], table[122, at], table[138, at] = before, at, prose_before
        before += row[c.CHARS]
        prose_before += row[c.CHARS] * is_good[at]
        table[137, at], table[139, at] = min(since, FAR), prose - prose_before
        since = 1 if is_good[at] else since + 1
        table[142, at], table[145, at] = is_good[at], row[c.DEPTH] - mean_depth
        table[146, at] = 2 if parent == rich else (1 if tree.up(nodes, parent) == rich or node == rich else 0)
        table[148, at] = row[c.CHARS] * max(good, 1)
        table[149, at], table[150, at] = row[c.ITEM], row[c.ROW] > 0
    divide_all(table, 121, nodes[0, c.N_CHARS], count)
    divide_all(table, 122, count, count)
    for row in (138, 139, 148):
        divide_all(table, row, prose, count)
    since = FAR
    for at in range(count - 1, -1, -1):
        table[151, at] = min(since, FAR)
        since = 1 if is_good[at] else since + 1


def features(blocks: Any, nodes: Any, categories: Any, table: Any) -> None:
    """Fills the first columns.FEATURES rows of `table`, float32 [rows, at least blocks], and the sums in `nodes`."""
    count, n_nodes = len(blocks), len(nodes)
    prose, inside, below = np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.int64)
    alike, richest, is_good = np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.int64), np.zeros(count, np.bool_)
    repeated, by_node = np.zeros(count, np.int64), np.empty((NODE_ROWS, n_nodes), np.float32)
    tree.sum_up(blocks, nodes, is_good, prose, richest)
    marks = tree.centres(nodes, prose, inside)
    tree.bits_below(nodes, inside, below)
    tree.count_alike(nodes, alike)
    tree.count_repeated(blocks, repeated)
    describe(nodes, marks[3], prose, richest, alike, by_node)
    good = 0
    for at in range(count):
        good += is_good[at]
        table[168, at] = min(repeated[at], 5)
    own_features(blocks, table, categories)
    node_features(blocks, table, nodes, by_node, below)
    neighbour_features(blocks, table)
    centre_features(blocks, table, nodes, inside, marks)
    page_features(blocks, table, nodes, prose[0], good)
    place_features(blocks, table, nodes, is_good, prose[0], good, richest)


SIGNATURES = {
    "features": types.void(
        types.Array(types.int64, 2, "C"),
        types.Array(types.int64, 2, "C"),
        types.Array(types.int64, 1, "C", readonly=True),
        types.Array(types.float32, 2, "C"),
    )
}
