"""The rules of a tokenizer as the kernels of `filters/text/kernels/words.py` take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.filters.text.tables import Table


class Rules(NamedTuple):
    """Special cases, (starts int64, characters of each of their tokens int64), what stands behind a digit (units,
    currencies), and (bytes of the longest case, characters of the longest of those)."""

    specials: Table
    cases: tuple[np.ndarray, np.ndarray]
    tails: Table
    most: tuple[int, int]
