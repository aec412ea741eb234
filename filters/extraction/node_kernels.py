"""Sums over the nodes of a page, its centres, and what repeats: of what the features of blocks are made.

Compiled by `feature_kernels.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction.vocabulary import ID

P, H1, PRE, QUOTE = (ID[tag] for tag in "p h1 pre blockquote".split())  # h1 to pre: headings stand between
FAR = 30
"""Blocks beyond which a neighbour is as far as any."""
AGAINST = (1 << 10) - 1
FOR = (1 << 10) | (1 << 11) | (1 << 13)
"""Groups of vocabulary.ATTRIBUTE_WORDS."""


@register_jitable
def is_prose(row: Any) -> Any:
    """Whether a block reads like text that somebody wrote: some words, few of them links, and stop words or marks."""
    if row[c.WORDS] < 10 or row[c.LINK_CHARS] * 2.5 >= row[c.CHARS]:
        return False
    marks = row[c.ENDS] + row[c.COMMAS]
    return row[c.STOPS] * 12 >= row[c.WORDS] or row[c.IDEOGRAPHS] * 4 > row[c.CHARS] or marks >= 2


@register_jitable
def share(part: Any, whole: Any) -> Any:
    """part / whole, 0 of nothing."""
    return np.divide(np.float32(part), np.float32(max(whole, 1)))


@register_jitable
def up(nodes: Any, node: Any) -> Any:
    """The parent, of the page itself the page."""
    return max(nodes[node, c.N_PARENT], 0)


@register_jitable
def score_parents(row: Any, nodes: Any) -> None:
    """Adds what a block of prose says for the nodes above it: Readability's score, in tenths."""
    tag = nodes[row[c.NODE], c.N_TAG]
    points = 10 * (1 + row[c.COMMAS] + row[c.ENDS] + min(row[c.CHARS] // 100, 3))
    points = points * (row[c.CHARS] - row[c.LINK_CHARS]) // row[c.CHARS]
    node = row[c.NODE]
    if tag == P or H1 <= tag <= PRE or tag == QUOTE:
        node = nodes[node, c.N_PARENT]
    for divisor in (1, 2, 4):
        if node < 0:
            return
        nodes[node, c.N_SCORE] += points // divisor
        node = nodes[node, c.N_PARENT]


@register_jitable
def sum_up(blocks: Any, nodes: Any, is_good: Any, prose: Any, richest: Any) -> None:
    """Sums over the blocks in each node. `is_good`: whether each block is prose; `prose`: characters of it in each
    node; `richest`: in the blocks whose parent it is."""
    for at in range(len(blocks)):
        row = blocks[at]
        node = nodes[row[c.NODE]]
        node[c.N_CHARS] += row[c.CHARS]
        node[c.N_LINK_CHARS] += row[c.LINK_CHARS]
        node[c.N_WORDS] += row[c.WORDS]
        node[c.N_STOPS] += row[c.STOPS]
        node[c.N_LINKS] += row[c.LINKS]
        node[c.N_BLOCKS] += 1
        if row[c.TAG] == P:
            node[c.N_P_CHARS] += row[c.CHARS]
        is_good[at] = is_prose(row)
        if is_good[at]:
            score_parents(row, nodes)
            prose[row[c.NODE]] += row[c.CHARS]
            richest[up(nodes, row[c.NODE])] += row[c.CHARS]
    for at in range(len(nodes) - 1, 0, -1):  # a parent stands before its children
        parent = nodes[at, c.N_PARENT]
        for column in range(c.N_CHARS, c.N_P_CHARS + 1):
            nodes[parent, column] += nodes[at, column]
        prose[parent] += prose[at]


@register_jitable
def centres(nodes: Any, prose: Any, inside: Any) -> Any:
    """The node with the best score, and the deepest ones with 60% and 85% of the prose. `inside`: bits, which of them
    a node is in. Returns (the three, the best score)."""
    top, deep, deeper, best, depth, depth_85 = 0, 0, 0, -1.0, -1, -1
    total = prose[0]
    for at in range(len(nodes)):
        chars = nodes[at, c.N_CHARS]
        if chars > 0:
            score = nodes[at, c.N_SCORE] * ((chars - nodes[at, c.N_LINK_CHARS]) / chars)
            if score > best:
                best, top = score, at
        if total > 0 and prose[at] * 10 >= total * 6 and nodes[at, c.N_DEPTH] >= depth:
            deep, depth = at, nodes[at, c.N_DEPTH]
        if total > 0 and prose[at] * 100 >= total * 85 and nodes[at, c.N_DEPTH] >= depth_85:
            deeper, depth_85 = at, nodes[at, c.N_DEPTH]
    for at in range(len(nodes)):
        above = inside[nodes[at, c.N_PARENT]] if at else 0
        inside[at] = above | (at == top) | (at == deep) * 2 | (at == deeper) * 4
    return top, deep, deeper, best


@register_jitable
def bits_below(nodes: Any, inside: Any, below: Any) -> None:
    """Words in attributes from the second centre down, of what is in it; of what is not, from the page down."""
    for at in range(1, len(nodes)):
        parent = nodes[at, c.N_PARENT]
        if inside[parent] & 2:
            below[at] = below[parent] | nodes[at, c.N_OWN]
        elif not inside[at] & 2:
            below[at] = nodes[at, c.N_INHERITED]


@register_jitable
def count_alike(nodes: Any, alike: Any) -> None:
    """How many nodes with text have the parent, tag and words in attributes that each has: items of a list."""
    size = 16
    while size < 2 * len(nodes):
        size *= 2
    keys, counts, places = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(len(nodes), np.int64)
    for at in range(1, len(nodes)):
        if nodes[at, c.N_CHARS] == 0:
            continue
        key = ((nodes[at, c.N_PARENT] + 1) * 1000003 + nodes[at, c.N_TAG]) * 65599 + nodes[at, c.N_OWN] + 1
        place = (key ^ (key >> 17)) & (size - 1)
        while keys[place] != 0 and keys[place] != key:
            place = (place + 1) & (size - 1)
        keys[place] = key
        counts[place] += 1
        places[at] = place
    for at in range(1, len(nodes)):
        if nodes[at, c.N_CHARS] > 0:
            alike[at] = counts[places[at]]


@register_jitable
def count_repeated(blocks: Any, repeated: Any) -> None:
    """How often the text of each block stands elsewhere on the page."""
    order = np.argsort(blocks[:, c.HASH], kind="mergesort")
    first = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or blocks[order[at], c.HASH] != blocks[order[first], c.HASH]:
            for same in range(first, at):
                repeated[order[same]] = at - first - 1
            first = at
