"""Words of any language, without a tokenizer of its own: letters and digits in a row are a word, whatever else is a
token by itself, and so is each letter of a script that puts no space between words (Chinese, Japanese, Thai, ...). One
mark between two letters or digits is part of the word (3.500,00, Baden-Baden, z.B); an apostrophe between letters ends
one (l'|eau).

No special cases, no URLs, nothing that a neighbour could change: `Plain` says so to the memo (filters/text/words.py),
which knows English otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np

from gristmill.filters.text.rules import Rules
from gristmill.filters.text.tables import table


class Plain:
    """What `English` is for English."""

    def __init__(self) -> None:
        starts, sizes = np.zeros(1, np.int64), np.zeros(0, np.int64)
        starts.flags.writeable = sizes.flags.writeable = False
        self.rules = Rules(table([]), (starts, sizes), table([]), (0, 0))
        self.pairs: frozenset[tuple[str, str]] = frozenset()
        self.changing: frozenset[str] = frozenset()
        self.signs: frozenset[str] = frozenset()
        self.reach = 0

    def is_url(self, core: str) -> bool:
        """Never asked: no run is."""
        return self._unasked(core)

    def merged(self, tokens: Sequence[str | None], owners: Sequence[int]) -> list[tuple[str, int]]:
        """Never asked: nothing merges."""
        return self._unasked(tokens, owners)

    def marked(self, run: str, tokens: Iterable[str]) -> bool:
        """Never asked: no neighbour changes a run."""
        return self._unasked(run, tokens)

    def seam(self, left: str, right: str) -> bool:
        """Never asked: no run is marked."""
        return self._unasked(left, right)

    def _unasked(self, *asked: object) -> NoReturn:
        raise AssertionError(f"plain words have no special cases, but {asked} was asked for")
