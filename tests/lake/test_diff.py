"""`diff`: streamed, and equal to a join in memory."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from lake_builder import BROKEN, COPY, OTHER, SHORT, Page, commit, mixed_pages, page_id, pages

from gristmill.lake.query import diff as diffing
from gristmill.lake.query.diff import diff
from gristmill.lake.store import objects
from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import FunnelRow, Manifest
from gristmill.lake.versions.recipes import recipe_changes, settings_that_differ


@pytest.fixture
def first(store: Store) -> Manifest:
    return commit(store, "web", mixed_pages())


def test_diff_counts_fates_that_changed(store: Store, first: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = dataclasses.replace(SHORT, url="https://example.org/3")
    more = [*pages(20, p3=longer, p5=BROKEN, p7=COPY, p8=OTHER), *(Page(f"https://new.example/{i}") for i in range(5))]
    second = commit(store, "web", more[1:], recipe={"quality": {"min_words": 100}})
    monkeypatch.setattr(objects, "ROW_GROUP_ROWS", 3)  # so that windows end in the middle of everything
    result = diff(store, first, second)
    # Ordinals moved by one, so every record counts as another: the key says which record of the file.
    assert (result.records.both, result.records.only_a, result.records.only_b) == (0, 20, 24)
    third = commit(store, "web", more, recipe={"quality": {"min_words": 100}, "new": True}, file="crawl/a.warc.gz")
    result = diff(store, first, third)
    assert (result.records.both, result.records.only_a, result.records.only_b) == (20, 0, 5)
    assert (result.kept.both, result.kept.only_a, result.kept.only_b) == (15, 1, 6)
    assert {(c.before, c.after): (c.records, set(c.examples)) for c in result.changes if c.before != "absent"} == {
        ("kept", "quality.too_few_words"): (1, {page_id("https://example.org/3")}),
        ("quality.too_few_words", "kept"): (1, {page_id("https://example.org/2")}),
    }
    (new,) = [c for c in result.changes if c.before == "absent"]
    assert (new.after, new.records, list(new.examples)) == (
        "kept", 5, sorted(page_id(f"https://new.example/{i}") for i in range(5))[:3],
    )  # fmt: skip
    assert result.recipe == (("quality.min_words", 50, 100), ("new", None, True))
    assert result.same_content is False and not result.inputs_added


@pytest.mark.parametrize("seed", range(4))
def test_diff_agrees_with_a_join_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(objects, "ROW_GROUP_ROWS", 1 + seed)
    rng = random.Random(seed)
    sides = []
    for n in (40, 30):  # few ids, each met many times: runs of one id go over the ends of windows
        urls = [f"https://example.org/{rng.randrange(6)}" for _ in range(n)]
        pages = [Page(url, rng.choice([None, "quality.a", "quality.b"])) for url in urls]
        sides.append(commit(store, "web", pages, recipe={"n": n}))
    keys = []
    for manifest in sides:
        rows = [row for ref in manifest.ledgers for row in objects.read_table(store, ref).to_pylist()]
        keys.append({(r["id"], r["input"], r["ordinal"]): r["reason"] or r["fate"] for r in rows})
    pairs = [(keys[0].get(k, "absent"), keys[1].get(k, "absent")) for k in keys[0].keys() | keys[1].keys()]
    expected = {pair: n for pair, n in Counter(pairs).items() if pair[0] != pair[1]}
    result = diff(store, *sides)
    assert {(c.before, c.after): c.records for c in result.changes} == expected
    assert result.records.both == len(keys[0].keys() & keys[1].keys())
    assert result.kept.both == sum(pair == ("kept", "kept") for pair in pairs)


def test_diff_skips_shared_objects(store: Store, first: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = pages(20, p2=SHORT, p5=BROKEN, p7=COPY, p8=OTHER)
    i = next(i for i, page in enumerate(changed) if page.reason is None and page.id < "8")
    changed[i] = dataclasses.replace(changed[i], reason="quality.too_few_words", value="3")
    second = commit(store, "web", changed, recipe={"x": 1})
    read: list[str] = []
    monkeypatch.setattr(
        diffing,
        "iter_batches",
        lambda store, ref, columns: read.append(ref.sha256) or objects.iter_batches(store, ref, columns),
    )
    result = diff(store, first, second)
    assert (result.objects_shared, result.objects_read, len(read)) == (1, 2, 2)
    assert (result.records.both, result.kept.both, result.kept.only_a) == (20, 15, 1)
    assert ("quality", "quality.too_few_words", 1, 2) in result.funnel
    assert diff(store, first, first).changes == ()


def test_funnels_stand_side_by_side_in_the_order_of_both(store: Store, first: Manifest) -> None:
    rows = tuple(
        FunnelRow(stage=stage, received=n, passed=n - sum(dropped.values()), dropped=dropped)
        for stage, n, dropped in (("read", 9, {"read.a": 1}), ("new", 8, {"new.b": 2}), ("quality", 6, {}))
    )
    before = first.model_copy(update={"funnel": (rows[0], rows[2]), "recipe": {"quality": {"n": 1}, "new": None}})
    after = first.model_copy(update={"funnel": rows, "recipe": {"quality": {"n": 2}, "new": {"most": 3}}})
    result = diff(store, before, after)
    assert [(s.stage, s.passed, s.reasons, s.settings) for s in result.side_by_side] == [
        ("read", (8, 8), (("read.a", 1, 1),), ()),
        ("new", (None, 6), (("new.b", 0, 2),), ()),
        ("quality", (6, 6), (), (("n", 1, 2),)),
    ]
    assert result.received == (first.received.count,) * 2
    back = diff(store, after, before)
    assert [s.stage for s in back.side_by_side] == ["read", "new", "quality"]
    assert [s.passed for s in back.side_by_side] == [(8, 8), (6, None), (6, 6)]


def test_a_section_that_is_off_is_one_difference() -> None:
    off, on = {"a": None, "b": {"c": 1, "d": [2]}}, {"a": {"x": 1, "y": 2}, "b": {"c": 1, "d": [3]}, "e": 5}
    assert settings_that_differ(off, on) == (
        ("a", None, {"x": 1, "y": 2}),
        ("b.d", [2], [3]),
        ("e", None, 5),
    )
    assert recipe_changes(off, on) == ("a", "a.x", "a.y", "b.d", "e")
