"""What training made goes out to transformers and peft: with its adapters, with one of them merged, with a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf
import pytest
import torch
from drafts import draft
from mixtures import documents, mix, texts, tokenizer
from torch import Tensor
from training import stage, train
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from gristmill.lake.store.base import Store
from gristmill.lake.versions.manifest import Manifest
from gristmill.lake.versions.versions import Versions
from gristmill.model.assembly import fits
from gristmill.model.hf.checkpoint import load_hf, save_hf
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part
from gristmill.orchestration.cli.main import app
from gristmill.pipelines.frame.run import run_pipeline
from gristmill.pipelines.model import ModelRecipe, ModelRunConfig
from gristmill.stages.models.model_versions import load_model, part_shards
from gristmill.stages.run.runner import Runner

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = list(Part)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains on texts, which teach an adapter nothing and are refused for that: what counts here is that its parts are
    stored as trained ones, beside those of the base."""
    monkeypatch.setattr(fits, "check_reached", lambda *_: None)


@pytest.fixture
def lake(store: Store, written_multimodal: Path) -> Store:
    """`base@v1`, whose adapters do something, and a mixture for its vocabulary."""
    documents(store, "web", texts(40, longest=60))
    tokenizer(store, "web@v1", vocab_size=300)
    mix(store, {"web@v1": 1}, window=64, max_waste=0.1)
    recipe = ModelRecipe(dataset="base", folder=str(written_multimodal))
    run_pipeline(ModelRunConfig(recipe=recipe), store, Runner(store, workers=0))
    return store


def trained(store: Store, trainable: list[str], taken: list[Part], name: str = "more") -> Manifest:
    """The result of a stage upon `base@v1`."""
    spec = stage(name, trainable=trainable, init_from=dict.fromkeys(map(str, taken), "base@v1"), gates=["frozen_parts"])
    return train(store, spec, model="base@v1").manifest


def export(store: Store, name: str, folder: Path, *more: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["export", "hf", name, str(folder), *more, "--lake", store.uri])
    assert result.exit_code == code, result.output
    return result.output


def reference(folder: Path) -> Any:
    """As transformers loads it; nothing lacks, nothing is left over."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation=hf.ATTENTION
    )
    assert not any(info.values()), info
    return model.eval()


def furthest(model: Multimodal, other: Any, given: dict[str, Tensor], adapter: str | None) -> float:
    """The largest difference of logits."""
    with torch.no_grad():
        return float((model(**given, adapter=adapter).logits - other(**given).logits).abs().max())


def test_a_trained_version_is_what_transformers_and_peft_load(lake: Store, tmp_path: Path) -> None:
    """Its parts come from two versions, its adapters are float32 on what they were trained upon."""
    manifest = trained(lake, ["lora_vision", "vision_projector"], EVERY)
    assert part_shards(manifest)[Part.LANGUAGE] == part_shards(Versions(lake).resolve("base@v1"))[Part.LANGUAGE]
    assert part_shards(manifest)[Part.LORA_VISION] != part_shards(Versions(lake).resolve("base@v1"))[Part.LORA_VISION]
    export(lake, "nano.more@v1", tmp_path / "out")
    model, other = load_model(lake, "nano.more@v1").model, reference(tmp_path / "out")
    assert furthest(model, other, hf.inputs("text"), None) < 1e-4
    for name in ("vision", "speech"):
        other.load_adapter(str(tmp_path / "out" / f"{name}-lora"), adapter_name=name)
    for kinds, name in (("image", "vision"), ("image and audio", "vision"), ("audio", "speech")):
        other.set_adapter(name)
        assert furthest(model, other, hf.inputs(kinds), name) < 1e-4
    hf.assert_same_tensors(load_hf(tmp_path / "out").state_dict(), model.state_dict())


@pytest.mark.parametrize(("name", "kinds"), [("vision", "image"), ("vision", "image and audio"), ("speech", "audio")])
def test_a_merged_adapter_is_part_of_the_weights(lake: Store, tmp_path: Path, name: str, kinds: str) -> None:
    trained(lake, ["lora_vision", "lora_speech"], EVERY)
    export(lake, "nano.more@v1", tmp_path / "out", "--merged", name)
    assert not list((tmp_path / "out").glob("*-lora"))
    model, other, given = load_model(lake, "nano.more@v1").model, reference(tmp_path / "out"), hf.inputs(kinds)
    assert furthest(model, other, given, "auto") < 1e-4
    assert furthest(model, other, given, None) > 0.1
    assert load_hf(tmp_path / "out").config.adapters == ()
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"The adapter `{name}` is part of the language model's weights here" in card
    other_name = {"vision": "speech", "speech": "vision"}[name]
    assert f"The adapter {other_name} belongs to the model without it, and is left out" in card


def test_merging_into_a_bfloat16_base_keeps_its_type(lake: Store, tmp_path: Path) -> None:
    """Multiplied and added in float32, rounded once."""
    model = load_model(lake, "base@v1").model.bfloat16()
    save_hf(model, tmp_path / "half")
    recipe = ModelRecipe(dataset="half", folder=str(tmp_path / "half"))
    run_pipeline(ModelRunConfig(recipe=recipe), lake, Runner(lake, workers=0))
    export(lake, "half@v1", tmp_path / "out", "--merged", "speech")
    layer: Any = model.language.layers[1]
    linear = layer.self_attn.qkv_proj
    adapter = linear.adapters["speech"]
    exact = linear.weight.double() + adapter.scaling * adapter.B.double() @ adapter.A.double()
    layer = load_hf(tmp_path / "out").language.layers[1]
    merged = layer.self_attn.qkv_proj.weight
    assert merged.dtype == torch.bfloat16
    assert (merged != exact.bfloat16()).float().mean() < 0.01, "but for ties"


def test_an_adapter_that_is_not_there_is_refused_with_those_that_are(lake: Store, tmp_path: Path) -> None:
    trained(lake, ["lora_vision"], [Part.LANGUAGE, Part.LORA_VISION])
    refused = export(lake, "nano.more@v1", tmp_path / "out", "--merged", "speech", code=2)
    assert "nano.more@v1: nothing to merge: adapter 'speech': this model has ['vision']" in " ".join(refused.split())
    trained(lake, ["language"], [Part.LANGUAGE], "text")
    refused = export(lake, "nano.text@v1", tmp_path / "out", "--merged", "taste", code=2)
    assert "adapter 'taste': this model has none" in " ".join(refused.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("trainable", "taken", "kinds", "lacking"),
    [
        ("vision_projector", [Part.LANGUAGE, Part.VISION_ENCODER, Part.VISION_PROJECTOR], "image", "audio_encoder"),
        (
            "audio_projector_speech",
            [Part.LANGUAGE, Part.AUDIO_ENCODER, Part.AUDIO_PROJECTOR_SPEECH, Part.AUDIO_PROJECTOR_VISION],
            "audio",
            "vision_encoder",
        ),
    ],
    ids=["sees", "hears"],
)
def test_a_model_of_one_modality_is_written_with_a_stand_in_for_the_other(
    lake: Store, tmp_path: Path, trainable: str, taken: list[Part], kinds: str, lacking: str
) -> None:
    trained(lake, [trainable], taken)
    export(lake, "nano.more@v1", tmp_path / "out")
    model, other = load_model(lake, "nano.more@v1").model, reference(tmp_path / "out")
    assert (model.config.vision is None) != (model.config.audio is None)
    assert furthest(model, other, hf.inputs(kinds), None) < 1e-4
    assert furthest(model, other, hf.inputs("text"), None) < 1e-4
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"The model has no {lacking}" in card and "random and never trained" in card


def evaluated(store: Store, model: Manifest, data: Manifest) -> Manifest:
    """An evaluation as a version, of one score."""
    score = {"task": "exact", "metric": "accuracy", "source": "", "value": 0.625, "low": 0.5, "high": 0.75, "items": 40}
    sources = (
        model.ref.model_copy(update={"role": "evaluated"}),
        data.ref.model_copy(update={"role": "on"}),
    )
    verdicts = draft("eval", model.digest, [], form="verdicts", sources=sources, statistics={"scores": [score]})
    return Versions(store).commit(verdicts)


def test_the_card_says_how_it_was_trained_and_how_good_it_is(lake: Store, tmp_path: Path) -> None:
    versions = Versions(lake)
    first = stage("pretrain", init_from={"language": "base@v1"}, gates=["frozen_parts", "trained_parts"])
    second = stage(
        "adapt",
        trainable=["lora_speech"],
        init_from={"language": "stage:pretrain"},
        optim={"lr": 5e-4},
        steps=2,
        gates=["frozen_parts"],
    )
    model = train(lake, first, second, model="base@v1").manifest
    evaluated(lake, model, versions.resolve("web@v1"))
    evaluated(lake, versions.resolve("nano.pretrain@v1"), versions.resolve("web@v1"))
    export(lake, "nano.adapt@v1", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    facts = [manifest.statistics["training"] for manifest in (versions.resolve("nano.pretrain@v1"), model)]
    rows = [line for line in card.splitlines() if line.startswith("| nano.")]
    tokens, losses = ([each[key] for each in facts] for key in ("tokens", "final_loss"))
    assert rows[0] == f"| nano.pretrain@v1 | language | mix@v1 | 3 | {tokens[0]:,} | 1.00e-03 | {losses[0]:.4f} |"
    assert rows[1] == f"| nano.adapt@v1 | lora_speech | mix@v1 | 2 | {tokens[1]:,} | 5.00e-04 | {losses[1]:.4f} |"
    assert "- nano.pretrain@v1: frozen_parts:" in card and "trained_parts:" in card
    assert f"- lora_speech: `{model.statistics['bases']['lora_speech']}`" in card
    assert "| eval@v1 | exact | accuracy | web@v1 | 40 | 0.625 | 0.5 to 0.75 |" in card and "eval@v2" not in card
    for ref in model.sources:
        assert f"| {ref} | {ref.role} | `{ref.digest}` |" in card
    web = versions.resolve("web@v1")
    assert f"| web@v1 | mixed | `{web.digest}` |" in card and "Licences of the data are not recorded" in card
    assert json.dumps("pretrain") not in card.split("## Recipe")[0]
