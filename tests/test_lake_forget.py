"""Takedown: no version that is given out holds the records, the books still balance, and a crash changes nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import toy
from forget_lake import Doc, doc_id, docs, fates_of, files, ids_of, made_from, night, readable, sound

from lake.forget import ForgetReport, forget, plan_forget
from lake.forget_search import Search
from lake.gc import plan_gc, run_gc
from lake.growth import ancestry, plan_growth
from lake.manifest import Manifest
from lake.query import lineage
from lake.store import Store, open_store
from lake.suppress import Suppression
from lake.verify import verify
from lake.versions import CommitConflict, Versions
from stages.shards import Statistics

FORGOTTEN = ("dropped", "forget", "forget.requested", None, None)
COPY = Doc("https://copies.net/of-b", copy_of="https://example.org/b")
FIRST = [*docs("a", "b", "c", "d1", "d2", "e", "f"), COPY, Doc("https://shop.evil.com/1"), Doc("https://evil.com:81/2")]
SECOND = [
    *docs("g", "h"),
    Doc("https://copies.net/of-evil", copy_of="https://evil.com:81/2"),
    Doc("https://EVIL.com/3"),
]
URLS = Suppression.of(urls=["https://example.org/b", "https://example.org/h"])


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes here are of the process, not of the machine."""
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path / "lake"))


@pytest.fixture
def web(store) -> list[Manifest]:
    """`web` in two nights, and `code`, which has none of what is asked for."""
    first = night(store, "web", FIRST, file="a")
    night(store, "code", docs("x", "y"), file="code")
    return [first, night(store, "web", SECOND, first, file="b")]


def do(store: Store, request: Suppression, reason: str = "request 7") -> ForgetReport:
    versions = Versions(store)
    return forget(versions, plan_forget(versions, request), reason)


def erase(store: Store) -> None:
    run_gc(store, plan_gc(store, grace_seconds=0))


def gone_from(store: Store, *docs: Doc) -> None:
    """No version that is given out holds any of these, in any object."""
    versions, ids = Versions(store), {doc.id for doc in docs}
    for name in versions.names():
        away = versions.withdrawn(name)
        for manifest in versions.manifests(name):
            if manifest.version not in away:
                for kind in ("shard", "signatures", "contents", "clusters"):
                    assert not ids & set(ids_of(store, manifest, kind)), (str(manifest), kind)


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
    before = [one for one in ids_of(store, web[1]) if one not in {doc_id("https://example.org/b"), docs("h")[0].id}]
    assert ids_of(store, new) == before  # the same rows in the same order
    sound(store)


def test_the_ledger_says_what_became_of_them_and_of_nobody_else(store, web):
    before = fates_of(store, web[1])
    do(store, URLS)
    new = Versions(store).resolve("web")
    after = fates_of(store, new)
    turned = {one for one in after if after[one] != before[one]}
    assert turned == {d.id for d in docs("b", "h")} and all(after[one] == FORGOTTEN for one in turned)
    assert after[COPY.id] == ("dropped", "exact", "exact.duplicate", None, docs("b")[0].id)  # its text is not b's page


def test_books_balance_and_statistics_are_those_of_what_is_left(store, web):
    do(store, URLS)
    new = Versions(store).resolve("web")
    assert new.came_in == web[1].came_in and new.kept.count == web[1].kept.count - 2
    stats = Statistics()
    for ref in new.shards:
        stats.add(pq.read_table(store.open(ref.key)))
    assert new.statistics == stats.facts()
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
    first = night(other, "web", FIRST, file="a")
    night(other, "web", SECOND, first, file="b")
    do(other, URLS, "another reason")
    assert Versions(other).resolve("web").digest == new.digest


def test_sorted_objects_say_their_range_and_stay_sorted(store, web):
    lowest = min(web[0].ledgers[0].first, doc_id("https://example.org/b"))
    contents = next(ref for ref in web[0].attachments if ref.kind == "contents")
    first = pq.read_table(store.open(contents.key))["id"][0].as_py()
    do(store, Suppression.of(ids=[first]))
    new = Versions(store).resolve("web")
    found = [ref for ref in new.attachments if ref.kind == "contents"]
    for ref in found:
        keys = pq.read_table(store.open(ref.key))["content"].to_pylist()
        assert keys == sorted(keys) and (keys[0], keys[-1]) == (ref.first, ref.last) and len(keys) == ref.records
    assert found[0].first > contents.first and new.ledgers[0].first == min(lowest, new.ledgers[0].first)


def test_a_version_whose_every_text_goes_keeps_a_shard_for_its_readers(store):
    night(store, "web", docs("a", "b", "c"))
    do(store, Suppression.of(domains=["example.org"]))
    new = Versions(store).resolve("web")
    assert new.kept.count == 0 and [ref.records for ref in new.shards] == [0]
    assert Counter(ref.kind for ref in new.attachments)["signatures"] == 1
    assert "text" in pq.read_schema(store.open(new.shards[0].key)).names
    assert new.statistics == Statistics().facts()
    sound(store)


def test_many_row_groups_are_rewritten_without_a_gap(store, monkeypatch):
    from lake import forget_rewrite, objects

    for module in (objects, forget_rewrite):
        monkeypatch.setattr(module, "ROW_GROUP_ROWS", 7)
    night(store, "web", docs(*(f"p{i}" for i in range(60))))
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


# versions and what is made from them


def test_an_old_version_alone_is_withdrawn_and_the_latest_stays(store):
    night(store, "web", docs("a", "b"))
    later = night(store, "web", docs("a", "c"), file="b")
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
    other = night(store, "mid", FIRST, funnel=(rows[0], middle, rows[1].model_copy(update={"stage": "exact"})))
    do(store, Suppression.of(urls=["https://example.org/a"]))
    new = Versions(store).resolve("mid")
    assert [r.stage for r in new.funnel] == ["read", "forget", "exact"]
    assert new.funnel[1].dropped == {"forget.requested": 1}
    assert [r.came_in for r in new.funnel] == [r.came_in - n for r, n in zip(other.funnel, (0, 0, 1), strict=True)]


def test_its_inputs_are_found_through_the_versions_it_replaced(store, web):
    do(store, URLS)
    versions = Versions(store)
    inputs = {one.digest for manifest in web for one in manifest.inputs}
    assert ancestry(versions, "web", 3) == inputs
    assert plan_growth(versions, "web", {}, sorted(inputs)) == versions.resolve("web")  # nothing new tonight
    erase(store)
    assert ancestry(versions, "web", 3) == inputs
    grown = night(store, "web", docs("z"), versions.resolve("web"), file="c")
    assert grown.version == 4 and lineage(versions, "web").origins[0].ref == "web@v3"
    sound(store)


def test_a_version_that_only_lists_what_it_is_made_from_is_named_and_packs_go_with_it(store, web):
    mixture = made_from(store, "mix", web[1], "tokens", "mixture")
    pack = made_from(store, "packs", mixture, "pack")
    model = made_from(store, "model", pack, "weights", "init")
    clean = made_from(store, "other-pack", Versions(store).resolve("code"), "pack")
    plan = plan_forget(Versions(store), URLS)
    named = {(one.ref, one.role, one.withdraw) for one in plan.derived}
    assert named == {("mix@v1", "mixture", False), ("packs@v1", "input", True), ("model@v1", "init", False)}
    assert plan.unsearched == ("mix@v1", "model@v1")
    report = do(store, URLS)
    versions = Versions(store)
    assert report.withdrawn == ("packs@v1", "web@v1", "web@v2")
    assert [versions.withdrawn(name) for name in ("mix", "model", "other-pack")] == [{}, {}, {}]
    assert versions.resolve("other-pack") == clean and (mixture.version, model.version) == (1, 1)


def test_a_mixture_that_holds_the_text_gets_its_own_clean_version(store, web):
    mixture = night(store, "mix", docs("b", "q"), file="mix", sources=(web[1].ref,))
    report = do(store, URLS)
    assert set(report.made) == {("web@v2", "web@v3"), ("mix@v1", "mix@v2")}
    gone_from(store, *docs("b"))
    new = Versions(store).resolve("mix")
    assert new.sources == () and lineage(Versions(store), "mix").origins[0].ref == str(mixture)
    assert [one.ref for one in plan_forget(Versions(store), URLS).derived] == []


def test_what_has_no_ledger_is_withdrawn_and_gets_no_successor(store):
    night(store, "web", docs("a", "b"), ledgers=())
    report = do(store, Suppression.of(urls=["https://example.org/b"]))
    assert report.made == () and report.withdrawn == ("web@v1",)
    assert report.without_successor == {"web@v1": "it has no ledger of records"}


def test_a_ledger_that_does_not_know_a_record_gives_no_successor_that_lies(store):
    first = night(store, "web", docs("a", "b"))
    night(store, "web", docs("a", "c"), file="b", shards=first.shards)  # b is in a shard, and in no ledger row
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
    found = Search(Versions(store), request_)
    found.look()
    forgotten = [doc for doc in (*FIRST, *SECOND) if doc.id in found.found]
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


# crashes and company


class Killed(Exception):
    pass


def steps(store: Store, act: Callable[[Store], Any]) -> list[str]:
    """What the act writes, in order."""
    seen: list[str] = []
    act(Killing(store, -1, seen))
    return seen


class Killing:
    """A store that dies at its n-th write; `late`: the write is done, and the answer never comes."""

    def __init__(self, store: Store, n: int, seen: list[str], late: bool = False) -> None:
        self.store, self.n, self.seen, self.late = store, n, seen, late

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if name not in ("create", "put", "put_file"):
            return found

        def call(key: str, *args: Any) -> Any:
            if key.startswith("runs/"):
                return found(key, *args)
            self.seen.append(key)
            fatal = len(self.seen) - 1 == self.n
            if fatal and not self.late:
                raise Killed(key)
            result = found(key, *args)
            if fatal:
                raise Killed(key)
            return result

        return call


def lake_of(tmp_path: Path, name: str) -> Store:
    """A copy of one lake: two nights, a mixture that holds a text, a pack."""
    if not (tmp_path / "lake").exists():
        store = open_store(str(tmp_path / "lake"))
        first = night(store, "web", docs("a", "b", "c"), file="a")
        second = night(store, "web", docs("g", "h"), first, file="b")
        night(store, "mix", docs("b", "q"), file="mix", sources=(second.ref,))
        made_from(store, "packs", second, "pack")
    shutil.copytree(tmp_path / "lake", tmp_path / name)
    return open_store(str(tmp_path / name), probe=False)


def state(store: Store) -> dict[str, Any]:
    versions = Versions(store)
    return {name: ([m.digest for m in versions.manifests(name)], versions.withdrawn(name)) for name in versions.names()}


def test_killed_at_any_step_the_same_command_ends_where_an_undisturbed_one_does(tmp_path):
    calm = lake_of(tmp_path, "calm")
    written = steps(calm, lambda store: do(store, URLS))
    assert written[0].startswith("suppressions/")  # before anything else
    withdrawn = [key for key in written if "/withdrawn/" in key]
    assert written[-len(withdrawn) :] == withdrawn and "packs" in withdrawn[0]
    objects = [n for n, key in enumerate(written) if key.startswith("objects/")]
    for n, key in enumerate(written):
        if n in objects[1:-1:2]:  # one object not written is like another
            continue
        for late in (False, True) if not key.startswith("objects/") else (False,):
            store = lake_of(tmp_path, f"{n}-{late}")
            with pytest.raises(Killed):
                do(Killing(store, n, [], late), URLS)
            assert verify(store) == []
            report = do(store, URLS)
            assert state(store) == state(calm), (key, late)
            assert report.plan.nothing == (n == len(written) - 1 and late)
            shutil.rmtree(store.uri)
    sound(calm)


def test_the_same_command_again_changes_nothing(store, web):
    do(store, URLS)
    before = files(store)
    report = do(store, URLS)
    assert report.made == () == report.withdrawn and files(store) == before


def meanwhile(store: Store, when: Callable[[str, str], bool], act: Callable[[], Any]) -> toy.Watched:
    """A store where somebody else acts once, just before one of our steps."""
    done: list[bool] = []

    def before(verb: str, key: str) -> None:
        if not done and when(verb, key):
            done.append(True)
            act()

    return toy.Watched(store, before)


OTHER = Suppression.of(urls=["https://example.org/a"])
MOMENTS = {
    "list": lambda verb, key: verb == "create" and key.startswith("suppressions/"),
    "commit": lambda verb, key: verb == "create" and "/versions/" in key,
    "withdraw": lambda verb, key: verb == "create" and "/withdrawn/" in key,
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("theirs", [OTHER, URLS], ids=["other", "same"])
def test_two_at_once_both_count(store, web, moment, theirs):
    do(meanwhile(store, MOMENTS[moment], lambda: do(store, theirs)), URLS)
    gone_from(store, *docs("b", "h"), *(docs("a") if theirs is OTHER else []))
    versions = Versions(store)
    assert Suppression.load(store) == URLS.union([theirs])
    assert versions.latest("web") == max(versions.numbers("web")) == (4 if theirs is OTHER else 3)
    sound(store)


def test_a_night_that_commits_first_is_cleaned_as_well(store, web):
    other = [*docs("z", "h2"), Doc("https://evil.com/late")]
    request = Suppression.of(domains=["evil.com"])
    for moment in ("commit", "withdraw"):
        Versions(store)

        def grow(moment: str = moment) -> None:
            base = Versions(store).resolve("web")
            night(store, "web", [Doc(d.url + moment) for d in other], base, file=moment)

        do(meanwhile(store, MOMENTS[moment], grow), request)
        gone_from(store, *(Doc(d.url + moment) for d in other if "evil" in d.url), *FIRST[-2:], SECOND[-1])
        assert docs(f"z{moment}")[0].id in ids_of(store, Versions(store).resolve("web"))
        night(
            store, "web", [Doc(f"https://evil.com/again-{moment}")], Versions(store).resolve("web"), file=f"2{moment}"
        )
    do(store, request)
    sound(store)


def test_others_that_never_let_it_commit_are_named(store, web, monkeypatch):
    monkeypatch.setattr("lake.forget.ROUNDS", 3)
    count = iter(range(1000))

    def before(verb: str, key: str) -> None:
        if verb == "create" and "web/versions/" in key:
            night(store, "web", docs(f"n{next(count)}"), Versions(store).resolve("web"), file=key + str(next(count)))

    with pytest.raises(CommitConflict, match="other runs committed first 3 times"):
        do(toy.Watched(store, before), URLS)
    assert Suppression.load(store) == URLS


def test_an_object_that_is_lost_is_an_error_and_not_an_empty_answer(store, web):
    store.delete(web[1].shards[0].key)
    with pytest.raises(KeyError, match=web[1].shards[0].sha256[:12]):
        plan_forget(Versions(store), URLS)
    with pytest.raises(ValueError, match="no entries"):
        plan_forget(Versions(store), Suppression())


def test_a_look_again_reads_only_what_is_new(store, web):
    opened: list[str] = []

    class Counting(Killing):
        def __getattr__(self, name: str) -> Any:
            if name == "open":
                return lambda key: (opened.append(key), self.store.open(key))[1]
            return getattr(self.store, name)

    search = Search(Versions(Counting(store, -1, [])), URLS)
    search.look()
    assert opened
    opened.clear()
    search.look()
    assert opened == []
