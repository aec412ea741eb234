"""Identifiers that are packages of their own: CLD2, eldc, heliport, where they are installed.

Each has its own notion of how sure it is, put on 0 to 1 here; a score that is right for one says nothing about another.
Source: pycld2 0.42 (CLD2 V2.0), eldc 0.4, heliport 1.0; what they answer is in their help texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from gristmill.filters.identify.base import LABELS
from gristmill.filters.identify.codes import short_code

_NO_LANGUAGE = frozenset({"un", "und", "zxx"})
_ENDS_OF_PLANES = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_UNREADABLE = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_ENDS_OF_PLANES}]")
"""Controls and what is no character: CLD2 refuses a line for them as if it were no UTF-8, C ends it at a zero."""


def readable(lines: Sequence[str]) -> list[str]:
    """Lines with blanks in place of what packages written in C and C++ stumble over."""
    return [_UNREADABLE.sub(" ", line) for line in lines]


def named(scores: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Scores by codes as `language.keep` has them; those of one code are added, what is no language is left out."""
    by_code: dict[str, float] = {}
    for label, score in scores:
        if label not in _NO_LANGUAGE and not label.startswith("xx"):
            code = short_code(label)
            by_code[code] = by_code.get(code, 0.0) + score
    return by_code


class Cld2:
    """Google's CLD2. The score of a language is its share of the line's bytes."""

    def __init__(self, module: Any) -> None:
        self._module = module

    @cached_property
    def labels(self) -> frozenset[str]:
        """All that it can answer."""
        codes = dict(self._module.LANGUAGES)
        return frozenset(named([(codes[language], 0.0) for language in self._module.DETECTED_LANGUAGES]))

    def best(self, lines: Sequence[str]) -> list[Mapping[str, float]]:
        """As in `Identifier`."""
        return [self._of_line(line) for line in readable(lines)]

    def _of_line(self, line: str) -> Mapping[str, float]:
        _, _, details = self._module.detect(line, isPlainText=True, bestEffort=True)
        return named([(code, percent / 100) for _, code, percent, _ in details])


class Eldc:
    """Nito-ELD, in C. The score of a language is its own, of n-grams that are the language's."""

    def __init__(self, module: Any) -> None:
        module.init()
        self._module, self._detector = module, module.instance()
        self._detector.set_scores(LABELS)

    @cached_property
    def labels(self) -> frozenset[str]:
        """All that it can answer."""
        return frozenset(named([(code, 0.0) for code in self._module.LANGUAGES]))

    def best(self, lines: Sequence[str]) -> list[Mapping[str, float]]:
        """As in `Identifier`."""
        return [named([*self._detector.detect_details(line).scores.items()]) for line in readable(lines)]


class Heliport:
    """HeLI-OTS, in Rust. It answers with the mean of -log10 of the probabilities of a line's words; the score of each
    of the two best is its share of both probabilities."""

    def __init__(self, module: Any) -> None:
        self._identifier = module.Identifier()

    @cached_property
    def labels(self) -> frozenset[str]:
        """All that it can answer."""
        return frozenset(named([(label, 0.0) for label in self._identifier.get_confidence_all()]))

    def best(self, lines: Sequence[str]) -> list[Mapping[str, float]]:
        """As in `Identifier`."""
        return [self._of_line(line) for line in readable(lines)]

    def _of_line(self, line: str) -> Mapping[str, float]:
        costs = self._identifier.identify_topk_with_score(line, LABELS)
        least = min((cost for _, cost in costs), default=0.0)
        shares = [(label, 10.0 ** (least - cost)) for label, cost in costs]
        whole = sum(share for _, share in shares)
        return named([(label, share / whole) for label, share in shares])
