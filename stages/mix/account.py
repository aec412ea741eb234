"""Account: what became of each record of a mixture: kept if it is drawn at least once.

It counts by lengths, without plans of shards or windows, so that what it calls drawn and what packs hold are the two
sides of a balance. The draws are the children of the records: one a record and epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gristmill.lake.accounts.fan import draw_tally
from gristmill.lake.accounts.receipt import Receipt, canonical
from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import read_table
from gristmill.stages.core.fates import Fates
from gristmill.stages.core.work import Outcome, Stage, Work
from gristmill.stages.mix.fitting import UNITS, Bounds, Fitting, beyond, fitting, taken_of
from gristmill.stages.mix.mix import Plan
from gristmill.stages.mix.plan_rows import SourceFacts, Tokenized
from gristmill.stages.mix.tokenize import record_at

DRAWN = "drawn"
"""The verdict of every child: what is not drawn is none."""
_RECORD = pa.schema(
    [
        ("id", pa.string()),
        ("input", pa.string()),
        ("ordinal", pa.int64()),
        ("start", pa.int64()),
        ("length", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Drawing:
    """How a source is drawn, as its plan says (`stages.mix.mix.SourceFacts`), and by what `window` and `seed`, and of
    how many crops and frames a window; None: no bound."""

    samples: bool
    window: int
    full: int
    cut: int
    seed: int
    max_crops: int | None = None
    max_frames: int | None = None

    @property
    def bounds(self) -> Bounds:
        """In the order of UNITS."""
        return self.max_crops, self.max_frames

    @property
    def digested(self) -> str:
        """As it stands among the digests of an input; without a bound as before there was one."""
        return canonical({name: value for name, value in asdict(self).items() if value is not None}).decode()


@dataclass(frozen=True)
class AccountInput:
    """One object of tokens, and how its source is drawn."""

    object: Tokenized
    drawing: Drawing


@dataclass(frozen=True)
class AccountFacts:
    """`drawn`: records that are drawn at least once."""

    drawn: int


@dataclass(frozen=True)
class Account(Stage[AccountInput]):
    """The fates of the records in one object of tokens: kept if they are drawn at least once.

    How they are drawn is no config of this stage but a result of the plan, known once that has run: it is among the
    digests of its input. So the identity is the same in every mixture, and a run key can name it.
    """

    name: ClassVar[str] = "account"
    VERSION: ClassVar[int] = 1

    def run(self, store: Store, work: Work[AccountInput]) -> Outcome:
        """Output: fates. Children: the draws, once by epochs and once by what the fates say of each record."""
        source, drawing = work.payload.object, work.payload.drawing
        lengths = read_table(store, source.lengths)
        taken = taken_of(lengths)
        fits = fitting(lengths, drawing.window, drawing.samples, drawing.seed, drawing.bounds)
        records = _records(read_table(store, source.tokens, ["id", "row"]), source.shard)
        part = fits.row[fits.key < drawing.cut]  # of the part epoch
        drawn = fits.row if drawing.full else part
        times = drawing.full + np.isin(drawn, part)  # how often each of `drawn` is
        fates = Fates()
        for at in np.setdiff1d(np.arange(records.num_rows), fits.row):
            tokens, record = int(lengths["tokens"][at].as_py()), records.slice(at, 1).to_pylist()[0]
            if drawing.samples and tokens > drawing.window:
                fates.add(record, "dropped", "mix.too_long", tokens)
            else:
                unit = beyond(taken[at], drawing.bounds)
                fates.add(record, "dropped", f"mix.too_many_{UNITS[unit]}", int(taken[at, unit]))
        if records.num_rows:
            _add_fates(fates, records, fits, drawn, times)
        written, counts = fates.write(store)
        # The draws as (epoch, row), once by what each epoch takes and once by how often a record's fate says that it
        # is drawn: the two sides of a balance.
        rows = records["ordinal"].to_numpy()
        by_epoch = [(drawing.full, row) for row in rows[part].tolist()]
        for epoch in range(drawing.full):
            by_epoch += [(epoch, row) for row in rows[fits.row].tolist()]
        by_record: list[tuple[int, int]] = []
        for row, often in zip(rows[drawn].tolist(), times.tolist(), strict=True):
            by_record += [(epoch, row) for epoch in range(often)]
        return Outcome(
            outputs=(written,),
            kept=counts.kept,
            dropped=counts.dropped,
            reasons=counts.reasons,
            children_in=draw_tally(source.shard, by_record),
            children={DRAWN: draw_tally(source.shard, by_epoch)},
            facts=AccountFacts(len(drawn)),
        )


def _records(names: pa.Table, shard: str) -> pa.Table:
    """Who the records of an object are. `names`: id and row of each."""
    pairs = zip(names["id"].to_pylist(), names["row"].to_pylist(), strict=True)
    return pa.Table.from_pylist([record_at(record, shard, row) for record, row in pairs], schema=_RECORD)


def _add_fates(fates: Fates, records: pa.Table, fits: Fitting, drawn: np.ndarray, times: np.ndarray) -> None:
    """Of the records that fit: kept with how often they are drawn, or dropped."""
    marks = pa.array(["drawn once" if n == 1 else f"drawn {n} times" for n in times.tolist()], pa.string())
    fates.add_kept(records.take(pa.array(drawn)), "mix", marks)
    left = records.take(pa.array(np.setdiff1d(fits.row, drawn)))
    fates.add_dropped(left, pa.repeat("mix.not_drawn", left.num_rows))


def account_works(
    plan: Plan, facts: Sequence[SourceFacts], tokenized: Sequence[Sequence[tuple[str, Receipt]]]
) -> Iterator[Work[AccountInput]]:
    """One Work an object of tokens. `facts`: of the plan's sources; `tokenized`: of each (digest of its shard, receipt
    of its tokenization (`stages.mix.tokenize`))."""
    for source, fact, shards in zip(plan.sources, facts, tokenized, strict=True):
        drawing = Drawing(source.samples, plan.window, fact.full, fact.cut, plan.seed, *plan.bounds)
        for digest, receipt in shards:
            tokens = Tokenized.of(digest, receipt)
            yield Work(
                stage=Account(),
                inputs=(digest, tokens.tokens.sha256, tokens.lengths.sha256, drawing.digested),
                payload=AccountInput(tokens, drawing),
                received=receipt.passed,
                label=f"{source.name} {digest[:12]}",
            )
