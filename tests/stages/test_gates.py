"""Gates on weights in the lake: a result that is as it should be passes, and each planted mutant fails by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from models import NANO

from gristmill.lake.store.base import Store
from gristmill.lake.store.objects import ObjectRef
from gristmill.model.assembly.adapters import merge_adapter
from gristmill.model.hf import checkpoint
from gristmill.model.phi4 import multimodal
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, counts, parameters_of, trainable
from gristmill.model.phi4.routing import masks
from gristmill.model.train.optim_config import Optim
from gristmill.model.train.stage import TrainStage
from gristmill.stages.gates.gate import GateInput, Verdict
from gristmill.stages.gates.gates import Gates
from gristmill.stages.models.model_versions import put_part, put_shape
from gristmill.stages.run.runner import Runner
from gristmill.stages.train.job import Execution, TrainInput, TrainJob
from gristmill.stages.train.result import model_shards

pytestmark = pytest.mark.usefixtures("one_thread")
ON_WEIGHTS = ("frozen_parts", "trained_parts", "text")
CPU = Execution(device="cpu")


def train_stage(*trained: str, **more: object) -> TrainStage:
    return TrainStage(
        "sft",
        frozenset(map(Part, trained)),
        "mix@v1",
        batch=1,
        optim=Optim(1e-3),
        steps=1,
        gates=ON_WEIGHTS,
        **more,
    )


@dataclass
class Trained:
    """What a stage started from, and what it might have made of it."""

    store: Store
    stage: TrainStage
    given: TrainInput
    config: ModelConfig = NANO

    def start(self) -> Multimodal:
        return TrainJob(self.stage, self.config, self.given, CPU).model(self.store)

    def result(self, model: Multimodal, restored: tuple[Part, ...] = ()) -> tuple[ObjectRef, ...]:
        """The shards of a version: trained parts of the model, and those of `restored`; others as they were given."""
        stored = [ref for part in (*self.stage.trainable, *restored) for ref in put_part(self.store, model, part)]
        shape = put_shape(self.store, self.config, {})
        return model_shards(self.given.parts, stored, shape, self.given.tokenizer)

    def verdicts(self, shards: tuple[ObjectRef, ...], runner: Runner | None = None) -> Mapping[str, Verdict]:
        gates = Gates(self.stage, self.config, CPU)
        return gates.of_weights(runner or Runner(self.store, workers=0), GateInput(self.given, shards))


@pytest.fixture
def base(store) -> TrainInput:
    """All parts of a nano model, its adapters fresh."""
    model = Multimodal.seeded(NANO, 0)
    parts = {part: put_part(store, model, part) for part in counts(model)}
    return TrainInput("sft", 1, (), parts, put_shape(store, NANO, {}))


def moved(model: Multimodal, *parts: Part) -> Multimodal:
    """As if trained: every tensor of these parts that can be has other values."""
    pick = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model, parts).values():
            parameter.add_(torch.randn(parameter.shape, generator=pick) * 0.02)
    return model


@pytest.fixture
def adapter(store, base) -> Trained:
    """A stage that trains the adapter of vision and the projector, from all parts of the base."""
    return Trained(store, train_stage("lora_vision", "vision_projector"), base)


def failed(verdicts: Mapping[str, Verdict]) -> set[str]:
    return {name for name, verdict in verdicts.items() if not verdict.passed}


def test_a_result_that_is_as_it_should_be_passes_and_is_not_judged_twice(adapter):
    shards = adapter.result(moved(adapter.start(), *adapter.stage.trainable))
    runner = Runner(adapter.store, workers=0)
    verdicts = adapter.verdicts(shards, runner)
    assert set(verdicts) == set(ON_WEIGHTS) and failed(verdicts) == set()
    frozen, trained, text = (verdicts[name] for name in ON_WEIGHTS)
    assert set(frozen.facts["parts"]) == {str(part) for part in Part} - {"lora_vision", "vision_projector"}
    assert trained.facts["tensors"] == {"lora_vision": 32, "vision_projector": 6}
    assert text.facts["filled"] == ["speech"] and "was given values on a copy" in text.why
    assert runner.history == [("gates", 0, 3)]
    assert adapter.verdicts(shards, again := Runner(adapter.store, workers=0)) == verdicts
    assert again.history == [("gates", 3, 0)]


def test_a_frozen_weight_that_is_off_by_its_last_place_fails_and_says_so_again_at_once(adapter):
    model = moved(adapter.start(), *adapter.stage.trainable)
    with torch.no_grad():
        weight = model.language.layers[0].self_attn.qkv_proj.weight
        weight[5, 7] = torch.nextafter(weight[5, 7], torch.tensor(9.0))
    shards = adapter.result(model, restored=(Part.LANGUAGE,))
    verdicts = adapter.verdicts(shards)
    assert failed(verdicts) >= {"frozen_parts"}
    frozen = verdicts["frozen_parts"]
    assert frozen.facts["moved"] == ["language"] and frozen.facts["changed"] == 1
    assert frozen.facts["names"] == ["language.layers.0.self_attn.qkv_proj.weight"]
    assert "language was not trained, and is stored as something else; 1 of" in frozen.why
    assert adapter.verdicts(shards, runner := Runner(adapter.store, workers=0)) == verdicts
    assert runner.history == [("gates", 3, 0)]


def test_a_loader_that_changes_a_frozen_weight_fails(adapter, monkeypatch):
    shards = adapter.result(moved(adapter.start(), *adapter.stage.trainable))
    load = checkpoint.load_parts

    def rounding(*args: object, **more: object) -> Multimodal:
        model = load(*args, **more)
        if model.config.audio is not None:
            model.audio_encoder.embed.out.weight.data = model.audio_encoder.embed.out.weight.data.bfloat16().float()
        return model

    monkeypatch.setattr(checkpoint, "load_parts", rounding)
    verdicts = adapter.verdicts(shards)
    assert failed(verdicts) == {"frozen_parts"} and verdicts["frozen_parts"].facts["moved"] == []
    assert (
        "(audio_encoder.embed.out.weight) are stored as they were, and are others when" in verdicts["frozen_parts"].why
    )


def test_an_adapter_that_was_merged_into_the_base_fails(adapter):
    model = moved(adapter.start(), *adapter.stage.trainable)
    merged = moved(adapter.start(), *adapter.stage.trainable)
    merge_adapter(merged, "vision")
    model.load_state_dict(merged.state_dict(), strict=False)
    verdicts = adapter.verdicts(adapter.result(model, restored=(Part.LANGUAGE,)))
    assert failed(verdicts) == {"frozen_parts", "text"}
    assert "text in row 0, as stored" in verdicts["text"].why


def test_a_router_that_sends_a_row_of_text_to_an_adapter_fails(adapter, monkeypatch):
    def faulty(config, adapter, token_ids, samples):
        taken = masks(config, adapter, token_ids, samples)
        if adapter == "auto" and "vision" in taken:
            taken["vision"][0] = True
        return taken

    monkeypatch.setattr(multimodal, "masks", faulty)
    verdicts = adapter.verdicts(adapter.result(moved(adapter.start(), *adapter.stage.trainable)))
    assert failed(verdicts) == {"text"}
    assert verdicts["text"].facts["differing"] == ["text in row 0, as stored", "text in row 0, bfloat16"]
    assert "please report it" in verdicts["text"].why


def test_a_router_that_never_takes_an_adapter_puts_nothing_to_the_test(adapter, monkeypatch):
    monkeypatch.setattr(multimodal, "masks", lambda config, adapter, token_ids, samples: {})
    verdicts = adapter.verdicts(adapter.result(moved(adapter.start(), *adapter.stage.trainable)))
    assert failed(verdicts) == {"text"} and verdicts["text"].facts["idle"] == ["vision", "speech"]


@pytest.mark.parametrize(
    ("trained", "names"),
    [
        ((Part.VISION_PROJECTOR,), ["language.layers.0.self_attn.qkv_proj.adapters.vision.A"]),
        ((Part.LORA_VISION,), ["vision_projector.global_separator"]),
    ],
)
def test_a_trained_part_that_is_what_it_was_fails(adapter, trained, names):
    verdicts = adapter.verdicts(adapter.result(moved(adapter.start(), *trained)))
    verdict = verdicts["trained_parts"]
    still = next(part for part in adapter.stage.trainable if part not in trained)
    assert failed(verdicts) == {"trained_parts"} and set(verdict.facts["unchanged"]) == {still}
    assert verdict.facts["unchanged"][still] == verdict.facts["tensors"][still]
    assert verdict.facts["names"][:1] == names and f"{still} was to be trained" in verdict.why


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tensor, before: tensor.copy_(before), "unchanged"),
        (lambda tensor, before: tensor[0].fill_(float("nan")), "infinite"),
        (lambda tensor, before: tensor[0].fill_(float("inf")), "infinite"),
    ],
)
def test_one_tensor_that_did_not_change_or_is_not_finite_is_named(adapter, change: Callable, what: str):
    model, before = moved(adapter.start(), *adapter.stage.trainable), adapter.start()
    with torch.no_grad():
        change(model.vision_projector.down.bias, before.vision_projector.down.bias)
    verdict = adapter.verdicts(adapter.result(model))["trained_parts"]
    assert not verdict.passed and verdict.facts[what] == {"vision_projector": 1}
    assert verdict.facts["names"] == ["vision_projector.down.bias"] and "vision_projector.down.bias" in verdict.why


def test_what_never_reaches_the_output_need_not_change(store, base):
    trained = Trained(store, train_stage("vision_encoder"), base)
    verdicts = trained.verdicts(trained.result(moved(trained.start(), Part.VISION_ENCODER)))
    assert failed(verdicts) == set()
    everything = sum(1 for _ in parameters_of(trained.start(), Part.VISION_ENCODER))
    assert 0 < verdicts["trained_parts"].facts["tensors"]["vision_encoder"] < everything


def test_a_fresh_part_is_compared_with_what_the_seed_made_of_it(store, base):
    parts = {part: refs for part, refs in base.parts.items() if part != Part.VISION_PROJECTOR}
    trained = Trained(store, train_stage("vision_projector", seed=3), replace(base, parts=parts))
    assert failed(trained.verdicts(trained.result(trained.start()))) == {"trained_parts"}
    assert failed(trained.verdicts(trained.result(moved(trained.start(), Part.VISION_PROJECTOR)))) == set()


def test_of_a_stage_that_trains_language_text_has_to_change_and_the_verdict_says_so(store, base):
    stage = train_stage("language")
    parts = {Part.LANGUAGE: base.parts[Part.LANGUAGE]}
    config = ModelConfig(NANO.text)
    trained = Trained(store, stage, replace(base, parts=parts), config)
    verdicts = trained.verdicts(trained.result(moved(trained.start(), Part.LANGUAGE)))
    assert (
        verdicts["text"].passed is None
        and "does not apply: the stage trains the language model" in verdicts["text"].why
    )
    assert verdicts["frozen_parts"].passed and verdicts["frozen_parts"].why == "all of its parts were trained"
    assert verdicts["trained_parts"].passed
    assert "gate_text" not in {part.name for part in Gates(stage, config, CPU).identity}
