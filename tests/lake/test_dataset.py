"""`lake.open`: a version as Arrow, as Ray Data and as a ledger, and what is said when there is none."""

from __future__ import annotations

import pyarrow as pa
import pytest
from lake_builder import Page, commit, pages

from gristmill import lake
from gristmill.lake.accounts import ledger
from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.versions import NoSuchVersion, Versions
from gristmill.stages.run.cluster import connect

SHORT = Page("https://example.org/2", "quality.too_few_words", "12")
BROKEN = Page("https://example.org/5", "read.unreadable", "bad chunk")


@pytest.fixture
def store(tmp_path) -> Store:
    """web@v1 has 20 records, 18 of them kept, in two shards; v2 has another threshold and 19."""
    store = open_store(str(tmp_path / "lake"))
    commit(store, "web", pages(20, p2=SHORT, p5=BROKEN))
    commit(store, "web", pages(20, p5=BROKEN), recipe={"quality": {"min_words": 10}})
    return store


def test_all_records_in_the_order_of_the_shards(store):
    web = lake.open("web@v1", lake=store.uri)
    table = web.to_arrow()
    assert len(web) == table.num_rows == 18 and len(web.manifest.shards) == 2
    wanted = [f"https://example.org/{i}" for i in range(20) if i not in (2, 5)]
    assert table["url"].to_pylist() == wanted


@pytest.mark.parametrize("columns", [["text"], ["url", "id"], ("id", "url")])
def test_only_the_columns_that_are_asked_for_in_that_order(store, columns):
    web = lake.open("web@v1", lake=store.uri)
    assert web.to_arrow(columns).equals(web.to_arrow().select(list(columns)))


def test_a_column_that_is_not_there_is_named_with_those_that_are(store):
    with pytest.raises(KeyError, match=r"web@v2 has no column language, txt; it has id, input, ordinal, url, text"):
        lake.open("web", lake=store.uri).to_arrow(["txt", "id", "language"])


def test_the_ledger_has_a_row_for_every_record_sorted_by_id(store):
    table = lake.open("web@v1", lake=store.uri).ledger()
    assert table.schema.equals(ledger.SCHEMA) and table.num_rows == 20
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    assert ledger.reasons(table) == {"quality.too_few_words": 1, "read.unreadable": 1}


def test_a_dataset_says_what_it_is(store):
    web = lake.open("web@v1", lake=store.uri)
    assert repr(web) == f"Dataset(web@v1, 18 records, {web.manifest.digest[:12]}, {store.uri})"


def test_the_latest_a_number_and_a_tag(store):
    Versions(store).tag("web", 1, "golden")
    numbers = [lake.open(ref, lake=store.uri).manifest.version for ref in ("web", "web@latest", "web@v1", "web@golden")]
    assert numbers == [2, 2, 1, 1]


def test_a_version_that_was_withdrawn_is_not_given_out(store):
    Versions(store).withdraw("web", 2, "takedown 17")
    assert lake.open("web", lake=store.uri).manifest.version == 1
    with pytest.raises(NoSuchVersion, match=r"web@v2 was withdrawn \(takedown 17\)"):
        lake.open("web@v2", lake=store.uri)


def test_what_is_not_there_is_said_with_what_is(store):
    with pytest.raises(NoSuchVersion, match="web has no v9; it has v1, v2"):
        lake.open("web@v9", lake=store.uri)
    with pytest.raises(NoSuchVersion, match=r"there is no dataset 'wob' in .*; it has web"):
        lake.open("wob", lake=store.uri)
    with pytest.raises(ValueError, match="dataset name 'Web!'"):
        lake.open("Web!", lake=store.uri)


def test_the_lake_is_the_argument_or_the_environment(store, monkeypatch):
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    with pytest.raises(ValueError, match="no lake: pass lake='/dir' or 's3://bucket/prefix', or set GRIST_LAKE"):
        lake.open("web")
    monkeypatch.setenv("GRIST_LAKE", store.uri)
    assert lake.open("web").manifest.version == 2
    monkeypatch.chdir(store.uri)
    assert lake.open("web", lake="../lake").store.uri == store.uri  # here a relative one means this directory


def test_looking_writes_nothing(store, tmp_path):
    before = sorted(path for path in tmp_path.rglob("*"))
    web = lake.open("web", lake=store.uri)
    web.to_arrow(), web.ledger()
    assert sorted(path for path in tmp_path.rglob("*")) == before
    with pytest.raises(NoSuchVersion, match="it has none"):
        lake.open("web", lake=str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_ray_data_has_the_same_records(store):
    connect(2)
    web = lake.open("web@v1", lake=store.uri)
    batches = web.to_ray(["url", "id"]).iter_batches(batch_format="pyarrow")
    rows = pa.concat_tables(batches).sort_by("id")
    assert rows.select(["url", "id"]).to_pylist() == web.to_arrow(["url", "id"]).sort_by("id").to_pylist()
    with pytest.raises(KeyError, match="web@v1 has no column txt; it has id"):
        web.to_ray(["txt"])
