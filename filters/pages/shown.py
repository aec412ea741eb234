"""Shown: the text between the tags of a page, for who has to know of it before it is extracted.

One pass over the bytes (`shown_kernels.py`), some two tenths of a millisecond for a page of 100 KB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gristmill.filters.signatures.compiled import load

PROSE_BYTES = 80
"""UTF-8, that a run of text between two tags has at least to be prose: menus, titles and captions have fewer."""
LINKS = 30
"""Of 100 bytes of prose, how many may stand in links: more of them are a list."""


class Shown(NamedTuple):
    """All text of a page that stands between its tags, and of it what reads as prose, each in one line: UTF-8, with
    entities as the page has them."""

    text: bytes
    prose: bytes


@lru_cache(maxsize=1)
def _kernel() -> Callable[..., Any]:
    return load(Path(__file__).with_name("shown_kernels.py"))["shown_text"]


def shown_text(page: bytes) -> Shown:
    """The text of a page in HTML, UTF-8; empty where there is none."""
    text, prose = np.empty(len(page) + 1, np.uint8), np.empty(len(page) + 1, np.uint8)
    sizes = np.zeros(2, np.int64)
    _kernel()(np.frombuffer(page, np.uint8), np.array([PROSE_BYTES, LINKS]), text, prose, sizes)
    return Shown(*(out[:size].tobytes().rstrip() for out, size in zip((text, prose), sizes, strict=True)))


def warm() -> None:
    """Compiles the kernel, if it is not in the cache."""
    _kernel()
