"""The fates of a mixture's records, and the two counts of their draws."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from gristmill.lake.accounts.balance import BalanceError, Tally
from gristmill.lake.accounts.fan import draw_tally
from gristmill.lake.accounts.receipt import Receipt
from gristmill.lake.store.objects import put_table, read_table
from gristmill.stages.core.work import execute
from gristmill.stages.mix import account
from gristmill.stages.mix.account import DRAWN, Account, AccountFacts, account_works
from gristmill.stages.mix.mix import Plan, Share, Source
from gristmill.stages.mix.plan_rows import SourceFacts
from gristmill.stages.mix.tokenize import LENGTHS

SHARD = "ab" * 32
WINDOW = 100
TOKENS = [50, 120, 30, 80, 10]
"""The second is longer than a window."""


def tokenized(store) -> Receipt:
    ids = [f"{n:032x}" for n in range(len(TOKENS))]
    tokens = put_table(store, "tokens", pa.table({"id": ids, "row": pa.array(range(len(TOKENS)), pa.int32())}))
    rows = {"row": range(len(TOKENS)), "key": [n << 60 for n in range(len(TOKENS))], "tokens": TOKENS}
    lengths = put_table(store, "lengths", pa.table(rows, schema=LENGTHS))
    passed = Tally.of_records([SHARD] * len(TOKENS), range(len(TOKENS)))
    return Receipt(work_key="0" * 64, stages=(), inputs=(), outputs=(tokens, lengths), passed=passed)


def accounted(store, full: int, cut: int, samples: bool = True):
    plan = Plan((Source("math@v1", Share(1.0), samples),), WINDOW, 1000, None, 0)
    facts = SourceFacts("math@v1", samples, 1.0, 0, 0, 0, full, cut)
    (work,) = account_works(plan, [facts], [[(SHARD, tokenized(store))]])
    return work


@pytest.mark.parametrize(("full", "cut", "samples"), [(0, 1 << 63, True), (2, 0, False), (3, 1 << 62, True)])
def test_each_record_has_a_fate_and_as_many_draws_as_it_says(store, full, cut, samples):
    receipt = execute(store, accounted(store, full, cut, samples))
    fates = read_table(store, receipt.output("fates")).to_pylist()
    assert sorted(row["ordinal"] for row in fates) == [0, 1, 2, 3, 4]
    assert {row["reason"] for row in fates if row["ordinal"] == 1} == ({"mix.too_long"} if samples else {None})
    times = {row["ordinal"]: row["value"] for row in fates if row["fate"] == "kept"}
    often = {row: 1 if mark == "drawn once" else int(mark.split()[1]) for row, mark in times.items()}
    expected = draw_tally(SHARD, [(epoch, row) for row, n in often.items() for epoch in range(n)])
    assert receipt.children == {DRAWN: expected} and receipt.children_in == expected
    assert receipt.facts_as(AccountFacts).drawn == len(often) > 0


def test_a_draw_that_no_fate_tells_of_leaves_no_receipt(store, monkeypatch):
    """One epoch more than the fates say."""

    extra = iter([[(9, 0)], []])  # of the first count, by record; not of the second, by epoch

    def one_more(shard, draws):
        return draw_tally(shard, [*draws, *next(extra)])

    monkeypatch.setattr(account, "draw_tally", one_more)
    with pytest.raises(BalanceError, match="children went in but"):
        execute(store, accounted(store, 1, 0))


def test_how_it_is_drawn_is_input_and_no_config(store):
    """A run key names the stage before the plan is drawn up."""
    once, twice = accounted(store, 1, 0), accounted(store, 2, 0)
    assert once.key != twice.key
    assert once.stage == twice.stage == Account() and Account().identity()[0].config == {}
    assert replace(once, payload=twice.payload).key == once.key
