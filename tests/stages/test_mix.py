"""The plan of a mixture: shares, epochs, cuts and slices, from tables of lengths alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.lake.store.objects import put_table, read_table
from gristmill.stages.core.work import execute
from gristmill.stages.mix.fitting import fitting, mixed
from gristmill.stages.mix.mix import Plan, Share, Source, plan_work, quotas_of
from gristmill.stages.mix.plan_rows import PLAN, PlanFacts, Tokenized
from gristmill.stages.mix.tokenize import LENGTHS

WINDOW = 128


def lengths(rng: np.random.Generator, rows: int, most: int = 400) -> pa.Table:
    keys = rng.integers(0, 2**64, rows, dtype=np.uint64)
    tokens = rng.integers(1, most, rows).astype(np.int32)
    return pa.table({"row": np.arange(rows, dtype=np.int32), "key": keys, "tokens": tokens}, schema=LENGTHS)


def planned(store, sources, tables, tokens=None, shard_tokens=4_000, seed=0):
    """`tables`: of each source the lengths of its objects. The receipt, and the plan by rows."""
    objects: list[list[Tokenized]] = []
    for n, source_tables in enumerate(tables):
        objects.append([])
        for i, table in enumerate(source_tables):
            refs = (put_table(store, kind, table) for kind in ("tokens", "lengths"))
            objects[-1].append(Tokenized(*refs, shard=f"{n}{i}"))
    plan = Plan(tuple(sources), WINDOW, shard_tokens, tokens, seed)
    receipt = execute(store, plan_work(plan, objects))
    return receipt, read_table(store, receipt.output("plan")).to_pylist()


def replay(rows, sources, tables, seed=0):
    """Every draw that the plan's rows say, as (shard, source, object, row, epoch): by other means than the stage's."""
    draws = []
    for row in rows:
        n = [s.name for s in sources].index(row["source"])
        number = int(row["input"][1:])
        fits = fitting(tables[n][number], WINDOW, row["samples"], seed)
        pairs = zip(fits.row.tolist(), fits.key.tolist(), strict=True)
        below_cut = [record for record, key in pairs if row["cut"] is None or key < row["cut"]]
        picked = below_cut[row["first"] : row["end"]]
        tokens = tables[n][number]["tokens"].to_pylist()
        assert row["documents"] == len(picked) and row["units"] == sum(tokens[record] for record in picked)
        draws += [(row["shard"], row["source"], number, record, row["epoch"]) for record in picked]
    return draws


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=3), min_size=1, max_size=3),
    share=st.floats(0.05, 1.0),
    samples=st.booleans(),
)
def test_every_draw_is_planned_once(tmp_path_factory, seed, sizes, share, samples):
    from gristmill.lake.store.opening import open_store

    store = open_store(str(tmp_path_factory.mktemp("lake")))
    rng = np.random.default_rng(seed)
    tables = [[lengths(rng, rows) for rows in source_sizes] for source_sizes in sizes]
    sources = [Source(f"s{n}@v1", Share(1 + n, 3.0), samples and n == 1) for n in range(len(tables))]
    there = [
        sum(int(fitting(t, WINDOW, s.samples, 0).tokens.sum()) for t in source_tables)
        for s, source_tables in zip(sources, tables, strict=True)
    ]
    if not all(there):
        return
    whole = sum(s.share.weight for s in sources)
    most = min(3.0 * have * whole / s.share.weight for s, have in zip(sources, there, strict=True))
    wanted = max(1, int(share * most))
    receipt, rows = planned(store, sources, tables, tokens=wanted)
    facts = receipt.facts_as(PlanFacts)
    if facts.problem:
        assert "less than any record of it" in facts.problem
        assert any(not fact.drawn for fact in facts.sources)
        return
    draws = replay(rows, sources, tables)
    assert len(draws) == len({d[1:] for d in draws})  # a record at most once an epoch
    for s, fact, source_tables in zip(sources, facts.sources, tables, strict=True):
        mine = [d for d in draws if d[1] == s.name]
        tokens = [t["tokens"].to_pylist() for t in source_tables]
        got = sum(tokens[number][row] for _, _, number, row, _ in mine)
        fits = {(i, int(r)) for i, t in enumerate(source_tables) for r in fitting(t, WINDOW, s.samples, 0).row}
        assert 0 < got == fact.drawn <= 3 * fact.there
        assert abs(got - wanted * s.share.weight / whole) <= max(max(t) for t in tokens)  # whole records
        for epoch in range(fact.full):
            assert {(d[2], d[3]) for d in mine if d[4] == epoch} == fits
        assert {(d[2], d[3]) for d in mine if d[4] == fact.full} < fits or not fact.cut
        assert max((d[4] for d in mine), default=0) <= fact.full
    assert {row["shard"] for row in rows} <= set(range(receipt.facts["shards"]))


def test_each_shard_has_the_proportions_of_the_mixture(store):
    rng = np.random.default_rng(1)
    sources = [Source("web@v1", Share(0.7), False), Source("math@v1", Share(0.3), True)]
    tables = [[lengths(rng, 3000), lengths(rng, 2000)], [lengths(rng, 4000, most=WINDOW)]]
    receipt, rows = planned(store, sources, tables, tokens=600_000, shard_tokens=50_000)
    assert receipt.facts["shards"] == 12
    for shard in range(12):
        units = {s.name: sum(r["units"] for r in rows if (r["shard"], r["source"]) == (shard, s.name)) for s in sources}
        assert units["web@v1"] / sum(units.values()) == pytest.approx(0.7, abs=0.02)
    once = [r for r in rows if r["source"] == "web@v1" and r["epoch"] == 0]
    assert len(once) <= 12 + 2  # each object is read for its own stretch of shards, not by every shard


def test_a_larger_epoch_draws_more_and_never_others(store):
    """A longer run sees what a shorter one saw."""
    rng = np.random.default_rng(2)
    sources, tables = [Source("web@v1", Share(1), False)], [[lengths(rng, 500), lengths(rng, 500)]]
    small, large = (
        {d[2:] for d in replay(planned(store, sources, tables, tokens=n)[1], sources, tables)} for n in (20_000, 60_000)
    )
    assert small < large


def test_another_seed_draws_others(store):
    rng = np.random.default_rng(3)
    sources, tables = [Source("web@v1", Share(1), False)], [[lengths(rng, 500)]]
    first, second = (
        {d[2:] for d in replay(planned(store, sources, tables, tokens=20_000, seed=n)[1], sources, tables, n)}
        for n in (0, 1)
    )
    assert first != second


def test_without_a_budget_the_caps_decide():
    sources = [Source("web@v1", Share(0.5, 1), False), Source("math@v1", Share(0.5, 4), True)]
    quotas, problem = quotas_of(sources, [1000, 100], None)
    assert problem is None and quotas == [Fraction(400), Fraction(400)]  # math four times; web less than once
    quotas, _ = quotas_of(sources, [1000, 10_000], None)
    assert quotas == [Fraction(1000), Fraction(1000)]


def test_weights_that_cannot_be_drawn_say_what_can():
    sources = [Source("web@v1", Share(0.5, 1), False), Source("math@v1", Share(0.5, 4), True)]
    _, problem = quotas_of(sources, [1000, 100], 1000)
    assert problem == (
        "math@v1 has 100 tokens, and 50.0% of 1,000 are 500: 5.00 epochs, more than max_epochs=4. At most"
        " recipe.tokens=800 can be drawn with these weights; or give it less weight, or raise its max_epochs"
    )
    assert quotas_of(sources, [1000, 100], 800)[1] is None
    assert "math@v1 has nothing that fits a window and is learned from" in str(quotas_of(sources, [1000, 0], None)[1])


@pytest.mark.parametrize(
    "bad", [{"weight": 0}, {"weight": -1}, {"weight": float("nan")}, {"weight": 1, "max_epochs": 0}]
)
def test_a_share_is_a_positive_number(bad):
    with pytest.raises(ValueError, match="a number above 0"):
        Share(**bad)


def test_mixed_is_a_bijection_that_the_seed_changes():
    keys = np.arange(100_000, dtype=np.uint64)
    mixed_keys = mixed(keys, 0)
    assert len(np.unique(mixed_keys)) == len(keys)
    assert not np.any(mixed_keys == mixed(keys, 1))
    buckets = np.bincount((mixed_keys >> np.uint64(60)).astype(int), minlength=16)
    assert abs(buckets - len(keys) / 16).max() < 400  # five standard deviations


def test_the_schema_of_a_plan(store):
    rng = np.random.default_rng(4)
    receipt, _ = planned(store, [Source("web@v1", Share(1), False)], [[lengths(rng, 50)]])
    assert read_table(store, receipt.output("plan")).schema.equals(PLAN)
