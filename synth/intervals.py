"""The 95% interval of a share, for what is counted of samples. Source: Wilson 1927, the score interval; for counts that
come in clusters Korn and Graubard 1998, the same with the number of draws that they are worth."""

from __future__ import annotations

from math import sqrt

Z = 1.959964
"""Of a 95% interval."""


def clustered(inside: float, squares_inside: float, total: float, squares: float) -> tuple[float, float]:
    """The ends of the interval of the share `inside` of `total`, where what is counted comes in clusters, each of which
    is inside or not: samples by problem. `squares_inside`, `squares`: sums of the squares of clusters' counts, inside
    and of all. `total` is above 0.

    The share is worth so many independent draws as have its variance, which is that of a ratio, linearised; a share of
    0 or 1, whose variance tells nothing, as many as Kish's effective size says.
    """
    share = inside / total
    variance = ((1 - share) ** 2 * squares_inside + share**2 * (squares - squares_inside)) / total**2
    worth = share * (1 - share) / variance if 0 < share < 1 else total**2 / squares
    return wilson(share * worth, worth)


def wilson(hits: float, of: float) -> tuple[float, float]:
    """The ends of the interval of the share `hits` of `of`, which is above 0."""
    p, z2 = hits / of, Z * Z
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
