"""Personal data to placeholders: e-mail and IP addresses, telephone numbers, payment cards, IBANs.

A placeholder says of what kind it was (`<email>`), so that a model learns where such data stands and none of it. What
is public by its nature goes too (the number of a newspaper's desk): no rule can tell a person's from an office's. Names
and street addresses stay. Recall and precision by kind, on real pages: docs/filters.md, `python -m benchmarks pii`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from gristmill.filters.edits.accounts import Span, cards, ibans
from gristmill.filters.edits.addresses import emails, ips
from gristmill.filters.edits.base import Edit, Edited
from gristmill.filters.edits.phones import phones
from gristmill.filters.text.docs import Docs

Kind = Literal["email", "iban", "card", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they have the first word, where two claim the same characters: those with check digits before
telephone numbers."""
_FINDERS: Mapping[str, Callable[[str], Iterator[Span]]] = MappingProxyType(
    {"email": emails, "iban": ibans, "card": cards, "ip": ips, "phone": phones}
)


class Personal(NamedTuple):
    """Personal data in a text: first character, one behind the last, and its kind."""

    start: int
    end: int
    kind: str


def personal(text: str, kinds: tuple[Kind, ...] = KINDS) -> list[Personal]:
    """Personal data of these kinds, in order, without overlaps: of two that overlap that of the earlier kind."""
    taken: list[Personal] = []
    for kind in KINDS:
        if kind in kinds:
            taken = _merged(taken, [Personal(start, end, kind) for start, end in sorted(set(_FINDERS[kind](text)))])
    return taken


def _merged(first: list[Personal], second: list[Personal]) -> list[Personal]:
    """Both in order, without those of `second` that overlap one before them. Each is in order and `first` without
    overlaps: one pass, however many there are."""
    merged, at, end = [], 0, 0
    for span in second:
        while at < len(first) and first[at].start < span.end:
            merged.append(first[at])
            end, at = max(end, first[at].end), at + 1
        if span.start >= end:
            merged.append(span)
            end = span.end
    return [*merged, *first[at:]]


@dataclass(frozen=True)
class Pii(Edit):
    """`kinds`: which become `<email>`, `<iban>`, `<card>`, `<ip>`, `<phone>`. Counts: how many of each."""

    kinds: tuple[Kind, ...] = KINDS

    name: ClassVar[str] = "pii"
    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"kinds: {', '.join(unknown)}; there are {', '.join(KINDS)}")
        if not self.kinds:
            raise ValueError("kinds: name at least one, or set pii to null")

    @property
    def counted(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if kind in self.kinds)

    def edit(self, docs: Docs) -> Edited:
        """The texts with a placeholder for each."""
        counted = self.counted
        counts = np.zeros((len(counted), len(docs)), np.int64)
        texts = []
        for row, text in enumerate(docs.strings):
            spans = personal(text, self.kinds)
            for span in spans:
                counts[counted.index(span.kind), row] += 1
            texts.append(replaced(text, spans))
        return Edited(
            pa.array(texts, pa.string()), pa.record_batch([pa.array(row) for row in counts], names=list(counted))
        )


def replaced(text: str, spans: list[Personal]) -> str:
    """The text with a placeholder in place of each of these spans, which are in order."""
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], f"<{span.kind}>"]
        at = span.end
    return "".join([*parts, text[at:]])
