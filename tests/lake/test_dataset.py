"""`lake.open`: a version as Arrow, as Ray Data and as a ledger, and what is said when there is none."""

from __future__ import annotations

import sys
from typing import Any
from xml.etree import ElementTree

import mixtures
import pyarrow as pa
import pytest
import torch
from lake_builder import Page, commit, pages
from torch.utils.data import DataLoader

import gristmill
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


def loader_of(data: Any, workers: int, batch_size: int | None) -> DataLoader[Any]:
    """Its workers are forked from a server: a fork of this process would inherit what other tests left running."""
    context = "forkserver" if workers else None
    return DataLoader(data, batch_size, num_workers=workers, multiprocessing_context=context)


class TestPyTorch:
    """`to_torch`: an IterableDataset whose parts are disjoint, and together everything."""

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_loader_has_each_record_once(self, store, workers):
        web = lake.open("web@v1", lake=store.uri)
        data = web.to_torch(["url", "ordinal"])
        assert "web@v1" in repr(data)
        loader = loader_of(data, workers, batch_size=4)
        batches = list(loader)
        assert all(isinstance(batch["ordinal"], torch.Tensor) for batch in batches)
        urls = [url for batch in batches for url in batch["url"]]
        assert sorted(urls) == sorted(web.to_arrow()["url"].to_pylist())
        assert workers or urls == web.to_arrow()["url"].to_pylist()

    def test_ranks_share_the_records(self, store):
        web = lake.open("web@v1", lake=store.uri)
        parts = [[row["url"] for row in web.to_torch(rank=rank, world=2)] for rank in (0, 1)]
        assert all(parts) and parts[0] + parts[1] == web.to_arrow()["url"].to_pylist()
        with pytest.raises(ValueError, match="rank=2 of world=2"):
            web.to_torch(rank=2, world=2)

    def test_windows_come_in_the_order_of_an_epoch_whatever_the_workers(self, store, tmp_path):
        mixtures.documents(store, "pages", mixtures.texts(40))
        mixtures.tokenizer(store, "pages@v1")
        mixtures.mix(store, {"pages@v1": 1.0}, tokens=3_000)
        mix = lake.open("mix@v1", lake=store.uri)
        reader = gristmill.windows("mix@v1", store.uri, seed=3)
        n = len(reader)
        expected = [sample.arrays["input_ids"].tolist() for _, sample in reader.iterate(n, stop=2 * n)]
        for workers in (0, 2):
            loader = loader_of(mix.to_torch(seed=3, epoch=1), workers, batch_size=None)
            assert [window["input_ids"].tolist() for window in loader] == expected and n > 2
        by_rank = [list(mix.to_torch(seed=3, epoch=1, rank=rank, world=2)) for rank in (0, 1)]
        assert [window["input_ids"].tolist() for window in by_rank[1]] == expected[1::2]
        with pytest.raises(ValueError, match="no columns"):
            mix.to_torch(["text"])

    def test_what_has_no_records_is_refused_as_for_arrow(self, store):
        mixtures.documents(store, "pages", mixtures.texts(40))
        mixtures.tokenizer(store, "pages@v1")
        with pytest.raises(TypeError, match="bpe@v1 holds no records, but a tokenizer"):
            lake.open("bpe@v1", lake=store.uri).to_torch()


class TestHuggingFace:
    """`to_hf`: a `datasets.Dataset` of the same rows."""

    def test_the_rows_are_those_of_arrow(self, store):
        pytest.importorskip("datasets")
        web = lake.open("web@v1", lake=store.uri)
        assert web.to_hf().to_list() == web.to_arrow().to_pylist()
        assert web.to_hf(["url"]).column_names == ["url"]
        assert list(web.to_hf(["url"], streaming=True)) == web.to_arrow(["url"]).to_pylist()

    def test_without_the_package_it_says_what_to_install(self, store, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ImportError, match=r"web@v1: to_hf needs .*pip install 'gristmill\[datasets\]'"):
            lake.open("web@v1", lake=store.uri).to_hf()


def test_a_notebook_shows_what_a_version_holds_and_no_markup_of_others(store):
    planted = Page("https://example.org/1", "quality.<script>alert(1)</script>", "1")
    commit(store, "odd", pages(3, p1=planted), file="c")
    shown = lake.open("odd", lake=store.uri)._repr_html_()
    assert "odd@v1" in shown and "3 in = 2 kept + 1 dropped + 0 quarantined" in shown and "id: string" in shown
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    ElementTree.fromstring(shown)
