"""How a dataset that grew by increments differs from one run over everything, in numbers and in words.

Versions are immutable, so an earlier survivor stays: an increment may keep what one run would have dropped, and drop
what it would have kept. Both are noticed when they happen (stages/clusters/select_survivors.py, stages/dedup/exact.py),
so the difference is known without another run. It is known for one recipe: where versions on the way were made by
others, the report says that instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gristmill.lake.versions.manifest import Manifest
from gristmill.stages.clusters.divergence import DROPPED_HERE, KEPT_HERE

CHANGES_NAMED = 4


def divergence_counts(base: Manifest | None, exact_outranked: int, divergence: pa.Table) -> dict[str, Any]:
    """`growth` for the statistics of a version that extends another; nothing for one that does not.

    `divergence`: of this version (stages/clusters/divergence.py). `kept_here`: records that one run would have dropped
    as near duplicates; `dropped_here`: records that it would have kept.
    """
    if base is None:
        return {}
    ids = {KEPT_HERE: set[str](), DROPPED_HERE: set[str]()}
    for row in divergence.to_pylist():
        ids[row["what"]].add(row["survivor"] if row["what"] == KEPT_HERE else row["other"])
    before = base.statistics.get("growth", {})
    counts = {what: len(records) for what, records in ids.items()}
    return {"growth": {**counts, "exact_outranked": exact_outranked + int(before.get("exact_outranked", 0))}}


def growth_report(manifest: Manifest, changed: Sequence[str] = ()) -> str | None:
    """One sentence on how this version differs from one run over all its inputs; None where it extends nothing.

    `changed`: in what its ancestors were made otherwise (`lake.versions.recipes.changed_on_the_way`).
    """
    growth = manifest.statistics.get("growth")
    if growth is None:
        return None
    parts = _differences(growth)
    if changed:
        named = ", ".join(changed[:CHANGES_NAMED])
        more = f" and {len(changed) - CHANGES_NAMED:,} more" if len(changed) > CHANGES_NAMED else ""
        report = (
            f"grown by increments, and not by one recipe ({named}{more} changed on the way): what one run over"
            " everything would have kept is not known"
        )
        report += f"; by the duplicates that the increments compared it {', and '.join(parts)}" if parts else ""
    elif parts:
        report = f"grown by increments; one run over everything {', and '.join(parts)}"
    else:
        report = "grown by increments; one run over everything would have kept the same records"
    caution = "; repeated paragraphs are judged by what each increment knew"
    return report + (caution if manifest.recipe.get("paragraphs") else "")


def _differences(growth: dict[str, Any]) -> list[str]:
    """What one run would have done, as ends of a sentence. A release before wrote other counts of the same."""
    kept = growth.get(KEPT_HERE, growth.get("joined", 0) + growth.get("outranked", 0))
    dropped, same = growth.get(DROPPED_HERE, growth.get("outranked", 0)), growth["exact_outranked"]
    parts = []
    if kept or dropped:
        more = dropped - kept
        how_many = f"{abs(more):,} {'more' if more > 0 else 'fewer'}" if more else "as many"
        parts.append(
            f"would have kept {how_many} (dropped {kept:,} near duplicates that are kept here, because they came first,"
            f" and kept {dropped:,} that are dropped here)"
        )
    if same:
        parts.append(f"would have kept {same:,} {'text' if same == 1 else 'texts'} under another id")
    return parts


def nothing_new(latest: Manifest, changed: Sequence[str]) -> str:
    """Why a run that extends a dataset came to the version that is there. `changed`: keys in which its recipe differs
    from that of the run (`lake.versions.recipes.recipe_changes`)."""
    why = f"{latest} has all of these inputs; nothing to do"
    if not changed:
        return why
    named = ", ".join(changed)
    return (
        f"{why}. It was made with other {named} than this recipe has, which was not applied: a version is not made"
        " anew by extending it. For that, run without extends"
    )
