"""Columns of the tables that the kernels fill, and the bits in them. All are int64, but features, which are float32.

A block is a run of text between two tags that start or end a line; a node is an element that does so. The block at
hand is counted in its own row, so that the row is the state of the pass.
"""

from __future__ import annotations

import numpy as np

Place = np.uintp
"""What the innermost loops look up by. Numba first compares a signed place with zero, since -1 is the last, and so
vectorizes no loop over such. An unsigned number with a signed one is a float to it."""

# Blocks: [blocks, BLOCK_COLUMNS].
(
    NODE,  # the node that it stands in
    START,  # its text is out[START:END], UTF-8
    END,
    CHARS,
    LINK_CHARS,  # of CHARS, those in links
    WORDS,  # runs of letters and digits; of Chinese and Japanese, half of the characters
    STOPS,  # of WORDS, stop words of some language
    ENDS,  # . ! ?
    COMMAS,  # , ; :
    DIGITS,
    CAPITALS,  # ASCII
    LETTERS,  # ASCII
    IDEOGRAPHS,  # characters from U+3000 to U+9FFF
    LINKS,
    BREAKS,  # single <br>
    LEXICON,  # bits: phrases of boilerplate (vocabulary.PHRASES)
    INHERITED,  # bits: lexicon of class, id and role (vocabulary.ATTRIBUTE_WORDS), its own and its ancestors'
    ANCESTORS,  # bits: IN_...
    TAG,
    DEPTH,  # nodes above it
    ROW,  # node of its <tr>, 0: none
    CELL,  # node of its <td> or <th>, 0: none
    ITEM,  # if it begins a list item: its number in an <ol>, -1 in an <ul>; else 0
    LAST,  # 4: it ends with one of ENDS, 5: of COMMAS, 0: otherwise (quotes and brackets behind them do not count)
    HASH,  # of its text in lower case
) = range(25)
BLOCK_COLUMNS = 25

# Nodes: [nodes, NODE_COLUMNS]. Row 0 is the page. A parent stands before its children.
(
    N_PARENT,  # -1: the page has none
    N_TAG,
    N_OWN,  # bits, as INHERITED: its own alone
    N_INHERITED,
    N_DEPTH,
    N_KIDS,  # nodes right below it
    N_CHARS,  # from here on sums over the blocks in it, at whatever depth
    N_LINK_CHARS,
    N_WORDS,
    N_STOPS,
    N_BLOCKS,
    N_LINKS,
    N_P_CHARS,  # in <p> alone
    N_SCORE,  # Readability's score of a parent, in tenths
) = range(14)
NODE_COLUMNS = 14

# The stack of open elements: [MAX_DEPTH, STACK_COLUMNS]. Row 0 is the page.
S_TAG, S_NODE, S_INHERITED, S_ANCESTORS, S_HIDDEN, S_ROW, S_CELL, S_ITEMS = range(8)
STACK_COLUMNS = 8

# The pass itself, beside the block at hand: [RUN_COLUMNS].
(
    PENDING,  # a space is due before the next character
    IN_WORD,
    WORD_HASH,
    PHRASE,  # state of the automaton of phrases
    NUMBER,  # ITEM of the next block
    BEYOND,  # open elements that the stack has no place for
    FORMULA_END,  # where in the output the last formula ends
    STEPS,  # bytes and stack entries that were looked at
) = range(8)
RUN_COLUMNS = 8

# Bits of ANCESTORS.
(
    IN_ARTICLE,
    IN_MAIN,
    IN_HEADER,
    IN_FOOTER,
    IN_NAV,
    IN_ASIDE,
    IN_LIST,
    IN_TABLE,
    IN_FORM,
    IN_FIGURE,
    IN_QUOTE,
    IN_PRE,
    IN_HEADING,
    IN_DEFINITIONS,
    IN_LINK,
) = (1 << bit for bit in range(15))
ANCESTOR_BITS = 14
"""Those that are features; of IN_LINK it is LINK_CHARS."""

# Properties of tags.
IS_BLOCK, IS_VOID, IS_RAW, IS_HIDDEN, CLOSES_P = (1 << bit for bit in range(5))

# Bits of N_OWN and INHERITED that have a meaning beside being features: places in vocabulary.ATTRIBUTE_WORDS.
ATTRIBUTE_BITS = 16
"""Those that are features."""
HIDDEN_BIT, RENDERED_BIT, FORMULA_BIT = 9, 15, 16

MAX_DEPTH = 512
"""Elements that are open at a time; browsers stop there too. Deeper ones count with the one that they stand in."""
MAX_BLOCKS = 1 << 16
"""Blocks and nodes of a page; what is beyond stands in the last one. Memory: 1 KB each."""

FEATURES = 170
"""Of a block as such; CONTEXT more for the second forest, from what the first says of the blocks around."""
CONTEXT = 17
WORD_WIDTH, PHRASE_WIDTH = 5, 6
"""Of the automata of words in attributes and of phrases: the binary logarithm of how many classes a state's row has."""
LANES = 64
"""Blocks that a question of a forest is asked about at a time: a loop of so many is vectorized, one of 32 unrolled."""
DE_BRUIJN = 0x077CB531
"""Times a single bit, it has another number in bits 27 to 31 for each of the 32 (Leiserson, Prokop, Randall 1998)."""
SPARE = 16
"""Columns of a table of features that nobody uses: one line of a cache, so that the rows of one block do not all fall
into the same few sets of it."""


def width_of(blocks: int) -> int:
    """Columns of a table of features: a multiple of LANES, and SPARE."""
    return -(-blocks // LANES) * LANES + SPARE
