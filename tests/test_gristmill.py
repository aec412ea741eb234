"""`import gristmill`: the public API, each name by what it promises."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from hf import save_all
from lake_builder import Page, commit, pages
from mixtures import mix, sources

import gristmill
from gristmill.api import fitting
from gristmill.lake.store.opening import open_store
from gristmill.pipelines import command

__all__ = ["sources"]  # a fixture


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """web@v1 has 20 records, of which one was dropped, in two shards."""
    uri = str(tmp_path / "lake")
    commit(open_store(uri), "web", pages(20, p2=Page("https://example.org/2", "quality.too_few_words", "12")))
    return uri


def test_records_one_by_one_and_as_a_frame(lake):
    web = gristmill.open("web@v1", lake=lake)
    records = list(web)
    assert len(web) == len(records) == 19
    assert records == web.to_arrow().to_pylist() == web.to_pandas().to_dict("records")
    assert list(web.iterate(columns=["url"])) == [{"url": record["url"]} for record in records]
    assert list(web.to_pandas(columns=["url", "id"]).columns) == ["url", "id"]


def test_records_are_read_as_they_are_asked_for(lake, monkeypatch):
    web = gristmill.open("web@v1", lake=lake)
    records = web.iterate()
    next(records)
    second = web.manifest.shards[1].key
    (Path(lake) / second).unlink()
    with pytest.raises(Exception, match=second):
        list(records)


def test_a_lake_by_default_is_that_of_the_environment(lake, monkeypatch):
    monkeypatch.delenv("GRIST_LAKE", raising=False)
    with pytest.raises(ValueError, match="no lake: pass lake='/dir'"):
        gristmill.open("web@v1")
    monkeypatch.setenv("GRIST_LAKE", lake)
    assert len(gristmill.open("web")) == 19


def test_columns_that_are_not_there_are_an_error_at_the_call(lake):
    web = gristmill.open("web@v1", lake=lake)
    with pytest.raises(KeyError, match="web@v1 has no column txt"):
        web.iterate(columns=["txt"])


def test_windows_of_a_mixture(sources):
    mix(sources, {"web@v1": 1, "math@v1": 1})
    windows = gristmill.windows("mix@v1", lake=sources.uri, seed=3)
    (position, window), *_ = windows.iterate(5, rank=1, world=2, stop=9)
    assert position == 6 and window.key == windows.sample(windows.at(6)).key
    assert window.arrays["input_ids"].dtype == np.int32
    mixture = gristmill.open("mix@v1", lake=sources.uri)
    assert gristmill.windows(mixture, seed=3).at(6) == windows.at(6)
    with pytest.raises(TypeError, match=r"gristmill\.windows\('mix@v1'\)"):
        iter(mixture)
    with pytest.raises(ValueError, match=r"web@v1 holds no packed windows"):
        gristmill.windows("web@v1", lake=sources.uri)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_all("text", tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model_lake(checkpoint, tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("models") / "lake")
    settings = ["--set", f"recipe.folder={checkpoint}", "--set", "recipe.dataset=base", "--lake", uri]
    assert command.main(["run", str(Path(__file__).parents[1] / "conf" / "model.yaml"), *settings]) == 0
    return uri


def test_a_model_of_a_version_is_that_of_its_folder(checkpoint, model_lake):
    stored = gristmill.load_model("base@v1", model_lake)
    read = gristmill.load_model(str(checkpoint))
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        assert torch.equal(stored.network(ids).logits, read.network(ids).logits)
    assert (stored.name, read.name) == ("base@v1", str(checkpoint))
    assert stored.sidecars == read.sidecars
    assert not stored.network.training and not read.network.training
    assert gristmill.load_model(str(checkpoint), dtype="bfloat16").network(ids).logits.dtype == torch.bfloat16


def test_a_type_that_is_none_is_refused(checkpoint, model_lake):
    for name in (str(checkpoint), "base@v1"):
        with pytest.raises(ValueError, match="dtype='float8': allowed are float32, bfloat16, float16"):
            gristmill.load_model(name, model_lake, dtype="float8")


def test_an_engine_of_a_name_and_of_a_model(checkpoint, model_lake, one_thread):
    request = gristmill.Request("test/1", (1, 5, 9), gristmill.Sampling(max_tokens=6, temperature=0))
    loaded = gristmill.load_model(str(checkpoint))
    by_model, by_name = (
        list(engine.run([request]))
        for engine in (gristmill.engine(loaded), gristmill.engine("base@v1", lake=model_lake))
    )
    assert [completion.tokens for completion in by_model] == [completion.tokens for completion in by_name]
    assert len(by_model[0].tokens) == 6


@pytest.mark.parametrize("context", [64, 100, 1000])
def test_an_engine_is_no_longer_than_the_models_context(context):
    options = fitting(context)
    assert context / 2 < options.max_model_len <= context


def test_every_public_name_is_there_and_says_what_it_is():
    assert sorted(gristmill.__all__) == gristmill.__all__
    for name in gristmill.__all__:
        value = getattr(gristmill, name)
        assert inspect.getdoc(value), name
        if inspect.isfunction(value):
            assert f"gristmill.{name}(" in inspect.getdoc(value), f"{name} has no example"
            assert inspect.signature(value).return_annotation is not inspect.Signature.empty
    assert {*gristmill.__all__} <= {*dir(gristmill)}


def test_a_name_that_is_none_says_which_there_are():
    with pytest.raises(AttributeError, match="'gristmill' has no attribute 'opne'; it has Dataset, Engine"):
        _ = gristmill.opne
