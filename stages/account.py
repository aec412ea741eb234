"""Account: what became of each record of a mixture: kept if it is drawn at least once.

It counts by lengths, without plans of shards or windows, so that what it calls drawn and what packs hold are the two
sides of a balance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from lake.balance import Tally
from lake.fan import draw_key
from lake.objects import ObjectRef, read_table
from lake.receipt import Receipt, StageId
from lake.store import Store
from stages.fates import Fates
from stages.mix import Plan, fitting
from stages.tokenize import record_at
from stages.work import Outcome, Work, stage_id


@dataclass(frozen=True)
class Account:
    """The fates of the records in one object of tokens: kept if they are drawn at least once."""

    name: ClassVar[str] = "account"
    VERSION: ClassVar[int] = 1

    samples: bool
    window: int
    full: int
    cut: int
    seed: int

    def identity(self) -> tuple[StageId, ...]:
        return (stage_id(self),)

    def run(self, store: Store, work: Work) -> Outcome:
        """payload: tokens, lengths (pointers), input, source. Outputs fates; facts: draws (their tally)."""
        p = work.payload
        names = read_table(store, ObjectRef(**p["tokens"]), ["id", "row"])
        lengths = read_table(store, ObjectRef(**p["lengths"]))
        one = fitting(lengths, self.window, self.samples, self.seed)
        part = one.row[one.key < self.cut]
        drawn = one.row if self.full else part
        fates = Fates()
        rows = names["row"].to_pylist()
        keys = pa.Table.from_pylist(
            [record_at(i, p["input"], row) for i, row in zip(names["id"].to_pylist(), rows, strict=True)]
        )
        for at in np.setdiff1d(np.arange(len(rows)), one.row):
            tokens = int(lengths["tokens"][at].as_py())
            fates.add(keys.slice(at, 1).to_pylist()[0], "dropped", "mix.too_long", tokens)
        if len(rows):
            times = self.full + np.isin(drawn, part)
            said = pa.array(["drawn once" if n == 1 else f"drawn {n} times" for n in times.tolist()], pa.string())
            fates.add_kept(keys.take(pa.array(drawn)), "mix", said)
            left = keys.take(pa.array(np.setdiff1d(one.row, drawn)))
            fates.add_dropped(left, pa.repeat("mix.not_drawn", left.num_rows))
        written, counts = fates.write(store)
        draws = [(e, rows[at]) for e in range(self.full) for at in one.row] + [(self.full, rows[at]) for at in part]
        return Outcome(
            outputs=(written,),
            kept=counts.kept,
            dropped=counts.dropped,
            reasons=counts.reasons,
            facts={"draws": draw_tally(p["input"], draws).to_json(), "drawn": len(drawn)},
        )


def draw_tally(shard: str, draws: Sequence[tuple[int, int]]) -> Tally:
    """The tally of draws (epoch, row) from a shard."""
    return Tally.of(draw_key(shard, row, epoch) for epoch, row in draws)


def account_works(
    plan: Plan, facts: Sequence[Mapping[str, Any]], tokenized: Sequence[Sequence[tuple[str, Receipt]]]
) -> Iterator[Work]:
    """One Work an object of tokens."""
    for source, fact, one in zip(plan.sources, facts, tokenized, strict=True):
        stage = Account(source.samples, plan.window, fact["full"], fact["cut"], plan.seed)
        for digest, receipt in one:
            tokens, lengths = receipt.output("tokens"), receipt.output("lengths")
            yield Work(
                stage=stage,
                inputs=(digest, tokens.sha256, lengths.sha256),
                payload={"tokens": tokens.model_dump(), "lengths": lengths.model_dump(), "input": digest},
                came_in=receipt.passed,
                label=f"{source.name} {digest[:12]}",
            )
