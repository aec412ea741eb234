"""Questions asked of a lake: listings, lineage, why, sample."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lake_builder import BROKEN, COPY, OTHER, SHORT, commit, mixed_pages, page_id, pages
from typer.testing import CliRunner

from gristmill.lake.accounts import ledger
from gristmill.lake.accounts.identity import url_hash
from gristmill.lake.query import why
from gristmill.lake.query.checkout import checkout
from gristmill.lake.query.diff import diff
from gristmill.lake.query.query import describe, lineage, list_datasets, list_versions, resolve_usable
from gristmill.lake.query.sampling import GONE, NEVER, UNKNOWN, sample
from gristmill.lake.store import objects
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions import chains
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.roots import slot_key
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.orchestration.cli.main import app


@pytest.fixture
def first(store: Store) -> Manifest:
    return commit(store, "web", mixed_pages())


def test_listings_show_tags_and_withdrawn_versions(store: Store, first: Manifest) -> None:
    versions = Versions(store)
    commit(store, "web", pages(4), file="b")
    versions.tag("web", 1, "paper")
    versions.withdraw("web", 2, "a takedown")
    (dataset,) = list_datasets(versions)
    assert (dataset.versions, dataset.latest.version, dataset.tags) == (2, 1, {"paper": 1})
    assert dataset.withdrawn == {2: "a takedown"}
    newest, oldest = list_versions(versions, "web")
    assert (newest.version, newest.withdrawn, newest.kept) == (2, "a takedown", 4)
    assert (oldest.tags, oldest.received, oldest.kept, oldest.dropped, oldest.quarantined) == (("paper",), 20, 16, 3, 1)
    assert describe(versions, "web@v2").withdrawn == "a takedown"
    with pytest.raises(NoSuchVersion, match="was withdrawn"):
        resolve_usable(versions, "web@v2")
    with pytest.raises(NoSuchVersion, match="it has web"):
        list_versions(versions, "nope")


def test_lineage_has_both_parents_and_shows_shared_origins_once(store: Store, first: Manifest) -> None:
    math = commit(store, "math", pages(3), file="math.jsonl", sources=[first.ref])
    mixed = commit(
        store,
        "mix",
        pages(5),
        file="c",
        sources=[first.ref.model_copy(update={"role": "text"}), math.ref.model_copy(update={"role": "maths"})],
    )
    node = lineage(Versions(store), str(mixed))
    assert [(origin.ref, origin.role, origin.repeated) for origin in node.origins] == [
        ("web@v1", "text", False),
        ("math@v1", "maths", False),
    ]
    assert [i.names for i in node.origins[0].inputs] == [("crawl/a.warc.gz",)]
    (again,) = node.origins[1].origins
    assert again.repeated and again.ref == "web@v1" and not again.inputs


def test_lineage_says_when_an_origin_is_not_what_it_was(store: Store, first: Manifest) -> None:
    forged = first.ref.model_copy(update={"digest": "0" * 64})
    gone = first.ref.model_copy(update={"version": 9})
    node = lineage(Versions(store), str(commit(store, "mix", pages(2), file="c", sources=[forged, gone])))
    assert "not 000000000000" in str(node.origins[0].problem)
    assert "not in this lake" in str(node.origins[1].problem)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/2",
        "HTTPS://Example.ORG:443/2",
        "https://example.org/./x/../2#part",
        " https://example.org/%32 ",
    ],
)
def test_why_finds_every_spelling_of_a_url(store: Store, first: Manifest, url: str) -> None:
    (story,) = why.why(Versions(store), url).stories
    assert (story.fate, story.reason, story.value, story.versions) == ("dropped", SHORT.reason, "12", (1,))
    assert (story.place.names, story.place.start, story.place.length) == (("crawl/a.warc.gz",), 2000, 1000)


def test_in_a_large_lake_why_stays_a_lookup_and_says_what_it_did_not_do(
    store: Store, first: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = "https://example.org/a%7Eb~c?q=x%20y"
    assert not why.why(Versions(store), absent).unscanned
    monkeypatch.setattr(why, "SCANNED_RECORDS", first.received.count - 1)
    monkeypatch.setattr(why, "ids_of_page", lambda versions, url: pytest.fail("URL columns are read"))
    assert why.why(Versions(store), absent).unscanned
    assert not why.why(Versions(store), SHORT.url).unscanned


def test_many_prefixes_find_what_each_of_them_does(store: Store, first: Manifest) -> None:
    """One pass over the ids, where a URL can be spelled in many ways."""
    refs = [ref for ref in first.ledgers if ref.kind == "ledger"]
    prefixes = [*(url_hash(f"https://example.org/{n}") for n in range(12)), *(f"{n:016x}" for n in range(40))]
    each = {row["id"] for prefix in prefixes for row in ledger.find(store, refs, prefix).to_pylist()}
    for asked in (prefixes, prefixes[:3], prefixes[40:], []):
        rows = [row for ref in refs for row in ledger.find_any(store, ref, asked).to_pylist()]
        assert {row["id"] for row in rows} == {record for record in each if record[:16] in asked}
        assert len(rows) == len({row["id"] for row in rows})
    assert len(each) == 12


def test_why_joins_versions_that_agree_and_reads_a_shared_object_once(
    store: Store, first: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, "web", pages(20, p2=SHORT, p5=BROKEN, p7=COPY, p8=OTHER), recipe={"other": 1})
    commit(store, "web", pages(20), recipe={"other": 2})
    commit(store, "copy", pages(20, p2=SHORT, p5=BROKEN, p7=COPY, p8=OTHER))
    reads: list[str] = []
    find = chains.ledger.find

    def counting(store: Store, refs: list[objects.ObjectRef], prefix: str) -> object:
        reads.extend(ref.sha256 for ref in refs)
        return find(store, refs, prefix)

    monkeypatch.setattr(chains.ledger, "find", counting)
    answer = why.why(Versions(store), SHORT.id)
    assert [(s.dataset, s.versions, s.fate) for s in answer.stories] == [
        ("copy", (1,), "dropped"),
        ("web", (1, 2), "dropped"),
        ("web", (3,), "kept"),
    ]
    assert len(reads) == len(set(reads)) == 2
    assert [s.dataset for s in why.why(Versions(store), SHORT.id[:8], "copy").stories] == ["copy"]


def test_why_names_the_survivor_of_a_duplicate(store: Store, first: Manifest) -> None:
    (story,) = why.why(Versions(store), COPY.url).stories
    assert story.survivor is not None and story.survivor.place is not None
    assert (story.survivor.id, story.survivor.fate, story.survivor.place.ordinal) == (
        page_id("https://example.org/1"),
        "kept",
        1,
    )


def test_why_says_what_it_searched_and_what_it_could_not(store: Store, first: Manifest) -> None:
    versions = Versions(store)
    nothing = why.why(versions, "https://example.org/none#x")
    assert (nothing.stories, nothing.normalised) == ((), "https://example.org/none")
    assert nothing.searched == {"web": (1,)}
    for ref in first.ledgers:
        store.delete(ref.key)
    assert why.why(versions, SHORT.url).unreadable == ("web@v1",)
    with pytest.raises(NoSuchVersion):
        why.why(versions, SHORT.url, "nope")


def test_sample_is_the_same_for_a_seed_and_spans_shards(store: Store, first: Manifest) -> None:
    versions = Versions(store)
    once, again = (sample(versions, first, 4, seed=7) for _ in range(2))
    assert once == again and once.population == 16 and len(once.samples) == 4
    assert any(sample(versions, first, 4, seed=s) != once for s in range(5))
    everything = sample(versions, first, 99)
    assert len({shown.id for shown in everything.samples}) == 16
    assert all(shown.text.startswith(f"The text of {shown.fields['url']}") for shown in everything.samples)


def test_sample_of_dropped_records_finds_their_text_or_says_why_not(store: Store, first: Manifest) -> None:
    versions = Versions(store)
    (short,) = sample(versions, first, reason="quality.too_few_words").samples
    assert (short.id, short.text, short.value, short.fields["url"]) == (SHORT.id, SHORT.text, "12", SHORT.url)
    assert {shown.id for shown in sample(versions, first, fate="dropped").samples} == {SHORT.id, COPY.id, OTHER.id}
    (broken,) = sample(versions, first, fate="quarantined").samples
    assert (broken.id, broken.text, broken.why_no_text) == (BROKEN.id, None, NEVER)
    for line in store.get(first.attachments[0].key).splitlines():
        for ref in json.loads(line)["outputs"]:
            store.delete(objects.ObjectRef(**ref).key)
    assert sample(versions, first, reason="quality.too_few_words").samples[0].why_no_text == GONE
    assert sample(versions, first, reason="read.not_a_page").samples[0].why_no_text == NEVER
    silent = commit(store, "web", pages(4, p2=SHORT), recipe={"x": 1}, receipts=False)
    assert sample(versions, silent, fate="dropped").samples[0].why_no_text == UNKNOWN


def test_sample_refuses_what_it_cannot_mean(store: Store, first: Manifest) -> None:
    with pytest.raises(NoSuchVersion, match="it has read"):
        sample(Versions(store), first, reason="quality.nope")
    with pytest.raises(ValueError, match="kept, dropped, quarantined"):
        sample(Versions(store), first, fate="lost")


def test_everything_works_on_s3(s3_lake: str, tmp_path: Path) -> None:
    store = open_store(s3_lake)
    first = commit(store, "web", pages(6, p2=SHORT))
    second = commit(store, "web", pages(6), recipe={"x": 1})
    versions = Versions(store)
    assert [s.versions for s in why.why(versions, SHORT.url).stories] == [(1,), (2,)]
    assert diff(store, first, second).kept.only_b == 1
    assert sample(versions, first, fate="dropped").samples[0].text == SHORT.text
    assert checkout(store, first, tmp_path / "out").written == 2


def test_of_an_origin_that_cannot_be_read_no_number_of_records_is_told(store: Store, first: Manifest) -> None:
    commit(store, "mix", pages(2), file="c", sources=[first.ref])
    store.put(slot_key("web", 1), b"[]")
    result = CliRunner().invoke(app, ["lineage", "mix", "--lake", store.uri])
    assert "cannot be read" in result.stdout and "2 records" in result.stdout and " 0 records" not in result.stdout
