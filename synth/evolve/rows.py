"""Rows of a file become rows of variants: JSON lines in GSM8K's form in, JSON lines in the same form out.

Every row that is read has one end: a template with variants, or the reason why it has none. The output depends on the
rows, on `per_problem` and on `seed` alone, and on no other row: a file in other order gives the same variants.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gristmill.synth.evolve.template import NoTemplate, template
from gristmill.synth.evolve.variants import variants

LONGEST_LINE = 1 << 20
"""Bytes of a line that is still read."""


@dataclass(frozen=True)
class Evolve:
    """`per_problem`: variants of a problem, at most. `question`, `answer`: fields of a row; the gold answer is what
    follows the last `gold_after` in its answer."""

    per_problem: int = 2
    seed: int = 0
    question: str = "question"
    answer: str = "answer"
    gold_after: str = "####"

    def __post_init__(self) -> None:
        if self.per_problem < 1:
            raise ValueError(f"per_problem={self.per_problem}: 1 or more")
        if not self.gold_after:
            raise ValueError("gold_after is empty: it stands before the gold answer")


@dataclass
class Evolved:
    """What came of the rows: `templates` among them, `variants` written, and `reasons` of rows that have none."""

    rows: int = 0
    templates: int = 0
    variants: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def evolve(lines: Iterable[bytes], out: Path, how: Evolve) -> Evolved:
    """Writes the variants of all rows to `out`, which is there once it is whole. Raises FileExistsError: what is there
    may be an input of a version."""
    if out.exists():
        raise FileExistsError(f"{out} is there already: give the name of a new file")
    result, partial = Evolved(), out.with_name(f"{out.name}.partial")
    with partial.open("wb") as file:
        for line in lines:
            if not line.strip():
                continue
            result.rows += 1
            try:
                rows = _of_line(line, how)
            except NoTemplate as error:
                result.reasons[error.reason] += 1
                continue
            result.templates += 1
            result.variants += len(rows)
            if len(rows) < how.per_problem:
                result.reasons["fewer_variants" if rows else "no_variant"] += 1
            file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    partial.rename(out)
    return result


def _of_line(line: bytes, how: Evolve) -> list[dict[str, str]]:
    """Raises NoTemplate: too_long, no_json, no_field, no_gold, and as `template`."""
    if len(line) > LONGEST_LINE:
        raise NoTemplate("too_long")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise NoTemplate("no_json") from None
    question, answer = (row.get(name) if isinstance(row, dict) else None for name in (how.question, how.answer))
    if not isinstance(question, str) or not isinstance(answer, str):
        raise NoTemplate("no_field")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise NoTemplate("lone_surrogate") from None
    solution, mark, gold = answer.rpartition(how.gold_after)
    if not mark:
        raise NoTemplate("no_gold")
    return list(variants(template(question, solution, gold), how.per_problem, how.seed))
