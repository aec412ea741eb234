"""Two models on the same questions, item by item: `grist diff` of two evaluations.

Only evaluations of the same data by the same rules are compared; models, their tokenizers and the type of their weights
are what may differ. Items are joined by their place in the data. What only one of them has (a prompt that is too long
for the other's tokenizer) is counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.lake.versions.manifest import Manifest
from gristmill.model.evaluate.intervals import Bootstrap
from gristmill.model.evaluate.scores import Difference, differences_of, rows_of
from gristmill.stages.evaluate.work import Evaluate

EXAMPLES = 3
"""Items shown of each task that became right, and that became wrong."""
_RULES = (
    "tasks",
    "generate",
    "exact",
    "judge",
    "attributes",
    "transcripts",
    "max_crops",
    "max_seconds",
    "window",
    "limit",
)
"""Keys of a recipe that decide what an answer is and what it is worth."""


@dataclass(frozen=True)
class Example:
    """An item whose answer became right, or (`right` False) wrong."""

    task: str
    source: str
    id: str
    right: bool
    question: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """`a`, `b`: the evaluations, `model_a` and `model_b` what was evaluated. `items` that both have a score of, beside
    those that only one has."""

    a: str
    b: str
    model_a: str
    model_b: str
    items: int
    only_a: int
    only_b: int
    differences: tuple[Difference, ...]
    examples: tuple[Example, ...]


def compare(store: Store, a: Manifest, b: Manifest) -> Comparison:
    """What `b` does otherwise than `a`. Raises ValueError, naming what differs, for other data or rules, and NotFound
    for rows that are gone (a withdrawn version)."""
    if reasons := list(_obstacles(a, b)):
        raise ValueError(
            f"{a} and {b} cannot be compared: {'; '.join(reasons)}. Evaluate both models by one recipe on one data"
        )
    before, after = (_rows(store, version) for version in (a, b))
    key = ["input", "ordinal"]
    places = [rows.select(key).append_column("row", pa.array(range(rows.num_rows))) for rows in (before, after)]
    both = places[0].join(places[1], key, join_type="inner", right_suffix="_after").sort_by("row")
    old, new = before.take(both["row"]), after.take(both["row_after"])
    return Comparison(
        a=str(a),
        b=str(b),
        model_a=_sources(a, "evaluated")[0][0],
        model_b=_sources(b, "evaluated")[0][0],
        items=both.num_rows,
        only_a=before.num_rows - both.num_rows,
        only_b=after.num_rows - both.num_rows,
        differences=tuple(differences_of(old, new, Bootstrap(**a.recipe["bootstrap"]))),
        examples=tuple(_examples(old, new)),
    )


def _rows(store: Store, version: Manifest) -> pa.Table:
    return rows_of(read_table(store, ref) for ref in version.shards)


def _sources(version: Manifest, role: str) -> list[tuple[str, str]]:
    """(name, digest) of those with a role."""
    return [(str(ref), ref.digest) for ref in version.sources if ref.role == role]


def _obstacles(a: Manifest, b: Manifest) -> Iterator[str]:
    """What differs and may not."""
    data = [_sources(version, "on") for version in (a, b)]
    if [digest for _, digest in data[0]] != [digest for _, digest in data[1]]:
        names = [", ".join(name for name, _ in sources) for sources in data]
        yield f"their data is {names[0]} and {names[1]}"
    for key in _RULES:
        rules = [version.recipe.get(key) for version in (a, b)]
        if rules[0] != rules[1]:
            yield f"recipe.{key} is {rules[0]} and {rules[1]}"
    judged = [_version(version, Evaluate.name) for version in (a, b)]
    if judged[0] != judged[1]:
        yield f"their stage {Evaluate.name} has VERSION {judged[0]} and {judged[1]}"


def _version(version: Manifest, stage: str) -> int | None:
    return next((item.version for item in version.stages if item.name == stage), None)


def _examples(before: pa.Table, after: pa.Table) -> Iterator[Example]:
    """The first items of each task whose answer changed its worth."""
    scores = [np.asarray(pc.fill_null(rows["score"], 0.0).to_numpy()) for rows in (before, after)]
    tasks = np.array(before["task"].to_pylist(), dtype=object)
    for task in sorted(set(tasks) - {"perplexity"}):
        for right, changed in ((True, scores[1] > scores[0]), (False, scores[1] < scores[0])):
            for place in np.flatnonzero(changed & (tasks == task))[:EXAMPLES].tolist():
                yield _example(before, after, place, right)


def _example(before: pa.Table, after: pa.Table, place: int, right: bool) -> Example:
    old: dict[str, Any] = before.slice(place, 1).to_pylist()[0]
    new: dict[str, Any] = after.slice(place, 1).to_pylist()[0]
    texts = {name: old[name] or "" for name in ("task", "source", "id", "question", "expected")}
    return Example(right=right, before=old["answer"] or "", after=new["answer"] or "", **texts)
