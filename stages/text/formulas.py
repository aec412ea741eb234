"""Formulas of a page: each comes once, as TeX where the page has it.

MathML carries a formula as presentation, and often as an annotation in TeX beside it, and renderers (KaTeX, MathJax)
draw it a second or third time in plain HTML; extracted as it stands, `E=mc2E = m c^{2}E=mc2`. TeX is taken before the
presentation, whose exponents and fractions fall flat as text. One pass over the markup, before it is parsed: nested
elements are those of the outermost, and what is not closed is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

RENDERED = [".katex-html", ".MathJax_Preview", ".MathJax > nobr", "mjx-math"]
"""CSS selectors of what renderers draw beside the MathML."""
_MATH = re.compile(r"<(/?)math(?:[\s/](?:[^<>\"']|\"[^\"]*+\"|'[^']*+')*+)?>", re.IGNORECASE)
_HIDDEN = re.compile(r"<span [^<>]*?class=[\"']mwe-math-mathml-[^<>]*+>", re.IGNORECASE)
_ANNOTATION = re.compile(
    r"<annotation(?:-xml)?\b([^<>]*+)>((?:[^<]++|<(?!/?annotation))*+)</annotation(?:-xml)?\s*+>", re.IGNORECASE
)
_TEX = re.compile(r"encoding\s*+=\s*+[\"']?(?:application/x-|text/x-|application/)?(?:la)?tex\b", re.IGNORECASE)


def once(html: str) -> str:
    """The page with one form of each formula."""
    parts, end = [], 0
    for start, stop in _formulas(html):
        parts += [_HIDDEN.sub("<span>", html[end:start]), _one_form(html[start:stop])]
        end = stop
    return "".join([*parts, html[end:]])


def _formulas(html: str) -> Iterator[tuple[int, int]]:
    """Where the outermost <math> elements stand."""
    depth = start = 0
    for tag in _MATH.finditer(html):
        if not tag[1]:
            start = start if depth else tag.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                yield start, tag.end()


def _one_form(math: str) -> str:
    for annotation in _ANNOTATION.finditer(math):
        if _TEX.search(annotation[1]) and annotation[2].strip():
            return f"<span>{annotation[2].strip()}</span>"
    return _ANNOTATION.sub("", math)
