"""How many of the planted pairs of near duplicates are found, and how many theory says have to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.dedup_chain import SETTINGS
from benchmarks.dedup_material import JACCARDS, Pair
from benchmarks.harness import Figure, Row

OURS, THEIRS = "gristmill", "datatrove"
"""Names of the two chains."""


def recalls(pairs: Sequence[Pair], clusters: Sequence[Sequence[int]]) -> dict[float, float]:
    """Of the planted pairs at each similarity the share that ended in one cluster."""
    name = {member: n for n, members in enumerate(clusters) for member in members}
    hits: dict[float, list[bool]] = {planted: [] for planted in JACCARDS}
    for pair in pairs:
        hits[pair.planted].append(name.get(pair.head, -1) == name.get(pair.copy, -2))
    return {planted: float(np.mean(in_one_cluster)) for planted, in_one_cluster in hits.items() if in_one_cluster}


def theory(pairs: Sequence[Pair]) -> dict[float, tuple[float, int]]:
    """The mean chance of the pairs as measured, and how many they are."""
    chances: dict[float, list[float]] = {planted: [] for planted in JACCARDS}
    for pair in pairs:
        chances[pair.planted].append(1 - (1 - pair.jaccard**SETTINGS.rows) ** SETTINGS.bands)
    return {planted: (float(np.mean(values)), len(values)) for planted, values in chances.items() if values}


def recall_rows(agreed: Mapping[str, Any], planted: float = 0.8) -> list[Row]:
    """The recall of both at one planted similarity."""
    chance, n = agreed["theory"][planted]
    error = 100 * (chance * (1 - chance) / n) ** 0.5
    basis = f"{n} pairs; in theory {100 * chance:.1f} %"
    percent = {name: 100 * agreed["recall"][name][planted] for name in (OURS, THEIRS)}
    return [
        Row(
            f"recall at Jaccard {planted}, {name} (spread: standard error)",
            Figure(recall, recall - error, recall + error),
            "%",
            basis,
        )
        for name, recall in percent.items()
    ]


def recall_note(agreed: Mapping[str, Any], planted: float) -> str:
    """The recall of both at one planted similarity, in words."""
    recall, reference = (agreed["recall"][name][planted] for name in (OURS, THEIRS))
    chance, n = agreed["theory"][planted]
    return f"{n} pairs at {planted}: ours {recall:.3f}, datatrove {reference:.3f}, in theory {chance:.3f}"
