"""What is exported, as the tools that it is for read it: `datasets`, duckdb, webdataset, mlcroissant.

Each has to find as many records as the version has. Without one of them its tests are skipped; what the files hold
tests/stages/test_exchange.py compares without any.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from exchanges import SIZES, TEXTS, build, version, written

from gristmill.lake.store.base import Store
from gristmill.lake.store.opening import open_store
from gristmill.stages.exchange.export import CARD, CROISSANT
from gristmill.stages.exchange.features import features_of, yaml_features

NAMES = ("web", "pics", "speech", "mix")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(build(tmp_path_factory.mktemp("readers"))))


def exported(store: Store, name: str, folder: Path, target: Any) -> tuple[Path, int]:
    """The folder and how many records the lake says there are."""
    manifest = version(store, name)
    written(store, manifest, folder, target)
    index = {"mix": manifest.statistics.get("windows")}
    return folder, index.get(name) or manifest.kept.count


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("datasets", reason="the extra `test` brings it")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    module.disable_progress_bars()
    return module


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["parquet", "hf"])
def test_datasets_loads_the_folder_by_its_card(store, datasets, tmp_path: Path, name: str, target: Any) -> None:
    folder, count = exported(store, name, tmp_path / "out", target)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == count
    assert loaded.features.arrow_schema.names == pq.read_schema(next(folder.glob("data/*.parquet"))).names
    if name == "web":
        assert loaded["text"][:] == TEXTS
    if (name, target) == ("pics", "hf"):
        assert [[(image.height, image.width) for image in row["images"]] for row in loaded] == [list(s) for s in SIZES]
    if (name, target) == ("speech", "hf"):
        plain = loaded.cast_column("audio", datasets.List(datasets.Audio(decode=False)))
        assert all(len(row["audio"]) == 1 and row["audio"][0]["bytes"] for row in plain)


def test_features_are_those_that_datasets_would_write(store, datasets, tmp_path: Path) -> None:
    for name in NAMES:
        folder, _ = exported(store, name, tmp_path / name, "hf")
        schema = pq.read_schema(next(folder.glob("data/*.parquet")))
        features = datasets.Features.from_dict(features_of(schema))
        _, matter, _ = (folder / CARD).read_text().split("---\n", 2)
        assert yaml.safe_load(matter)["dataset_info"]["features"] == features._to_yaml_list() == yaml_features(schema)
        assert datasets.Features.from_arrow_schema(schema) == features


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["parquet", "hf"])
def test_duckdb_counts_the_rows(store: Store, tmp_path: Path, name: str, target: Any) -> None:
    duckdb = pytest.importorskip("duckdb", reason="the extra `test` brings it")
    folder, count = exported(store, name, tmp_path / "out", target)
    with duckdb.connect(config={"threads": 1}) as connection:
        query = f"select count(*), count(distinct {'key' if name == 'mix' else 'id'}) from '{folder}/data/*.parquet'"
        assert connection.sql(query).fetchall() == [(count, count)]


@pytest.mark.parametrize("name", NAMES)
def test_webdataset_reads_the_tars(store: Store, tmp_path: Path, name: str) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder, count = exported(store, name, tmp_path / "out", "webdataset")
    tars = [str(path) for path in sorted(folder.glob("data/*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == count
    if name == "pics":
        read = [
            [sample[f"image_{n}.png"].shape[:2] for n in range(1, len(sizes) + 1)]
            for sample, sizes in zip(samples, SIZES, strict=True)
        ]
        assert read == [list(sizes) for sizes in SIZES]
    if name == "mix":
        assert all(isinstance(sample["input_ids.npy"], np.ndarray) for sample in samples)


@pytest.fixture
def mlcroissant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("mlcroissant", reason="the extra `test` brings it")
    from etils import epath

    # Its cache knows what it extracted by the relative name of the file alone.
    monkeypatch.setattr("mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH", epath.Path(tmp_path / "x"))
    return module


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["parquet", "hf", "webdataset"])
def test_mlcroissant_finds_nothing_wrong_and_every_record(store, mlcroissant, tmp_path, name, target) -> None:
    folder, count = exported(store, name, tmp_path / "out", target)
    dataset = mlcroissant.Dataset(jsonld=str(folder / CROISSANT))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    unknown = ("license", "datePublished")  # these lakes' versions say neither: it warns that both are recommended
    assert [issue for issue in issues.warnings if not any(name in str(issue) for name in unknown)] == []
    records = list(dataset.records("records"))
    assert len(records) == count
    if name == "web" and target != "webdataset":
        assert [record["records/text"].decode() for record in records] == TEXTS


def test_croissant_names_each_file_with_its_digest(store: Store, tmp_path: Path) -> None:
    """The rules of the specification 1.0, section by section, without anything that reads it."""
    folder, count = exported(store, "pics", tmp_path / "out", "hf")
    metadata = json.loads((folder / CROISSANT).read_text())
    assert metadata["@type"] == "sc:Dataset" and metadata["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert {"@context", "name", "description", "distribution", "recordSet", "version"} <= metadata.keys()
    ids = [node["@id"] for node in metadata["distribution"]]
    assert len(ids) == len(set(ids))
    for node in metadata["distribution"]:
        if node["@type"] == "cr:FileObject":
            data = (folder / node["contentUrl"]).read_bytes()
            assert node["sha256"] == hashlib.sha256(data).hexdigest()
            assert node["contentSize"] == f"{len(data)} B"
        assert node["encodingFormat"] == "application/x-parquet"
    (records,) = metadata["recordSet"]
    assert records["key"] == {"@id": "records/id"}
    for field in records["field"]:
        assert field["@id"] == f"records/{field['name']}" and ("dataType" in field) != ("subField" in field)
        for leaf in field.get("subField", [field]):
            assert leaf["source"]["fileSet"]["@id"] in ids and leaf["source"]["extract"]["column"] == field["name"]
    assert [field["dataType"] for field in records["field"] if field["name"] == "images"] == ["sc:ImageObject"]
    assert f"{count} images" in metadata["description"]
