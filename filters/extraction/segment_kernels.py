"""The pass over a page's bytes: its text in blocks, each with counts, and the nodes that they stand in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import register_jitable

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction import markup_kernels as markup
from gristmill.filters.extraction import text_kernels as text
from gristmill.filters.extraction import tree_kernels as tree
from gristmill.filters.extraction.vocabulary import ID

SCRIPT, STYLE, PLAINTEXT = ID["script"], ID["style"], ID["plaintext"]


@register_jitable
def begin_block(row: Any, run: Any, end: Any) -> None:
    """An empty row for the text that comes next."""
    for column in range(c.BLOCK_COLUMNS):
        row[column] = 0
    row[c.START] = end
    row[c.HASH] = text.FNV_START
    run[c.PENDING] = run[c.IN_WORD] = run[c.PHRASE] = 0
    run[c.WORD_HASH] = text.FNV_START


@register_jitable
def end_block(blocks: Any, count: Any, nodes: Any, top: Any, run: Any, out: Any, end: Any, tables: Any) -> Any:
    """Closes the block at hand, which is none without a character. Returns (how many there are, the output's end).

    In the last row that there is, all further text goes on as one block, in lines.
    """
    row = blocks[count]
    phrases, stop_words, _ = tables
    while end > row[c.START] and text.KINDS[out[end - 1]] == text.WHITE:
        end -= 1
    if row[c.CHARS] == 0 or end == row[c.START]:
        begin_block(row, run, row[c.START])
        return count, row[c.START]
    text.end_word(row, run, stop_words)
    row[c.LEXICON] |= text.ended(phrases, np.int64(phrases[0][run[c.PHRASE] + phrases[1][text.SPACE]]))
    node = top[c.S_NODE]
    row[c.NODE], row[c.END], row[c.TAG], row[c.DEPTH] = node, end, nodes[node, c.N_TAG], nodes[node, c.N_DEPTH]
    row[c.INHERITED], row[c.ANCESTORS] = top[c.S_INHERITED], top[c.S_ANCESTORS]
    row[c.ROW], row[c.CELL], row[c.ITEM] = top[c.S_ROW], top[c.S_CELL], run[c.NUMBER]
    run[c.NUMBER] = 0
    if count == len(blocks) - 1:
        out[end] = text.NEWLINE
        run[c.PENDING] = 0
        return count, end + 1
    row[c.WORDS] += row[c.IDEOGRAPHS] // 2
    begin_block(blocks[count + 1], run, end)
    return count + 1, end


@register_jitable
def line_break(data: Any, at: Any, row: Any, run: Any, out: Any, end: Any, tables: Any, is_pre: Any) -> Any:
    """A <br> that ends at `at`. Returns (the output's end, whether it ends the block: a second one follows)."""
    if is_pre:
        text.end_word(row, run, tables[1])
        out[end] = text.NEWLINE
        return end + 1, False
    if end == row[c.START]:
        return end, False
    while at < len(data) and text.KINDS[data[at]] == text.WHITE:
        at += 1
    if at + 2 < len(data) and data[at] == text.LESS and text.LOWER[data[at + 1]] == 98:
        if text.LOWER[data[at + 2]] == 114:
            return end, True
    text.end_word(row, run, tables[1])
    run[c.PENDING] = 0
    if out[end - 1] != text.NEWLINE:
        out[end] = text.NEWLINE
        end += 1
    row[c.BREAKS] += 1
    return end, False


@register_jitable
def formula(
    page: Any,
    tag: Any,
    span: Any,
    attributes_read: Any,
    row: Any,
    run: Any,
    out: Any,
    end: Any,
    tables: Any,
    automaton: Any,
) -> Any:
    """The formula that an <img>, <math> or <script> is, once. Returns (where reading goes on, the output's end).

    span: (end of the start tag, its end tag or 0). attributes_read: what `markup.read_attributes` returned.
    """
    data, (at, close) = page[0], span
    _, bits, start, stop, is_tex, is_display, _, _ = attributes_read
    if tag == tree.IMG:
        is_formula = start < stop and ((bits >> c.FORMULA_BIT) & 1 or markup.has_command(data, start, stop))
        if is_formula and run[c.FORMULA_END] != end:  # the picture behind MathML shows the same
            end = text.put_formula(data, start, stop, row, run, out, end, tables, False)
        return at, end
    if tag == SCRIPT:
        if is_tex and run[c.FORMULA_END] != end:
            end = text.put_formula(data, at, close, row, run, out, end, tables, is_display)
        return close, end
    tex, tex_end = markup.annotation_of(page, at, close, automaton)
    if tex == tex_end:
        tex, tex_end = start, stop  # alttext
    if tex < tex_end:
        written = text.put_formula(data, tex, tex_end, row, run, out, end, tables, is_display)
        if written != end:
            run[c.FORMULA_END] = written
            return close, written
    return at, end


def segment(
    page: Any,
    out: Any,
    blocks: Any,
    nodes: Any,
    run: Any,
    tags: Any,
    looks: Any,
    attributes: Any,
    tables: Any,
    shows_hidden: Any,
    scratch: Any,
    sizes: Any,
) -> None:
    """Fills `out` with the text, `blocks` and `nodes` with what `columns` says of them, `sizes` with (blocks, nodes,
    bytes of text).

    page: in UTF-8, uint8 [bytes] and the same as int64 [bytes // 8]. looks: properties and ancestors of tags. tables:
    phrases, stop words, entities. shows_hidden: 1: nothing is taken for hidden. `run` is int64 [RUN_COLUMNS], zeros;
    its STEPS count what was done. scratch: the stack, int64 [MAX_DEPTH, STACK_COLUMNS]; how often each tag is open, and
    whether its end was looked for in vain, zeros [tags].

    long: the loop over tags, whose state lives in registers.
    """
    data, (properties, ancestors) = page[0], looks
    stack, counts, never_closed = scratch
    for column in range(c.STACK_COLUMNS):
        stack[0, column] = 0
    for column in range(c.NODE_COLUMNS):
        nodes[0, column] = 0
    nodes[0, c.N_PARENT] = -1
    at, end, depth, count, node_count, is_plain = 0, 0, 1, 0, 1, False
    begin_block(blocks[0], run, 0)
    while at < len(data):
        top = stack[depth - 1]
        is_shown = top[c.S_HIDDEN] == 0
        is_pre = (top[c.S_ANCESTORS] & c.IN_PRE) != 0
        before = at
        if is_shown:
            is_link = (top[c.S_ANCESTORS] & c.IN_LINK) != 0
            at, end = text.read_text(data, at, blocks[count], run, out, end, tables, is_link, is_pre, is_plain)
        else:
            at = markup.position(page, at, text.LESS)
        run[c.STEPS] += at - before
        if at + 1 >= len(data):
            break
        # A tag, a comment, or a "<" that is neither.
        at += 1
        before = at
        is_closing = data[at] == markup.SLASH and at + 1 < len(data)
        name = at + 1 if is_closing else at
        if text.KINDS[data[name]] != text.LETTER:
            if is_closing or data[at] == markup.EXCLAMATION or data[at] == markup.QUESTION:
                at = markup.after_comment(page, at)
                run[c.STEPS] += at - before
            elif is_shown:
                end = text.put_less(blocks[count], run, out, end, tables)
            continue
        name_end, tag = markup.tag_name(data, name, tags)
        look = properties[tag]
        bits, closes_itself = np.int64(0), False
        if is_closing:
            at = markup.skip_attributes(page, name_end)
        else:
            attributes_read = markup.read_attributes(page, name_end, attributes)
            at, bits, closes_itself = attributes_read[0], attributes_read[1], attributes_read[7]
            is_math = tag == tree.MATH and counts[tree.MATH] == 0
            close = np.int64(0)
            if (look & c.IS_RAW or is_math) and not never_closed[tag] and not closes_itself:
                close, searched = markup.closing_tag(page, min(at, len(data)), name, name_end, is_math)
                never_closed[tag] = searched == len(data)
                run[c.STEPS] += searched - min(at, len(data))
            if is_shown and (tag == tree.IMG or (tag == SCRIPT and close) or (is_math and 0 < close < len(data))):
                at, end = formula(
                    page, tag, (at, close), attributes_read, blocks[count], run, out, end, tables, attributes
                )
            if look & c.IS_RAW:
                if close and (close < len(data) or tag == SCRIPT or tag == STYLE):
                    at = close  # type: ignore[assignment]  # numba knows one integer
                run[c.STEPS] += at - before
                continue
        run[c.STEPS] += at - before
        if tag == PLAINTEXT and not is_closing:
            is_plain = True
        ends_block = (look & c.IS_BLOCK) != 0
        if tag == tree.BR and is_shown:
            end, ends_block = line_break(data, at, blocks[count], run, out, end, tables, is_pre)
        if ends_block:
            count, end = end_block(blocks, count, nodes, top, run, out, end, tables)
        if tag == 0 or look & c.IS_VOID:
            continue
        if is_closing:
            depth = tree.close_element(tag, stack, depth, counts, properties, run)
            if tag == tree.LI or tag == tree.UL or tag == tree.OL:
                run[c.NUMBER] = 0
            continue
        depth = tree.close_implied(tag, stack, depth, counts, properties, run)
        if closes_itself and not look & c.IS_BLOCK and tag != tree.A:
            continue
        blocks[count, c.LINKS] += tag == tree.A
        depth, node_count = tree.open_element(
            tag, bits, stack, depth, counts, nodes, node_count, (properties, ancestors, shows_hidden), run
        )
    count, end = end_block(blocks, count, nodes, stack[depth - 1], run, out, end, tables)
    is_last_used = count == len(blocks) - 1 and blocks[count, c.CHARS] > 0
    sizes[0], sizes[1], sizes[2] = count + is_last_used, node_count, end


def _array(dtype: types.Type, dimensions: int = 1, readonly: bool = True) -> types.Array:
    return types.Array(dtype, dimensions, "C", readonly=readonly)


_COLUMN = _array(types.int64)
_WORDS = types.UniTuple(_COLUMN, 2)
_AUTOMATON = types.Tuple((_array(types.uint16), _array(types.uint8), _COLUMN, types.int64))
# One signature: numba's cache is free of races only as long as a function has one compiled form.
SIGNATURES = {
    "segment": types.void(
        types.Tuple((_array(types.uint8), _COLUMN)),
        _array(types.uint8, readonly=False),
        _array(types.int64, 2, readonly=False),
        _array(types.int64, 2, readonly=False),
        _array(types.int64, readonly=False),
        _WORDS,
        types.UniTuple(_COLUMN, 2),
        _AUTOMATON,
        types.Tuple((_AUTOMATON, _WORDS, _WORDS)),
        types.int64,
        types.Tuple(
            (
                _array(types.int64, 2, readonly=False),
                _array(types.int64, readonly=False),
                _array(types.boolean, readonly=False),
            )
        ),
        _array(types.int64, readonly=False),
    )
}
OPTIONS = {"_nrt": False, "forceinline": True}
"""Nothing is allocated, so no references are counted; and functions are no calls. Counting them and passing arrays on,
which are nine numbers each, would be most of the time."""
