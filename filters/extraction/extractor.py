"""From a page to its main text: segment, features, forests, assemble; or to all of its text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gristmill.filters.extraction import columns as c
from gristmill.filters.extraction import vocabulary
from gristmill.filters.extraction.model import Forest, Model, shipped_model
from gristmill.filters.extraction.tables import tables
from gristmill.filters.signatures.compiled import load

VERSION = 1
"""Raised whenever the same page and the same model can give another text."""
HERE = Path(__file__).parent
SHARED = tuple(HERE / name for name in ("columns.py", "vocabulary.py"))
SEGMENT = tuple(HERE / name for name in ("text_kernels.py", "markup_kernels.py", "tree_kernels.py"))


class Kernels(NamedTuple):
    """Numba dispatchers of one signature each, which release the GIL. What they do: the files of their names."""

    segment: Callable[..., None]
    features: Callable[..., None]
    grow: Callable[..., None]
    context: Callable[..., None]
    keep: Callable[..., None]
    assemble: Callable[..., None]


class Blocks(NamedTuple):
    """A page in blocks. `rows` and `nodes`: int64 [blocks or nodes, columns of `columns`]; `text`: uint8, UTF-8;
    `steps`: bytes and stack entries that the pass looked at."""

    rows: np.ndarray
    nodes: np.ndarray
    text: np.ndarray
    steps: int


@lru_cache(maxsize=1)
def kernels() -> Kernels:
    """The kernels of this process, loaded or compiled at the first call."""
    return Kernels(
        **load(HERE / "segment_kernels.py", uses=(*SHARED, *SEGMENT)),
        **load(HERE / "feature_kernels.py", uses=(*SHARED, HERE / "node_kernels.py")),
        **load(HERE / "forest_kernels.py", uses=SHARED),
    )


def main_text(page: str, items: bool = True) -> str:
    """The main text of a page, "" where no block passes for it. `items`: marks those of lists."""
    blocks = segment(page.encode("utf-8", "replace"))
    if not len(blocks.rows):
        return ""
    return assembled(blocks, judged(blocks, shipped_model()), items)


def whole_text(page: str, items: bool = True) -> str:
    """All text of a page that is shown; of one that shows none, what it hides."""
    content = page.encode("utf-8", "replace")
    for shows_hidden in (False, True):
        blocks = segment(content, shows_hidden)
        if len(blocks.rows):
            return assembled(blocks, np.ones(len(blocks.rows), np.bool_), items)
    return ""


def segment(content: bytes, shows_hidden: bool = False) -> Blocks:
    """A page's bytes, UTF-8, in blocks. `shows_hidden`: nothing is taken for hidden but scripts and styles."""
    known = tables()
    tags = content.count(b"<") + 2
    rows = np.empty((min(tags, c.MAX_BLOCKS) + 1, c.BLOCK_COLUMNS), np.int64)
    nodes = np.empty((min(tags, c.MAX_BLOCKS), c.NODE_COLUMNS), np.int64)
    text = np.empty(len(content) + 4 * tags + 64, np.uint8)
    run, sizes = np.zeros(c.RUN_COLUMNS, np.int64), np.zeros(3, np.int64)
    stack = np.empty((c.MAX_DEPTH, c.STACK_COLUMNS), np.int64)
    kernels().segment(
        (np.frombuffer(content, np.uint8), np.frombuffer(content, np.int64, len(content) // 8)),
        text,
        rows,
        nodes,
        run,
        tuple(known.tags),
        (known.properties, known.ancestors),
        tuple(known.attributes),
        (tuple(known.phrases), tuple(known.stop_words), tuple(known.entities)),
        int(shows_hidden),
        (stack, np.zeros(len(vocabulary.TAGS), np.int64), np.zeros(len(vocabulary.TAGS), np.bool_)),
        sizes,
    )
    return Blocks(rows[: sizes[0]], nodes[: sizes[1]], text[: sizes[2]], int(run[c.STEPS]))


def features(blocks: Blocks) -> np.ndarray:
    """float32 [FEATURES + CONTEXT, at least blocks], a row each, those of the context not yet written; sums up in
    `nodes`, so once a page."""
    table = np.empty((c.FEATURES + c.CONTEXT, c.width_of(len(blocks.rows))), np.float32)
    kernels().features(blocks.rows, blocks.nodes, tables().categories, table)
    return table


def judged(blocks: Blocks, model: Model) -> np.ndarray:
    """Whether each block is main text, bool [blocks]. Sums up in `nodes`, so once a page."""
    table, chances = features(blocks), np.empty(len(blocks.rows))
    add_context(blocks, model.first, table, chances)
    grown(table, model.second, chances)
    return kept(blocks, chances, model.share)


def grown(table: np.ndarray, forest: Forest, chances: np.ndarray) -> None:
    """Writes what a forest says of each block: its chance to be main text, float64 [blocks]. table: of `features`."""
    kernels().grow(table, tuple(forest.conditions), chances)


def add_context(blocks: Blocks, forest: Forest, table: np.ndarray, chances: np.ndarray) -> None:
    """Writes what a first forest says of each block, and into `table` what it says of the blocks around."""
    grown(table, forest, chances)
    kernels().context(blocks.rows, blocks.nodes, chances, table)


def kept(blocks: Blocks, chances: np.ndarray, share: float) -> np.ndarray:
    """Which blocks are kept, bool [blocks]: those with at least `share` of what the page's surer half has."""
    keeps = np.empty(len(chances), np.bool_)
    kernels().keep(blocks.rows, chances, share, keeps)
    return keeps


def assembled(blocks: Blocks, keeps: np.ndarray, items: bool = True) -> str:
    """The text of the blocks that are kept, bool [blocks]."""
    out, sizes = np.empty(len(blocks.text) + 16 * len(blocks.rows) + 64, np.uint8), np.zeros(1, np.int64)
    kernels().assemble(blocks.rows, keeps, blocks.text, int(items), out, sizes)
    return out[: sizes[0]].tobytes().decode("utf-8", "replace")


def warm() -> None:
    """Compiles the kernels, if they are not in the cache, and builds the tables."""
    kernels()
    tables()
