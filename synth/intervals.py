"""The 95% interval of a share, for what is counted of samples. Source: Wilson 1927, the score interval."""

from __future__ import annotations

from math import sqrt

Z = 1.959964
"""Of a 95% interval."""


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The ends of the interval of the share `hits` of `of`, which is at least 1."""
    p, z2 = hits / of, Z * Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
