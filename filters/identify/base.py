"""What the language filter asks of an identifier, whoever made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

LABELS = 2
"""Best labels of a line that are asked for, and take part in the mean over windows."""


class Identifier(Protocol):
    """Labels lines of text, without capitals and odd blanks, with languages, as `codes.py` has them."""

    @property
    def labels(self) -> frozenset[str]:
        """All that it can answer."""
        ...

    def best(self, lines: Sequence[str], /) -> list[Mapping[str, float]]:
        """Of each line the best labels, each with how sure the identifier is, 0 to 1; none where it knows nothing."""
        ...
