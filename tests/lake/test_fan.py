"""Fan-out in a receipt: a stage that makes samples of problems proves each by its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pytest

from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.accounts.fan import SAMPLES, VERDICTS, child_id, draw_tally, sample_tallies, samples_asked
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import put_table
from gristmill.stages.core.work import Outcome, Stage, Work, execute

PROBLEMS = ("p0", "p1", "p2")


@dataclass(frozen=True)
class Problems:
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Sample(Stage[Problems]):
    """`samples` of each problem; every third is accepted. `lost`: its last sample is in no table."""

    name: ClassVar[str] = "toy.sample"
    VERSION: ClassVar[int] = 1

    samples: int
    lost: bool = False

    def run(self, store: Store, work: Work[Problems]) -> Outcome:
        rows = []
        for problem in work.payload.ids:
            for n in range(self.samples):
                verdict = VERDICTS[n % 3]
                reason = None if verdict == "accepted" else f"toy.{verdict}"
                row = {"id": child_id(problem, n), "parent_id": problem, "sample": n, "verdict": verdict}
                rows.append({**row, "reason": reason, "value": None})
        table = pa.Table.from_pylist(rows[:-1] if self.lost else rows, schema=SAMPLES)
        return Outcome(
            outputs=(put_table(store, "samples", table),),
            passed=_problems(work.payload.ids),
            children_in=samples_asked(dict.fromkeys(work.payload.ids, self.samples)),
            children=sample_tallies(table),
        )


def _problems(ids: tuple[str, ...]) -> Tally:
    return Tally.of_records(ids, [0] * len(ids))


def sampling(stage: Sample) -> Work[Problems]:
    return Work(stage, PROBLEMS, Problems(PROBLEMS), _problems(PROBLEMS), "problems")


def test_every_sample_that_was_asked_for_has_a_verdict_in_the_receipt(store):
    receipt = execute(store, sampling(Sample(4)))
    assert receipt.children_in.count == 12
    assert {verdict: t.count for verdict, t in receipt.children.items()} == {
        "accepted": 6,
        "rejected": 3,
        "undecided": 3,
    }
    assert receipt.received == receipt.passed == _problems(PROBLEMS), "the balance of problems is apart"


def test_a_sample_that_is_lost_is_found_by_the_second_balance_alone(store):
    """The last one of a problem: the numbers that are left have no gap."""
    with pytest.raises(BalanceError, match="problems: 12 children went in but 11 have a verdict"):
        execute(store, sampling(Sample(4, lost=True)))


def test_draws_of_other_epochs_rows_and_shards_are_others():
    draws = draw_tally("ab", [(0, 1), (1, 1)])
    assert draws.count == 2
    others = [
        draw_tally("ab", [(0, 1), (2, 1)]),
        draw_tally("ab", [(0, 1), (1, 2)]),
        draw_tally("cd", [(0, 1), (1, 1)]),
    ]
    assert draws not in others and draw_tally("ab", [(1, 1), (0, 1)]) == draws
