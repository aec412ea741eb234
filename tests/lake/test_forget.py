"""Takedown: the records go from every object, everything else stays as it is, and the books still balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest
from forget_lake import (
    COPY,
    FIRST,
    SECOND,
    URLS,
    do,
    doc_id,
    docs,
    fates_of,
    gone_from,
    ids_of,
    increment,
    sound,
    two_nights,
)

from gristmill.lake.store.opening import open_store
from gristmill.lake.takedown.forget import plan_forget
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.stages.core.shards import Statistics

FORGOTTEN = ("dropped", "forget", "forget.requested", None, None)


@pytest.fixture
def web(store) -> list[Manifest]:
    return two_nights(store)


# what it does


def test_every_dataset_gets_a_clean_version_and_all_that_held_a_record_are_withdrawn(store, web):
    report = do(store, URLS)
    versions = Versions(store)
    assert report.made == (("web@v2", "web@v3"),) and report.withdrawn == ("web@v1", "web@v2")
    assert set(versions.withdrawn("web")) == {1, 2} and versions.withdrawn("code") == {}
    assert versions.withdrawn("web")[1].endswith(": request 7")
    new = versions.resolve("web")
    assert new.version == 3 and new.parent == web[1].ref.model_copy(update={"role": "forget"})
    gone_from(store, *docs("b", "h"))
    forgotten = {doc_id("https://example.org/b"), docs("h")[0].id}
    before = [record for record in ids_of(store, web[1]) if record not in forgotten]
    assert ids_of(store, new) == before  # the same rows in the same order
    sound(store)


def test_the_ledger_says_what_became_of_them_and_of_nobody_else(store, web):
    before = fates_of(store, web[1])
    do(store, URLS)
    new = Versions(store).resolve("web")
    after = fates_of(store, new)
    turned = {record for record in after if after[record] != before[record]}
    assert turned == {d.id for d in docs("b", "h")} and all(after[record] == FORGOTTEN for record in turned)
    assert after[COPY.id] == ("dropped", "exact", "exact.duplicate", None, docs("b")[0].id)  # its text is not b's page


def test_books_balance_and_statistics_are_those_of_what_is_left(store, web):
    do(store, URLS)
    new = Versions(store).resolve("web")
    assert new.received == web[1].received and new.kept.count == web[1].kept.count - 2
    shards = [pq.read_table(store.open(ref.key)) for ref in new.shards]
    assert new.statistics == asdict(sum((Statistics.of(shard) for shard in shards), Statistics()))
    last = new.funnel[-1]
    assert (last.stage, last.dropped, last.passed) == ("forget", {"forget.requested": 2}, new.kept.count)
    assert new.inputs == () and new.recipe["forget"] == {"suppression": URLS.digest}
    assert new.recipe["minhash"] == web[1].recipe["minhash"]


def test_statistics_drop_a_language_that_is_gone(store, web):
    do(store, Suppression.of(urls=[d.url for d in docs("d1", "d2")]))
    assert list(Versions(store).resolve("web").statistics["languages"]) == ["en"]


def test_a_domain_takes_its_subdomains_and_the_signatures_of_its_dropped_duplicates(store, web):
    request = Suppression.of(domains=["EVIL.com", "copies.net"])
    report = do(store, request)
    evil = [*FIRST[-3:], *SECOND[-2:]]
    gone_from(store, *evil)
    assert report.plan.affected[0].records == 3 and report.plan.ids == 5
    assert report.plan.affected[0].rows == {"clusters": 2, "contents": 3, "signatures": 5}
    after = fates_of(store, Versions(store).resolve("web"))
    assert Counter(after[doc.id][2] for doc in evil) == {"forget.requested": 3, "exact.duplicate": 2}
    sound(store)


def test_what_does_not_hold_them_is_kept_by_reference_and_the_same_request_gives_the_same_bytes(store, web, tmp_path):
    do(store, URLS)
    new = Versions(store).resolve("web")
    old = {ref.sha256 for ref in web[1].objects()}
    assert new.shards[1] == web[1].shards[1] and {r.kind for r in new.objects() if r.sha256 in old} >= {
        "refs",
        "receipts",
    }
    other = open_store(str(tmp_path / "other"))
    first = increment(other, "web", FIRST, file="a")
    increment(other, "web", SECOND, first, file="b")
    do(other, URLS, "another reason")
    assert Versions(other).resolve("web").digest == new.digest


def test_sorted_objects_say_their_range_and_stay_sorted(store, web):
    lowest = min(web[0].ledgers[0].first, doc_id("https://example.org/b"))
    contents = next(ref for ref in web[0].attachments if ref.kind == "contents")
    first = pq.read_table(store.open(contents.key))["id"][0].as_py()
    do(store, Suppression.of(ids=[first]))
    new = Versions(store).resolve("web")
    rewritten = [ref for ref in new.attachments if ref.kind == "contents"]
    for ref in rewritten:
        keys = pq.read_table(store.open(ref.key))["content"].to_pylist()
        assert keys == sorted(keys) and (keys[0], keys[-1]) == (ref.first, ref.last) and len(keys) == ref.records
    assert rewritten[0].first > contents.first and new.ledgers[0].first == min(lowest, new.ledgers[0].first)


def test_a_version_whose_every_text_goes_keeps_a_shard_for_its_readers(store):
    increment(store, "web", docs("a", "b", "c"))
    do(store, Suppression.of(domains=["example.org"]))
    new = Versions(store).resolve("web")
    assert new.kept.count == 0 and [ref.records for ref in new.shards] == [0]
    assert Counter(ref.kind for ref in new.attachments)["signatures"] == 1
    assert "text" in pq.read_schema(store.open(new.shards[0].key)).names
    assert new.statistics == asdict(Statistics())
    sound(store)


def test_many_row_groups_are_rewritten_without_a_gap(store, monkeypatch):
    from gristmill.lake.store import objects
    from gristmill.lake.takedown import rewrite as forget_rewrite

    for module in (objects, forget_rewrite):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 7)
    increment(store, "web", docs(*(f"p{i}" for i in range(60))))
    do(store, Suppression.of(urls=[f"https://example.org/p{i}" for i in range(10, 40, 3)]))
    new = Versions(store).resolve("web")
    assert ids_of(store, new) == [docs(f"p{i}")[0].id for i in range(60) if i not in range(10, 40, 3)]
    sound(store)


def test_a_record_dropped_before_keeps_its_fate_and_loses_its_signature(store, web):
    report = do(store, Suppression.of(urls=[COPY.url]))
    new = Versions(store).resolve("web")
    gone_from(store, COPY)
    assert fates_of(store, new)[COPY.id][2] == "exact.duplicate" and new.kept == web[1].kept
    assert report.plan.affected[0].records == 0 and new.funnel[-1].dropped == {}
    sound(store)


def test_duplicates_of_a_forgotten_record_stay_dropped_and_are_counted(store, web):
    plan = plan_forget(Versions(store), URLS)
    assert plan.affected[0].followers == 1
    both = plan_forget(Versions(store), URLS.union([Suppression.of(urls=[COPY.url])]))
    assert both.affected[0].followers == 0  # it goes itself
