"""Features of a block: what it is, where it stands, and what stands around it.

No logarithm is taken anywhere: a forest asks only what is greater, and counts are exact on every machine.

long: 170 features, group by group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
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
    return np.float32(part) / np.float32(max(whole, 1))


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
def sum_up(blocks: Any, nodes: Any, prose: Any) -> None:
    """Sums over the blocks in each node, and `prose`: characters of prose in each."""
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
        if is_prose(row):
            score_parents(row, nodes)
            prose[row[c.NODE]] += row[c.CHARS]
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


@register_jitable
def own_features(row: Any, f: Any, categories: Any) -> None:
    """0 to 50: of the block alone, with what its ancestors are and are called."""
    f[0], f[1], f[2] = row[c.CHARS], row[c.WORDS], share(row[c.LINK_CHARS], row[c.CHARS])
    f[3], f[4] = share(row[c.STOPS], row[c.WORDS]), share(row[c.ENDS], row[c.WORDS])
    f[5], f[6] = share(row[c.COMMAS], row[c.WORDS]), share(row[c.DIGITS], row[c.CHARS])
    f[7], f[8] = share(row[c.CAPITALS], row[c.LETTERS]), share(row[c.LETTERS], row[c.CHARS])
    f[9], f[10], f[11], f[12] = row[c.LAST], min(row[c.LINKS], 10), categories[row[c.TAG]], row[c.DEPTH]
    f[13], f[14], f[15] = (
        min(row[c.BREAKS], 10),
        share(row[c.CHARS], row[c.WORDS]),
        share(row[c.IDEOGRAPHS], row[c.CHARS]),
    )
    for bit in range(c.ATTRIBUTE_BITS):
        f[16 + bit] = (row[c.INHERITED] >> bit) & 1
    for bit in range(c.ANCESTOR_BITS):
        f[32 + bit] = (row[c.ANCESTORS] >> bit) & 1
    for bit in range(6):
        f[46 + bit] = (row[c.LEXICON] >> bit) & 1


@register_jitable
def ones(bits: Any, mask: Any) -> Any:
    """How many bits under a mask are set."""
    left, count = bits & mask, 0
    while left:
        left &= left - 1
        count += 1
    return count


@register_jitable
def node_features(row: Any, nodes: Any, f: Any, page: Any, alike: Any) -> None:
    """52 to 97: of the nodes around the block, up to its great-grandparent. page: (characters, best score)."""
    total, best = page
    node = row[c.NODE]
    parent = up(nodes, node)
    grand = up(nodes, parent)
    great = up(nodes, grand)
    above = nodes[parent, c.N_OWN] | nodes[grand, c.N_OWN]
    f[52], f[53] = ones(nodes[node, c.N_OWN], AGAINST), ones(nodes[node, c.N_OWN], FOR)
    f[54], f[55] = ones(above, AGAINST), ones(above, FOR)
    at = 56
    for place in (node, parent, grand, great):
        chars = nodes[place, c.N_CHARS]
        f[at], f[at + 1] = chars, share(nodes[place, c.N_LINK_CHARS], chars)
        f[at + 2] = share(nodes[place, c.N_STOPS], nodes[place, c.N_WORDS])
        f[at + 3], f[at + 4] = nodes[place, c.N_BLOCKS], share(chars, total)
        f[at + 5] = share(nodes[place, c.N_P_CHARS], chars)
        f[at + 6] = share(nodes[place, c.N_SCORE], max(np.int64(best), 1))
        f[at + 7] = share(nodes[place, c.N_LINKS], nodes[place, c.N_BLOCKS])
        f[at + 8] = min(alike[place], FAR)
        at += 9
    f[92], f[93] = min(nodes[parent, c.N_KIDS], FAR), min(nodes[grand, c.N_KIDS], FAR)
    f[94], f[95] = (
        share(nodes[grand, c.N_CHARS], nodes[great, c.N_CHARS]),
        share(nodes[parent, c.N_CHARS], nodes[grand, c.N_CHARS]),
    )
    f[96], f[97] = share(nodes[node, c.N_CHARS], nodes[parent, c.N_CHARS]), min(alike[up(nodes, great)], FAR)


@register_jitable
def neighbour_features(blocks: Any, at: Any, f: Any, categories: Any) -> None:
    """98 to 121: of two blocks before and two behind; of the nine around, sums."""
    count, place = len(blocks), 98
    for step in (-2, -1, 1, 2):
        if 0 <= at + step < count:
            row = blocks[at + step]
            f[place], f[place + 1] = row[c.WORDS], share(row[c.LINK_CHARS], row[c.CHARS])
            f[place + 2], f[place + 3] = categories[row[c.TAG]], share(row[c.STOPS], row[c.WORDS])
            f[place + 4] = row[c.LEXICON] != 0
        else:
            f[place : place + 5] = -1
        place += 5
    chars = links = stops = 0
    for near in range(max(0, at - 4), min(count, at + 5)):
        chars += blocks[near, c.CHARS]
        links += blocks[near, c.LINK_CHARS]
        stops += blocks[near, c.STOPS]
    f[118], f[119], f[120] = chars, share(links, chars), stops


@register_jitable
def place_features(blocks: Any, nodes: Any, prose_of: Any, inside: Any, marks: Any, features: Any) -> None:
    """121 to 151: where the block stands on the page, and as seen from its centres. marks: what `centres` returns.

    long: sums that run from the first block to the last.
    """
    top, deep = marks[0], marks[1]
    count, total, prose_total = len(blocks), nodes[0, c.N_CHARS], prose_of[0]
    first, last = np.full(3, -1, np.int64), np.full(3, -1, np.int64)
    is_good = np.zeros(count, np.bool_)
    richest, rich, good, depth_sum, h1, h1_count = np.zeros(len(nodes), np.int64), 0, 0, 0, -1, 0
    for at in range(count):
        row = blocks[at]
        is_good[at] = is_prose(row)
        if is_good[at]:
            good += 1
            depth_sum += row[c.CHARS] * row[c.DEPTH]
            richest[up(nodes, row[c.NODE])] += row[c.CHARS]
        if row[c.TAG] == H1 and row[c.WORDS] > 0:
            h1_count += 1
            h1 = at if h1 < 0 else h1
        for bit in range(3):
            if (inside[row[c.NODE]] >> bit) & 1:
                first[bit] = at if first[bit] < 0 else first[bit]
                last[bit] = at
    for node in range(len(nodes)):
        rich = node if richest[node] > richest[rich] else rich
    mean_depth = share(depth_sum, prose_total)
    before = prose_before = 0
    since = FAR
    for at in range(count):
        row, f = blocks[at], features[at]
        node = row[c.NODE]
        parent = up(nodes, node)
        grand = up(nodes, parent)
        f[121], f[122], f[123] = share(before, total), share(at, count), total
        f[124], f[125], f[126] = share(nodes[0, c.N_LINK_CHARS], total), count, prose_total
        for bit in range(3):
            f[127 + bit] = (inside[node] >> bit) & 1
            distance = max(at - last[bit], 0) - max(first[bit] - at, 0)
            f[130 + bit] = max(-20, min(20, distance)) if first[bit] >= 0 else 0
        f[133], f[134] = row[c.DEPTH] - nodes[top, c.N_DEPTH], row[c.DEPTH] - nodes[deep, c.N_DEPTH]
        f[135], f[136] = share(prose_of[parent], prose_total), share(prose_of[grand], prose_total)
        f[137] = min(since, FAR)
        since = 1 if is_good[at] else since + 1
        f[138] = share(prose_before, prose_total)
        before += row[c.CHARS]
        prose_before += row[c.CHARS] * is_good[at]
        f[139] = share(prose_total - prose_before, prose_total)
        f[140], f[141] = (max(-FAR, min(2 * FAR, at - h1)) if h1 >= 0 else 0), min(h1_count, 5)
        f[142], f[143], f[144] = is_good[at], nodes[node, c.N_BLOCKS] > 1, min(good, 60)
        f[145] = row[c.DEPTH] - mean_depth
        f[146] = 2 if parent == rich else (1 if grand == rich or node == rich else 0)
        f[147] = share(richest[parent], prose_total)
        f[148] = np.float32(row[c.CHARS] * max(good, 1)) / np.float32(max(prose_total, 1))
        f[149], f[150] = row[c.ITEM], row[c.ROW] > 0
    since = FAR
    for at in range(count - 1, -1, -1):
        features[at, 151] = min(since, FAR)
        since = 1 if is_good[at] else since + 1


def features(blocks: Any, nodes: Any, categories: Any, table: Any) -> None:
    """Fills `table`, float32 [blocks, more than columns.FEATURES], and the sums in `nodes`."""
    prose, inside = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
    below, alike = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
    repeated = np.zeros(len(blocks), np.int64)
    sum_up(blocks, nodes, prose)
    marks = centres(nodes, prose, inside)
    bits_below(nodes, inside, below)
    count_alike(nodes, alike)
    count_repeated(blocks, repeated)
    place_features(blocks, nodes, prose, inside, marks, table)
    for at in range(len(blocks)):
        row, f = blocks[at], table[at]
        own_features(row, f, categories)
        node_features(row, nodes, f, (nodes[0, c.N_CHARS], marks[3]), alike)
        neighbour_features(blocks, at, f, categories)
        for bit in range(c.ATTRIBUTE_BITS):
            f[152 + bit] = (below[row[c.NODE]] >> bit) & 1
        f[168], f[169] = min(repeated[at], 5), min(alike[row[c.NODE]], FAR)


SIGNATURES = {
    "features": types.void(
        types.Array(types.int64, 2, "C"),
        types.Array(types.int64, 2, "C"),
        types.Array(types.int64, 1, "C", readonly=True),
        types.Array(types.float32, 2, "C"),
    )
}
