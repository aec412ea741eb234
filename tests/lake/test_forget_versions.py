"""Takedown across versions: successors, ancestry, what is made from them, and what gc leaves on the disk."""

from __future__ import annotations

import pytest
from forget_lake import (
    FIRST,
    SECOND,
    URLS,
    do,
    docs,
    erase,
    files,
    gone_from,
    ids_of,
    increment,
    made_from,
    readable,
    sound,
    two_nights,
)

from gristmill.lake.query.query import lineage
from gristmill.lake.takedown.forget import plan_forget
from gristmill.lake.takedown.search import Search
from gristmill.lake.takedown.suppress import Suppression
from gristmill.lake.versions.growth import ancestry, plan_growth
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions


@pytest.fixture
def web(store) -> list[Manifest]:
    return two_nights(store)


# versions and what is made from them


def test_an_old_version_alone_is_withdrawn_and_the_latest_stays(store):
    increment(store, "web", docs("a", "b"))
    later = increment(store, "web", docs("a", "c"), file="b")
    report = do(store, Suppression.of(urls=["https://example.org/b"]))
    assert report.made == () and report.withdrawn == ("web@v1",)
    assert Versions(store).resolve("web") == later


def test_a_second_request_extends_the_funnel_and_the_chain(store, web):
    do(store, URLS)
    do(store, Suppression.of(urls=["https://example.org/a"]))
    versions = Versions(store)
    new = versions.resolve("web")
    assert new.version == 4 and [r.stage for r in new.funnel] == ["read", "exact", "forget"]
    assert new.funnel[-1].dropped == {"forget.requested": 3} and new.funnel[-1].passed == new.kept.count
    assert set(versions.withdrawn("web")) == {1, 2, 3}
    sound(store)


def test_a_row_forget_in_the_middle_of_the_funnel_moves_what_follows(store, web):
    rows = [row.model_copy() for row in web[1].funnel]
    middle = rows[0].model_copy(update={"stage": "forget"})
    other = increment(store, "mid", FIRST, funnel=(rows[0], middle, rows[1].model_copy(update={"stage": "exact"})))
    do(store, Suppression.of(urls=["https://example.org/a"]))
    new = Versions(store).resolve("mid")
    assert [r.stage for r in new.funnel] == ["read", "forget", "exact"]
    assert new.funnel[1].dropped == {"forget.requested": 1}
    assert [r.received for r in new.funnel] == [r.received - n for r, n in zip(other.funnel, (0, 0, 1), strict=True)]


def test_its_inputs_are_found_through_the_versions_it_replaced(store, web):
    do(store, URLS)
    versions = Versions(store)
    inputs = {file.digest for manifest in web for file in manifest.inputs}
    assert ancestry(versions, "web", 3) == inputs
    assert plan_growth(versions, "web", {}, sorted(inputs)) == versions.resolve("web")  # nothing is new
    erase(store)
    assert ancestry(versions, "web", 3) == inputs
    grown = increment(store, "web", docs("z"), versions.resolve("web"), file="c")
    assert grown.version == 4 and lineage(versions, "web").origins[0].ref == "web@v3"
    sound(store)


def test_a_version_that_only_lists_what_it_is_made_from_is_named_and_packs_go_with_it(store, web):
    mixture = made_from(store, "mix", web[1], "shard", "mixture")
    pack = made_from(store, "packs", mixture, "pack")
    model = made_from(store, "model", pack, "weights", "init")
    clean = made_from(store, "other-pack", Versions(store).resolve("code"), "pack")
    plan = plan_forget(Versions(store), URLS)
    named = {(derived.ref, derived.role, derived.withdraw) for derived in plan.derived}
    assert named == {("mix@v1", "mixture", False), ("packs@v1", "input", True), ("model@v1", "init", False)}
    assert plan.unsearched == ("mix@v1",)  # weights hold no rows; what the model was made from names it above
    report = do(store, URLS)
    versions = Versions(store)
    assert report.withdrawn == ("packs@v1", "web@v1", "web@v2")
    assert [versions.withdrawn(name) for name in ("mix", "model", "other-pack")] == [{}, {}, {}]
    assert versions.resolve("other-pack") == clean and (mixture.version, model.version) == (1, 1)


def test_a_mixture_that_holds_the_text_gets_its_own_clean_version(store, web):
    mixture = increment(store, "mix", docs("b", "q"), file="mix", sources=(web[1].ref,))
    report = do(store, URLS)
    assert set(report.made) == {("web@v2", "web@v3"), ("mix@v1", "mix@v2")}
    gone_from(store, *docs("b"))
    new = Versions(store).resolve("mix")
    assert new.sources == () and lineage(Versions(store), "mix").origins[0].ref == str(mixture)
    assert [derived.ref for derived in plan_forget(Versions(store), URLS).derived] == []


def test_what_has_no_ledger_is_withdrawn_and_gets_no_successor(store):
    increment(store, "web", docs("a", "b"), ledgers=())
    report = do(store, Suppression.of(urls=["https://example.org/b"]))
    assert report.made == () and report.withdrawn == ("web@v1",)
    assert report.without_successor == {"web@v1": "it has no ledger of records"}


def test_a_ledger_that_does_not_know_a_record_gives_no_successor_that_lies(store):
    first = increment(store, "web", docs("a", "b"))
    increment(store, "web", docs("a", "c"), file="b", shards=first.shards)  # b is in a shard, and in no ledger row
    report = do(store, Suppression.of(urls=["https://example.org/b"]))
    assert report.made == () and set(report.withdrawn) == {"web@v1", "web@v2"}
    assert "1 records go from its shards, its ledger has 0" in report.without_successor["web@v2"]


def test_tags_of_withdrawn_versions_are_named_and_not_moved(store, web):
    versions = Versions(store)
    versions.tag("web", 1, "release")
    plan = plan_forget(versions, URLS)
    assert plan.affected[0].tags == ("release",)
    do(store, URLS)
    assert versions.tags("web") == {"release": 1}


def test_nothing_found_is_still_remembered(store, web):
    request = Suppression.of(urls=["https://example.org/never-seen"])
    report = do(store, request)
    assert report.plan.nothing and report.made == () == report.withdrawn
    assert Suppression.load(store) == request and Versions(store).numbers("web") == [1, 2]


def test_a_plan_changes_nothing(store, web):
    before = files(store)
    plan_forget(Versions(store), URLS.union([Suppression.of(domains=["evil.com"])]))
    assert files(store) == before


def test_other_datasets_are_not_touched(store, web):
    code = files(store)
    do(store, URLS)
    after = files(store)
    assert {k: v for k, v in after.items() if k.startswith("datasets/code/")} == {
        k: v for k, v in code.items() if k.startswith("datasets/code/")
    }


# erasing


@pytest.mark.parametrize("request_", [URLS, Suppression.of(domains=["evil.com"])], ids=["urls", "domain"])
def test_after_gc_no_byte_of_them_is_in_any_file(store, web, request_):
    search = Search(Versions(store), request_)
    search.look()
    forgotten = [doc for doc in (*FIRST, *SECOND) if doc.id in search.ids]
    needles = [n.encode() for doc in forgotten for n in (doc.text.split()[0], doc.url, doc.url.split("/")[2].lower())]
    needles = [n for n in needles if n != b"example.org"]
    assert forgotten and all(any(n in data for _, data in readable(store)) for n in needles[:1])
    do(store, request_)
    erase(store)
    # a copy that was dropped in a forgotten page's favour has the same text; it is extraction's, and gone as well
    assert [(path, n) for path, data in readable(store) for n in needles if n in data] == []
    sound(store)
    assert Versions(store).resolve("web").kept.count == web[1].kept.count - sum(d.copy_of is None for d in forgotten)


def test_gc_keeps_what_other_versions_share(store, web):
    do(store, URLS)
    erase(store)
    assert ids_of(store, Versions(store).resolve("code")) == [d.id for d in docs("x", "y")]
    again = do(store, URLS)  # withdrawn versions have lost their objects; that is no error
    assert again.plan.nothing
