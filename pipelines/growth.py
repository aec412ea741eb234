"""How a dataset that grew night by night differs from one run over everything, counted and said.

Versions are immutable, so an earlier survivor stays: two clusters that a later document joins keep both survivors
(one run would keep one of them), and a later document that would have been the better survivor is dropped. Both are
written down when they happen (stages/clusters.py, stages/exact.py), so the difference is known without another run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from lake.manifest import Manifest


def divergence_counts(base: Manifest | None, exact_outranked: int, tables: Iterable[pa.Table]) -> dict[str, Any]:
    """`growth` for the statistics of a version that extends another; nothing for one that does not.

    `tables`: all divergence of this dataset. `joined`: survivors more than one run would have kept.
    """
    if base is None:
        return {}
    pairs, outranked = set(), set()
    for table in tables:
        for row in table.to_pylist():
            if row["what"] == "joined":
                pairs.add((row["survivor"], row["other"]))
            else:
                outranked.add(row["survivor"])
    before = base.statistics.get("growth", {})
    return {
        "growth": {
            "joined": _rank(pairs),
            "outranked": len(outranked),
            "exact_outranked": exact_outranked + int(before.get("exact_outranked", 0)),
        }
    }


def _rank(pairs: Iterable[tuple[str, str]]) -> int:
    """How many of these pairs join two sets that were apart until then."""
    parent: dict[str, str] = {}

    def find(one: str) -> str:
        while parent.setdefault(one, one) != one:
            parent[one] = one = parent[parent[one]]
        return one

    joins = 0
    for a, b in sorted(pairs):
        left, right = find(a), find(b)
        if left != right:
            parent[left] = right
            joins += 1
    return joins


def growth_report(manifest: Manifest) -> str | None:
    """One sentence on how this version differs from one run over all its inputs; None where it extends nothing."""
    growth = manifest.statistics.get("growth")
    if growth is None:
        return None
    caution = (
        "; repeated paragraphs are judged by what was known each night" if manifest.recipe.get("paragraphs") else ""
    )
    if not any(growth.values()):
        return f"grown night by night; one run over everything would have kept the same records{caution}"
    parts = []
    if growth["joined"]:
        parts.append(
            f"{growth['joined']:,} fewer (a later document joined clusters whose survivors were both kept by then)"
        )
    if growth["outranked"]:
        parts.append(
            f"another one of {growth['outranked']:,} clusters (the better one came later, and the earlier stays)"
        )
    if growth["exact_outranked"]:
        parts.append(f"the same text under another id {growth['exact_outranked']:,} times")
    return f"grown night by night; one run over everything would have kept {', '.join(parts)}{caution}"
