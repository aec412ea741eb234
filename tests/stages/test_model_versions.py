"""Models as versions of the lake: loaded as they were stored, by this release and of earlier ones, or named damaged."""

from __future__ import annotations

import json
from pathlib import Path

import hf
import pytest
import torch
from models import NANO, save_nano, small_tokenizer
from typer.testing import CliRunner

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import DamagedObject, put_file, read_object
from gristmill.lake.store.opening import open_store
from gristmill.lake.versions.manifest import Draft, Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.hf.checkpoint import load_hf
from gristmill.model.hf.shape import FORMAT
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.model import export_hf
from gristmill.stages.models.model_versions import load_model

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_nano(tmp_path / "hf")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


def grist(store: Store, *args: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [*args, "--lake", store.uri])
    assert result.exit_code == 0, result.output
    return result.stdout


def take_in(store: Store, checkpoint: Path, name: str = "model") -> Manifest:
    """The checkpoint as version 1 of `name`."""
    grist(store, "import", "hf", str(checkpoint), "--name", name)
    return Versions(store).manifest(name, 1)


def commit_with_shape(store: Store, manifest: Manifest, shape: Path) -> None:
    """The same version again as old@v1, with another shape."""
    ref = put_file(store, "model", shape, 1)
    shards = tuple(ref if shard.kind == "model" else shard for shard in manifest.shards)
    fields = {name: getattr(manifest, name) for name in Draft.model_fields}
    Versions(store).commit(Draft(**fields | {"dataset": "old", "shards": shards}))


def shards_of(manifest: Manifest, kind: str) -> list[str]:
    """Digests of the shards of one kind."""
    return [shard.sha256 for shard in manifest.shards if shard.kind == kind]


@pytest.mark.parametrize("stored", [1, 2])
def test_a_version_of_an_earlier_release_is_loaded(store: Store, checkpoint: Path, tmp_path: Path, stored: int) -> None:
    """Its shape has other names for the config's fields; format 1 had no files beside the weights."""
    shape = json.loads((GOLDEN / "model-shape-2-nano.json").read_bytes())
    if stored == 1:
        shape = {"format": 1, "config": shape["config"]}
    (tmp_path / "model.json").write_text(json.dumps(shape))
    commit_with_shape(store, take_in(store, checkpoint), tmp_path / "model.json")
    loaded = load_model(store, "old@v1")
    assert loaded.model.config == NANO
    assert list(loaded.sidecars) == ([] if stored == 1 else ["chat_template.jinja"])
    hf.assert_same_tensors(loaded.model.state_dict(), load_hf(checkpoint).state_dict())


@pytest.mark.parametrize("stored", [1, 2])
def test_a_version_of_an_earlier_release_is_shown_exported_and_taken_in_anew(
    store: Store, checkpoint: Path, tmp_path: Path, stored: int
) -> None:
    """What comes out and in again shares its weights and its tokenizer, and has the shape of this release."""
    first = take_in(store, checkpoint)
    shape = json.loads((GOLDEN / "model-shape-2-nano.json").read_bytes())
    if stored == 1:
        shape = {"format": 1, "config": shape["config"]}
    (tmp_path / "model.json").write_text(json.dumps(shape))
    commit_with_shape(store, first, tmp_path / "model.json")
    assert "a model" in grist(store, "show", "old@v1")
    grist(store, "export", "hf", "old@v1", str(tmp_path / "out"))
    assert (tmp_path / "out" / "chat_template.jinja").exists() == (stored == 2)
    again = take_in(store, tmp_path / "out", "again")
    assert shards_of(again, "weights") == shards_of(first, "weights")
    assert shards_of(again, "tokenizer") == shards_of(first, "tokenizer")
    (upgraded,) = (ref for ref in again.shards if ref.kind == "model")
    assert json.loads(read_object(store, upgraded))["format"] == FORMAT
    assert load_model(store, "again@v1").model.config == load_model(store, "old@v1").model.config


def test_a_version_of_a_later_release_is_named(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"format": 4, "config": {}}))
    commit_with_shape(store, take_in(store, checkpoint), tmp_path / "model.json")
    with pytest.raises(ValueError, match="old@v1: the model's shape has format 4, this release reads up to 3"):
        load_model(store, "old@v1")


def test_a_loaded_model_is_the_one_taken_in(store: Store, checkpoint: Path) -> None:
    take_in(store, checkpoint)
    loaded, half = load_model(store, "model@v1"), load_model(store, "model", dtype="bfloat16")
    hf.assert_same_tensors(loaded.model.state_dict(), load_hf(checkpoint).state_dict())
    assert loaded.tokenizer_json == small_tokenizer() and not loaded.model.training
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    with pytest.raises(ValueError, match="dtype='int7'"):
        load_model(store, "model@v1", dtype="int7")


@pytest.mark.parametrize("kind", ["model", "tokenizer"])
def test_one_changed_byte_of_the_shape_or_the_tokenizer_is_noticed(
    store: Store, checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    """One digit of a shape was another rope_theta in what was exported, without a word."""
    ref = next(ref for ref in take_in(store, checkpoint).shards if ref.kind == kind)
    place = Path(store.uri) / ref.key
    data = place.read_bytes()
    at = data.index(b"10000") if kind == "model" else len(data) // 2
    place.chmod(0o644)
    place.write_bytes(data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :])
    with pytest.raises(DamagedObject, match=ref.sha256):
        load_model(store, "model@v1")
    with pytest.raises(DamagedObject, match=ref.sha256):
        export_hf(store, "model@v1", tmp_path / "out")
    assert not (tmp_path / "out").exists()
