"""Mixtures end to end: what is in the windows is what the plan says, whatever the order and the lake."""

from __future__ import annotations

import json
from collections import Counter

import mixtures
import numpy as np
import pytest
from drafts import draft
from mixtures import stretches, windows

from gristmill.lake.query.dataset import Dataset
from gristmill.lake.store.objects import put_table, read_table
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.versions import Versions
from gristmill.pipelines.tokenizer import tokenizer_of
from gristmill.stages.mix.windows import read_windows, sample_stretches, shard_files
from gristmill.stages.run.runner import Runner
from gristmill.stages.run.unfinished import PlanOnly

sources = mixtures.sources


def test_every_record_of_every_member_is_in_the_windows_as_often_as_planned(sources):
    store, versions = sources, Versions(sources)
    manifest = mixtures.mix(
        store, {"web@v1": 0.6, "math@v1": {"weight": 0.4, "max_epochs": 5}}, shard_tokens=9_000
    ).manifest
    tokenizer, packed = tokenizer_of(versions, manifest), windows(store, manifest)
    whole = stretches(packed)
    for source, text_of in (
        ("web@v1", lambda row: row["text"] + "<|endoftext|>"),
        ("math@v1", lambda row: row["text"]),
    ):
        rows = Dataset(store, versions.resolve(source)).to_arrow().to_pylist()
        fact = next(entry for entry in manifest.statistics["mixture"] if entry["source"] == source)
        drawn = Counter(key[1] for key in whole if key[0] == source)
        assert {drawn[row["id"]] for row in rows} <= {fact["full"], fact["full"] + 1}
        assert {key[2] for key in whole if key[0] == source} <= set(range(fact["full"] + 1))
        for row in rows:
            for epoch in range(drawn[row["id"]]):
                assert tokenizer.decode(whole[source, row["id"], epoch]) == text_of(row)
        assert sum(len(ids) for key, ids in whole.items() if key[0] == source) == fact["drawn"]
        assert abs(fact["drawn"] - fact["planned"]) < 400
    ledger = Dataset(store, manifest).ledger().to_pylist()
    assert {(row["id"], row["fate"]) for row in ledger if row["fate"] == "kept"} == {(key[1], "kept") for key in whole}
    times = Counter(key[1] for key in whole)
    reasons = {1: "drawn once"}
    assert all(
        row["value"] == reasons.get(n := times[row["id"]], f"drawn {n} times")
        for row in ledger
        if row["fate"] == "kept"
    )
    assert len(ledger) == 420 == manifest.received.count
    assert len(shard_files(manifest)) > 3
    assert not verify(store, [str(manifest)], deep=True)


def test_members_table_says_what_the_windows_say(sources):
    manifest = mixtures.mix(sources, {"web@v1": 1}, tokens=20_000).manifest
    tables = [read_table(sources, ref).to_pylist() for ref in manifest.ledgers if ref.kind == "members"]
    segments = [
        (window.key, n, member["source"], member["member"], member["epoch"], member["start"], member["length"])
        for window in windows(sources, manifest)
        for n, member in enumerate(window.meta["members"])
    ]
    assert [tuple(row.values()) for table in tables for row in table] == segments


def test_samples_are_never_cut_and_learn_their_answers_only(sources):
    manifest = mixtures.mix(sources, {"math@v1": 1}).manifest
    tokenizer = tokenizer_of(Versions(sources), manifest)
    for window in windows(sources, manifest):
        bounds, ids, learn = (window.arrays[name] for name in ("cu_seqlens", "input_ids", "loss_mask"))
        for n, member in enumerate(window.meta["members"]):
            at = slice(bounds[n], bounds[n + 1])
            assert member["start"] == 0
            learned_text = "".join(
                text for text, learned in tokenizer.show(ids[at].tolist(), learn[at].tolist()) if learned
            )
            whole = tokenizer.decode(ids[at])
            assert whole.startswith("<|user|>What is") and whole.endswith("<|end|><|endoftext|>")
            assert learned_text == whole.partition("<|assistant|>")[2].removesuffix("<|endoftext|>")


def test_nothing_is_learned_across_a_boundary(sources):
    manifest = mixtures.mix(sources, {"web@v1": 1}, window=64).manifest
    assert manifest.statistics["documents_too_long"] > 0
    for window in windows(sources, manifest):
        assert not window.arrays["loss_mask"][window.arrays["cu_seqlens"][:-1]].any()
        assert window.arrays["loss_mask"].sum() == len(window.arrays["input_ids"]) - len(window.meta["members"])


def test_the_digest_is_that_of_another_lake(store, tmp_path):
    def build(lake):
        mixtures.documents(lake, "web", mixtures.texts(100), shards=2)
        mixtures.tokenizer(lake, "web@v1")
        return mixtures.mix(lake, {"web@v1": 1}, tokens=7_000).manifest

    assert build(store).digest == build(open_store(str(tmp_path / "other"))).digest


def test_on_s3_it_is_the_same_and_windows_are_read_from_there(store, s3_lake):
    def build(lake):
        mixtures.documents(lake, "web", mixtures.texts(100), shards=2)
        mixtures.tokenizer(lake, "web@v1")
        return mixtures.mix(lake, {"web@v1": 1}, tokens=7_000, shard_tokens=2_000).manifest

    remote = open_store(s3_lake)
    manifest = build(remote)
    assert manifest.digest == build(store).digest
    here, there = (read_windows(lake, manifest, seed=5) for lake in (store, remote))
    for (_, a), (_, b) in zip(here.iterate(7, stop=40), there.iterate(7, stop=40, ahead=4), strict=True):
        assert a.key == b.key and a.meta == b.meta
        assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)


def test_a_tag_names_the_same_mixture(sources):
    first = mixtures.mix(sources, {"web@v1": 1}, tokens=5_000)
    Versions(sources).tag("web", 1, "spring")
    again = mixtures.mix(sources, {"web@spring": 1}, tokens=5_000)
    assert not again.new and again.manifest == first.manifest


def test_samples_longer_than_the_window_and_records_left_over_have_a_fate(store, tmp_path):
    rows = [mixtures.word_problem(i) for i in range(40)]
    rows.insert(7, {"question": "Count to 200.", "answer": " ".join(map(str, range(200)))})
    mixtures.samples(store, tmp_path, "math", rows, form="pair")
    mixtures.documents(store, "web", [*mixtures.texts(50), " \n "])
    mixtures.tokenizer(store, "math@v1")
    manifest = mixtures.mix(store, {"math@v1": 0.5, "web@v1": {"weight": 0.5, "max_epochs": 1}}, tokens=3_000).manifest
    reasons = {reason: n for row in manifest.funnel for reason, n in row.dropped.items()}
    assert reasons["mix.too_long"] == 1 and reasons["tokenize.empty"] == 1 and reasons["mix.not_drawn"] > 40
    ledger = Dataset(store, manifest).ledger().to_pylist()
    (long,) = [row for row in ledger if row["reason"] == "mix.too_long"]
    assert int(long["value"]) > 128 and long["ordinal"] == 7
    assert not verify(store, [str(manifest)], deep=True)


def test_a_record_of_two_sources_is_counted_for_each(store):
    same = mixtures.texts(30)
    mixtures.documents(store, "web", same)
    table = Dataset(store, Versions(store).resolve("web@v1")).to_arrow()
    Versions(store).commit(draft("best", "k", ["05"], (put_table(store, "shard", table.slice(0, 10)),)))
    mixtures.tokenizer(store, "web@v1")
    manifest = mixtures.mix(store, {"web@v1": 0.5, "best@v1": 0.5}, tokens=1_500).manifest
    assert manifest.received.count == 40
    assert not verify(store, [str(manifest)], deep=True)


def test_a_look_at_a_few_windows_never_passes_for_a_mixture(sources):
    limited = mixtures.mix(sources, {"web@v1": 0.5, "math@v1": 0.5}, limit=5).manifest
    assert limited.dataset == "mix.limit" and limited.statistics["tokens"] <= 5 * 128 + 200
    assert limited.received.count == 220  # of three shards of pages only the first


def test_the_plan_runs_nothing(sources):
    with pytest.raises(PlanOnly) as plan:
        mixtures.mix(sources, {"web@v1": 1}, Runner(sources, workers=0, plan=True))
    assert plan.value.title == "tokenize" and len(plan.value.todo) == 3
    assert Versions(sources).latest("mix") is None


def test_stretches_are_drawn_of_each_source(sources):
    manifest = mixtures.mix(sources, {"web@v1": 0.6, "math@v1": 0.4}, shard_tokens=9_000).manifest
    tokenizer = tokenizer_of(Versions(sources), manifest)
    drawn = sample_stretches(sources, manifest, tokenizer, 3, seed=1)
    assert Counter(stretch.source for stretch in drawn.stretches) == {"web@v1": 3, "math@v1": 3}
    assert drawn == sample_stretches(sources, manifest, tokenizer, 3, seed=1)
    whole = stretches(windows(sources, manifest))
    for stretch in drawn.stretches:
        ids = whole[stretch.source, stretch.id, stretch.epoch][stretch.start : stretch.start + stretch.tokens]
        assert "".join(text for text, _ in stretch.pieces) == tokenizer.decode(ids)
    json.dumps([stretch.pieces for stretch in drawn.stretches])
