"""Decontamination of problems and chains: what gives a held-out item away is not sampled, and not trained on.

A text is contaminated if it is a held-out one or its prompt, holds most of one, or shares n words in a row with one
(`filters.overlap`). Problems are compared before anything is drawn for them; chains, behind their problems, when they
are selected, since a model can write down an evaluation item that it has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.filters.overlap import Finder, Overlap, Texts
from gristmill.lake.store.base import Store
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.gates.held_out import HeldOutIndex
from gristmill.stages.generate.screen import screened
from gristmill.stages.generate.tables import Posing

NAME = "contaminated"
IN_PROBLEM = f"{NAME}.problem"


@dataclass(frozen=True)
class Decontaminate:
    """`against`: exact versions (NAME@vN) of held-out documents or samples; `overlap`: what gives one of them away."""

    against: tuple[str, ...] = ()
    overlap: Overlap = field(default_factory=Overlap)

    def __post_init__(self) -> None:
        if not self.against or len(set(self.against)) < len(self.against):
            raise ValueError(f"against={list(self.against)}: name at least one version, and each once")


class Contamination:
    """Looks texts up in an index of held-out ones."""

    def __init__(self, store: Store, index: HeldOutIndex, overlap: Overlap) -> None:
        items, held_out = index.load(store)
        self._names = [f"{v} {i}" for v, i in zip(items["version"].to_pylist(), items["id"].to_pylist(), strict=True)]
        self._held_out, self._finder = held_out, Finder(held_out, overlap)

    def items(self, texts: Sequence[str], excerpts: Sequence[str] | None = None) -> dict[int, str]:
        """Row of a contaminated text -> a held-out item that it gives away, as `gsm8k@v1 ID`. `excerpts`: a part of
        each text, which is compared whole as well."""
        parts = () if excerpts is None else (pa.array(list(excerpts), pa.string()),)
        matches = self._finder.find(Texts(pa.array(list(texts), pa.string()), parts))
        of_gram = self._held_out.items[self._held_out.starts[matches.grams]] if len(matches.grams) else np.zeros(0, int)
        by_row: dict[int, str] = {}
        for rows, items in (
            (matches.gram_rows, of_gram),
            (matches.near_rows, matches.near_items),
            (matches.text_rows, matches.text_items),
        ):
            by_row |= {int(row): self._names[int(item)] for row, item in zip(rows, items, strict=True)}
        return by_row


@dataclass(frozen=True)
class FindInput:
    """The problems of a chunk, and what is held out."""

    posing: Posing
    index: HeldOutIndex


@dataclass(frozen=True)
class FindContaminated(Stage[FindInput]):
    """Outputs `screened`, verdicts on problems, and fates; the value of a dropped one names the item."""

    name: ClassVar[str] = "find_contaminated"
    VERSION: ClassVar[int] = 1

    overlap: Overlap = field(default_factory=Overlap)

    def run(self, store: Store, work: Work[FindInput]) -> Outcome:
        """Facts: Passed. Raises DamagedObject."""
        payload = work.payload
        rows = payload.posing.rows(store, ["text"])
        items = Contamination(store, payload.index, self.overlap).items(rows["text"].to_pylist())
        return screened(store, work, rows, IN_PROBLEM, items)


def find_works(stage: FindContaminated, posings: Sequence[Posing], index: HeldOutIndex) -> Iterator[Work[FindInput]]:
    """One Work a chunk."""
    for posing in posings:
        inputs = (*posing.digests, *index.digests)
        yield Work(stage, inputs, FindInput(posing, index), posing.received, posing.chunk.label)
