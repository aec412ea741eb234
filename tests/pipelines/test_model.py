"""Models in the lake: taken in once, part by part, given back bit for bit, with a card that says what made them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from models import save_nano, small_tokenizer
from toy import Watched
from typer.testing import CliRunner, Result

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import DamagedObject
from gristmill.lake.store.opening import open_store
from gristmill.lake.upkeep.gc import plan_gc, run_gc
from gristmill.lake.upkeep.verify import verify
from gristmill.lake.versions.manifest import VersionRef
from gristmill.lake.versions.versions import Versions
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.parts import Part, parameters_of
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.ask import committed
from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import Checkpoint, ModelRecipe, ModelRunConfig
from gristmill.pipelines.settings.config import BadConfig
from gristmill.pipelines.training.model_card import model_card
from gristmill.stages.models.model_versions import load_model
from gristmill.stages.run.runner import Runner

TOKENIZER = small_tokenizer()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_nano(tmp_path / "hf")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


def tokenizer_up_to(largest: int) -> bytes:
    file = json.loads(TOKENIZER)
    file["added_tokens"].append({**file["added_tokens"][0], "content": "<|far|>", "id": largest})
    return json.dumps(file).encode()


def taken_in(store: Store, folder: Path, name: str = "model") -> Any:
    config = ModelRunConfig(recipe=ModelRecipe(dataset=name, folder=str(folder)))
    return run_pipeline(config, store, Runner(store, workers=0))


def grist(store: Store, *args: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [*args, "--lake", store.uri])
    assert result.exit_code == code, result.output
    return result


def test_there_and_back_every_file_is_the_same(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}
    result = json.loads(grist(store, "import", "hf", str(checkpoint)).stdout.splitlines()[-1])
    assert (result["dataset"], result["version"], result["new"]) == ("model", 1, True)
    grist(store, "export", "hf", "model@v1", str(tmp_path / "out"))
    files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    assert len(files) == 9
    assert [path for path in files if (checkpoint / path).read_bytes() != (tmp_path / "out" / path).read_bytes()] == []
    assert before == {path: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}


def test_a_checkpoint_of_transformers_and_peft_comes_back_bit_for_bit(
    store: Store, written_multimodal: Path, tmp_path: Path
) -> None:
    taken_in(store, written_multimodal)
    grist(store, "export", "hf", "model@v1", str(tmp_path / "out"))
    hf.assert_same_model(load_hf(tmp_path / "out"), load_hf(written_multimodal))


def test_gc_beside_an_import_takes_nothing_of_it(store: Store, checkpoint: Path) -> None:
    """Between the weights and the commit, after the lease was renewed: nothing says yet that they are needed."""

    def collect(verb: str, key: str) -> None:
        if verb == "create" and "/versions/" in key:
            for info in [item for item in store.list("runs/") if item.key.endswith("lease.json")]:
                store.put(info.key, store.get(info.key))
            assert not [item.key for item in plan_gc(store, grace_seconds=0).doomed if item.kind == "object"]
            run_gc(store, plan_gc(store, grace_seconds=0))

    config = ModelRunConfig(recipe=ModelRecipe(folder=str(checkpoint)))
    assert run_pipeline(config, store, Runner(Watched(store, collect), workers=0)).new
    assert verify(store, deep=True) == []
    load_model(store, "model@v1")


def test_what_is_taken_in_and_given_back_has_the_mode_of_any_new_file(store: Store, checkpoint: Path) -> None:
    before = os.umask(0o027)
    try:
        taken_in(store, checkpoint)
        exported = checkpoint.parent / "out"
        grist(store, "export", "hf", "model@v1", str(exported))
        grist(store, "checkout", "model@v1", str(checkpoint.parent / "files"))
    finally:
        os.umask(before)
    files = [path for place in (store.uri + "/objects", exported, checkpoint.parent / "files") for path in tree(place)]
    assert len([path for path in files if path.suffix == ".safetensors"]) > 4
    assert {oct(path.stat().st_mode & 0o777) for path in files if path.is_file()} == {"0o640"}
    assert {oct(path.stat().st_mode & 0o777) for path in files if path.is_dir()} == {"0o750"}


def tree(folder: Path | str) -> list[Path]:
    return [Path(folder), *Path(folder).rglob("*")]


def test_what_lies_beside_the_weights_goes_through_the_lake(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}\r\n"
    how = '{"eos_token_id":[0, 3], "bos_token_id": 0, "pad_token_id": 0, "do_sample":  true, "temperature": 0.6}'
    files = {"chat_template.jinja": template, "generation_config.json": how, "special_tokens_map.json": "{ }"}
    for name, text in files.items():
        (checkpoint / name).write_bytes(text.encode())
    first = taken_in(store, checkpoint).manifest
    grist(store, "export", "hf", "model@v1", str(tmp_path / "out"))
    assert {name: (tmp_path / "out" / name).read_bytes().decode() for name in files} == files
    assert {file.names[0] for file in first.inputs} >= set(files)
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    second = taken_in(store, checkpoint).manifest
    apart = set(second.shards) - set(first.shards)
    assert second.version == 2 and [ref.kind for ref in apart] == ["model"]


def test_the_hub_s_own_checkpoint_goes_in_and_comes_out_in_transformers_form(
    store: Store, written_multimodal: Path, hub_folder: Path, tmp_path: Path
) -> None:
    generation = '{"eos_token_id": [281, 280], "temperature": 0.5}'
    (hub_folder / "generation_config.json").write_text(generation)
    taken_in(store, hub_folder)
    grist(store, "export", "hf", "model@v1", str(tmp_path / "out"))
    model = load_hf(tmp_path / "out")
    hf.assert_same_tensors(model.state_dict(), load_hf(written_multimodal).state_dict())
    assert model.config.text.eos_token_id == (281, 280)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "phi4_multimodal"
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["temperature"] == 0.5


def test_adapters_in_peft_s_own_folders_are_part_of_what_was_read(store: Store, checkpoint: Path) -> None:
    (checkpoint / "speech").mkdir()
    (checkpoint / "speech-lora").rename(checkpoint / "speech" / "speech")
    manifest = taken_in(store, checkpoint).manifest
    assert "speech/speech/adapter_model.safetensors" in {file.names[0] for file in manifest.inputs}
    assert manifest.statistics["parts"]["lora_speech"] > 0


def test_the_same_folder_elsewhere_is_the_same_version(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    first = taken_in(store, checkpoint)
    again = taken_in(store, Path(shutil.copytree(checkpoint, tmp_path / "moved")))
    assert (first.new, again.new) == (True, False) and again.manifest == first.manifest
    assert committed(ModelRunConfig(recipe=ModelRecipe(folder=str(tmp_path / "moved"))), store) == first.manifest


def test_two_versions_share_the_bytes_of_a_part_that_did_not_change(store: Store, checkpoint: Path) -> None:
    first = taken_in(store, checkpoint).manifest
    model = load_hf(checkpoint)
    with torch.no_grad():
        for _, parameter in parameters_of(model, Part.LORA_SPEECH):
            parameter.add_(1)
    shutil.rmtree(checkpoint)
    save_hf(model, checkpoint, tokenizer=TOKENIZER)
    second = taken_in(store, checkpoint).manifest
    assert (second.version, second.digest == first.digest) == (2, False)
    apart = {shard.first for shard in set(second.shards) - set(first.shards)}
    assert len(apart) == 1 and ".adapters.speech." in apart.pop()


def test_show_counts_the_parameters_of_each_part(store: Store, checkpoint: Path) -> None:
    taken_in(store, checkpoint)
    shown = grist(store, "show", "model").stdout
    assert "1,000,576" in shown and "audio_projector_vision" in shown and "1,662,944" in shown
    assert grist(store, "verify", "--deep").exit_code == 0
    assert "model-00000.model.json" in grist(store, "checkout", "model", str(checkpoint / "out")).output


def test_the_card_names_parts_files_and_every_version_it_comes_from(store: Store, checkpoint: Path) -> None:
    manifest = taken_in(store, checkpoint).manifest
    plain = model_card(manifest, Versions(store))
    assert "| language | 1,000,576 |" in plain and "was taken in as it is" in plain
    assert f"`{Checkpoint(str(checkpoint)).digests['model.safetensors']}`" in plain
    assert "eager" in plain  # how transformers has to load what sees images
    base = VersionRef(dataset="model", version=1, digest=manifest.digest, role="init_from")
    gone = VersionRef(dataset="web", version=7, digest="f" * 64, role="trained_on")
    trained = manifest.model_copy(update={"version": 2, "sources": (base, gone), "inputs": ()})
    card = model_card(trained, Versions(store))
    assert f"| model@v1 | init_from | `{manifest.digest}` |" in card
    assert f"| web@v7 | trained_on | `{'f' * 64}` |" in card and "as it is" not in card


def test_lost_weights_are_made_again_and_damaged_ones_are_noticed(store: Store, checkpoint: Path) -> None:
    manifest = taken_in(store, checkpoint).manifest
    store.delete(manifest.shards[0].key)
    assert taken_in(store, checkpoint).manifest.digest == manifest.digest
    assert verify(store, deep=True) == []
    place = Path(store.uri) / manifest.shards[0].key
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.chmod(0o644)
    place.write_bytes(data)
    with pytest.raises(DamagedObject, match="damaged"):
        load_model(store, "model@v1")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "safetensors"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (
            lambda folder: (folder / "tokenizer.json").write_bytes(tokenizer_up_to(2048)),
            "2049 ids, 0 to 2048, and the model's vocabulary 2048",
        ),
        (lambda folder: (folder / "tokenizer.json").write_bytes(tokenizer_up_to(1 << 31)), "has id 2147483648"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "generation_config.json: holds list"),
        (lambda folder: (folder / "vision-lora").rename(folder / "style"), "style: not a known adapter"),
        (lambda folder: shutil.copy(folder / "vision-lora" / "adapter_config.json", folder), "has no name here"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "phi4mm"}'), "phi4mm"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused_and_leaves_no_version(
    store: Store, checkpoint: Path, harm: Any, message: str
) -> None:
    harm(checkpoint)
    refused = grist(store, "import", "hf", str(checkpoint), code=2)
    assert message in refused.output and "recipe.folder" in refused.output
    assert Versions(store).latest("model") is None


def test_what_is_no_model_is_not_loaded_or_written(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER)
    grist(store, "tokenizer", "add", str(tmp_path / "tokenizer.json"), "--name", "bpe")
    refused = grist(store, "export", "hf", "bpe@v1", str(tmp_path / "out"), code=1).output
    assert "bpe@v1 is no model: it holds a tokenizer" in refused
    taken_in(store, checkpoint)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert "not an empty folder" in grist(store, "export", "hf", "model@v1", str(tmp_path / "full"), code=2).output


def test_the_config_is_checked(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no records"):
        resolve(Request({"pipeline": "model", "recipe": {"folder": "/x", "limit": 3}}, (), str(tmp_path)))
    with pytest.raises(BadConfig, match=r"recipe\.folder: 'x' is relative"):
        resolve(Request({"pipeline": "model", "recipe": {"folder": "x"}}, (), str(tmp_path)), in_job=True)
