"""Texts from which problems are to be written: which of them are about mathematics, and which part of one to show.

Signs of mathematics are TeX commands and symbols, equations, and words of the subject; pages of news have two in a
thousand words, worked solutions some hundred. Of a long page the part is shown that has most of them, in whole
paragraphs, since a prompt holds a few thousand characters. Linear in the text.
Source: OpenWebMath (arXiv 2310.06786) finds pages by TeX and by such words, too.
"""

from __future__ import annotations

import re

_SIGN = re.compile(
    r"\\[a-zA-Z]{2,20}|[∑∫√≤≥≠±∞∂∇∈∀∃⇒×÷]"
    r"|[\w)\]}][ \t]?[=<>][ \t]?[-\w(\[{\\√]"
    r"|\b(?:theorem|lemma|proof|equations?|polynomials?|integers?|fractions?|algebra|geometry|triangles?|probability"
    r"|derivatives?|integrals?|matrix|vectors?|arithmetic|logarithms?|mathematics|maths?|multipl(?:y|ied|ication)"
    r"|divid(?:e|ed)|square roots?)\b",
    re.IGNORECASE,
)


def signs(text: str) -> int:
    """How many signs of mathematics a text has."""
    return sum(1 for _ in _SIGN.finditer(text))


def density(text: str) -> float:
    """Signs of mathematics in a thousand words; 0 of an empty text."""
    words = len(text.split())
    return 1000 * signs(text) / words if words else 0.0


def excerpt(text: str, longest: int) -> str:
    """The paragraphs in a row with most signs of mathematics, `longest` characters at most: of equals the longest, the
    first of these."""
    if len(text) <= longest:
        return text.strip()
    parts = [part[:longest] for line in text.splitlines() if (part := line.strip())]
    counts = [signs(part) for part in parts]
    first = size = count = 0
    best, most = (0, 1), (-1, 0)
    for end, part in enumerate(parts, 1):
        size, count = size + len(part) + 1, count + counts[end - 1]
        while size - 1 > longest:
            size, count, first = size - len(parts[first]) - 1, count - counts[first], first + 1
        if (count, size) > most:
            best, most = (first, end), (count, size)
    return "\n".join(parts[slice(*best)])
