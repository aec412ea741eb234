"""The stack of open elements: what a start tag closes that nobody closed, and what an end tag closes.

A part of the standard's tree construction (https://html.spec.whatwg.org/#tree-construction), as far as it decides where
a block stands. No element is walked over that is not on the stack, which is bounded: a tag costs MAX_DEPTH steps at
most, and on real pages a handful.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction.vocabulary import ID

A, BODY, BR, DD, DL, DT, FOREIGN, HEAD, HR, HTML, IMG, LI, MATH, OL, OPTION, P, SELECT, SVG, UL = (
    ID[tag] for tag in "a body br dd dl dt foreignobject head hr html img li math ol option p select svg ul".split()
)
TABLE, TBODY, THEAD, TFOOT, TR, TD, TH = (ID[tag] for tag in "table tbody thead tfoot tr td th".split())


@register_jitable
def popped(stack: Any, depth: Any, counts: Any, to: Any) -> Any:
    """Takes elements off the stack until `to` are left."""
    for at in range(to, depth):
        counts[stack[at, c.S_TAG]] -= 1
    return to


@register_jitable
def close_element(tag: Any, stack: Any, depth: Any, counts: Any, properties: Any, run: Any) -> Any:
    """The stack's depth after an end tag. What stands between is closed too, but no cell of a table."""
    if run[c.BEYOND] > 0:
        run[c.BEYOND] -= 1
        return depth
    if counts[tag] == 0 or tag == BODY or tag == HTML:
        return depth
    is_block = properties[tag] & c.IS_BLOCK
    is_hidden = properties[tag] & c.IS_HIDDEN
    at = depth - 1
    while at > 0 and stack[at, c.S_TAG] != tag:
        run[c.STEPS] += 1
        open_tag = stack[at, c.S_TAG]
        if (open_tag == TD or open_tag == TH or open_tag == TABLE) and not TABLE <= tag <= TH:
            return depth
        if open_tag == TABLE and tag != TABLE:
            return depth
        if not is_block and not is_hidden and tag != A and properties[open_tag] & c.IS_BLOCK:
            return depth
        at -= 1
    return popped(stack, depth, counts, at) if at > 0 else depth


@register_jitable
def nearest(stack: Any, depth: Any, tag: Any, other: Any, bound: Any, second_bound: Any, run: Any) -> Any:
    """Where the innermost `tag` or `other` stands, if no `bound` is inside it; -1 otherwise."""
    at = depth - 1
    while at > 0:
        run[c.STEPS] += 1
        open_tag = stack[at, c.S_TAG]
        if open_tag == tag or open_tag == other:
            return at
        if open_tag == bound or open_tag == second_bound or open_tag == TABLE:
            return -1
        at -= 1
    return -1


@register_jitable
def first_of(stack: Any, depth: Any, tag: Any, run: Any) -> Any:
    """Where the outermost element of a tag stands; the depth if nowhere."""
    at = 1
    while at < depth and stack[at, c.S_TAG] != tag:
        run[c.STEPS] += 1
        at += 1
    return at


@register_jitable
def open_row(stack: Any, depth: Any, tag: Any, run: Any) -> Any:
    """Where the row, or for a group of rows the group, stands that a start of the next ends; -1: nowhere."""
    place, at = -1, depth - 1
    while at > 0 and stack[at, c.S_TAG] != TABLE:
        run[c.STEPS] += 1
        open_tag = stack[at, c.S_TAG]
        if open_tag == TR or (tag != TR and (open_tag == TBODY or open_tag == THEAD or open_tag == TFOOT)):
            place = at
        at -= 1
    return place if at > 0 else -1


@register_jitable
def close_implied(tag: Any, stack: Any, depth: Any, counts: Any, properties: Any, run: Any) -> Any:
    """The stack's depth after all that the start of `tag` ends."""
    if counts[HEAD] > 0 and properties[tag] & c.IS_BLOCK and tag != HEAD:
        depth = popped(stack, depth, counts, first_of(stack, depth, HEAD, run))
    if properties[tag] & c.CLOSES_P and counts[FOREIGN] == 0:
        # Text of a page never stands in these, so whoever opened them forgot to close them.
        for open_tag in (SVG, MATH, SELECT):
            if counts[open_tag] > 0:
                depth = popped(stack, depth, counts, first_of(stack, depth, open_tag, run))
    at = -1
    if tag == LI and counts[LI] > 0:
        at = nearest(stack, depth, LI, LI, UL, OL, run)
    elif (tag == DT or tag == DD) and counts[DT] + counts[DD] > 0:
        at = nearest(stack, depth, DT, DD, DL, DL, run)
    elif (tag == TD or tag == TH) and counts[TD] + counts[TH] > 0:
        at = nearest(stack, depth, TD, TH, TR, TR, run)
    elif tag == TR or tag == TBODY or tag == THEAD or tag == TFOOT:
        at = open_row(stack, depth, tag, run)
    elif tag == OPTION and stack[depth - 1, c.S_TAG] == OPTION:
        at = depth - 1
    elif tag == A and counts[A] > 0:
        at = nearest(stack, depth, A, A, TD, TH, run)
    if at < 0 and properties[tag] & c.CLOSES_P and counts[P] > 0:
        at = depth - 1
        while at > 0 and not properties[stack[at, c.S_TAG]] & c.IS_BLOCK:
            run[c.STEPS] += 1
            at -= 1
        if stack[at, c.S_TAG] != P:
            at = -1
    return popped(stack, depth, counts, at) if at > 0 else depth


@register_jitable
def open_node(tag: Any, bits: Any, stack: Any, depth: Any, nodes: Any, count: Any) -> Any:
    """A node for a block that stands in the last element of the stack. Returns (its number, how many there are)."""
    parent = stack[depth - 1, c.S_NODE]
    if count == len(nodes):
        return parent, count
    node = nodes[count]
    for column in range(c.NODE_COLUMNS):
        node[column] = 0
    node[c.N_PARENT], node[c.N_TAG], node[c.N_OWN] = parent, tag, bits
    node[c.N_INHERITED] = stack[depth - 1, c.S_INHERITED] | bits
    node[c.N_DEPTH] = nodes[parent, c.N_DEPTH] + 1
    nodes[parent, c.N_KIDS] += 1
    return count, count + 1


@register_jitable
def open_element(
    tag: Any, bits: Any, stack: Any, depth: Any, counts: Any, nodes: Any, count: Any, looks: Any, run: Any
) -> Any:
    """Puts an element on the stack. Returns (the stack's depth, how many nodes there are)."""
    properties, ancestors, shows_hidden = looks
    if depth == c.MAX_DEPTH:
        run[c.BEYOND] += 1
        return depth, count
    above, entry = stack[depth - 1], stack[depth]
    for column in range(c.STACK_COLUMNS):  # an assignment of slices would ask first whether they overlap
        entry[column] = above[column]
    entry[c.S_TAG] = tag
    entry[c.S_ITEMS] = 0
    counts[tag] += 1
    entry[c.S_ANCESTORS] |= ancestors[tag]
    if tag == BODY:
        entry[c.S_HIDDEN] = 0
    elif tag != HTML:
        entry[c.S_INHERITED] |= bits
    if not shows_hidden and (properties[tag] & c.IS_HIDDEN or (bits >> c.RENDERED_BIT) & 1):
        entry[c.S_HIDDEN] += 1
    if properties[tag] & c.IS_BLOCK:
        entry[c.S_NODE], count = open_node(tag, bits, stack, depth, nodes, count)
        if tag == TABLE:
            entry[c.S_ROW] = entry[c.S_CELL] = 0
        elif tag == TR:
            entry[c.S_ROW] = entry[c.S_NODE]
        elif tag == TD or tag == TH:
            entry[c.S_CELL] = entry[c.S_NODE]
        elif tag == LI:
            above[c.S_ITEMS] += 1
            run[c.NUMBER] = above[c.S_ITEMS] if above[c.S_TAG] == OL else -1
    return depth + 1, count
