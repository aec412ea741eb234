"""What a step will need, reckoned without running it, against what torch's profiler sees of one that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import batch_of_all_kinds
from torch import nn
from train_windows import stage

from gristmill.model.phi4.blocks import checkpoint_activations
from gristmill.model.phi4.config import ModelConfig
from gristmill.model.phi4.multimodal import Multimodal
from gristmill.model.phi4.parts import Part, part_of
from gristmill.model.phi4.presets import PRESETS
from gristmill.model.plan.estimate import Pace, Window, batch_of, estimate
from gristmill.model.plan.rehearsal import rehearse
from gristmill.model.train import optim
from gristmill.model.train.gradients import Gradients
from gristmill.model.train.loop import trained_parameters
from gristmill.model.train.objective import Objective
from gristmill.model.train.optim_config import Optim
from gristmill.model.windows.cost import Cost

NANO = PRESETS["nano"]
TEXT = replace(NANO, vision=None, audio=None, adapters=())
ADAPTED = replace(NANO, vision=None, audio=None, text=replace(NANO.text, num_hidden_layers=2))
WIDE = replace(
    TEXT, text=replace(TEXT.text, hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=8)
)
WINDOW = Window(length=512, tokens=500, segments=6, targets=300)
LORA = frozenset({Part.LORA_VISION, Part.LORA_SPEECH, Part.VISION_PROJECTOR})
ENCODERS = frozenset({Part.VISION_ENCODER, Part.AUDIO_ENCODER, Part.LORA_SPEECH})

pytestmark = pytest.mark.usefixtures("one_thread")


def in_types(model: Multimodal, trainable: frozenset[Part], kind: torch.dtype) -> None:
    """Puts the parts that are not trained in a type."""
    for name, parameter in model.named_parameters():
        if part_of(name) not in trainable:
            parameter.data = parameter.data.to(kind)


def allocated(run: Callable[[], object], folder: Path) -> int:
    """The most bytes of tensors that were there at once in a run, beside those before it, as torch's profiler saw."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    live = peak = 0
    for event in events:
        if event["name"] == "[memory]":
            live += event["args"]["Bytes"]
            peak = max(peak, live)
    return peak


def size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("recompute", [0.0, 0.5, 1.0], ids=["all-kept", "half", "recomputed"])
@pytest.mark.parametrize(
    ("config", "trainable", "precision", "kind", "of_all_kinds"),
    [
        pytest.param(TEXT, {Part.LANGUAGE}, "float32", torch.float32, False, id="nano"),
        pytest.param(WIDE, {Part.LANGUAGE}, "float32", torch.float32, False, id="wide"),
        pytest.param(TEXT, {Part.LANGUAGE}, "bfloat16", torch.float32, False, id="bfloat16"),
        pytest.param(NANO, LORA, "float32", torch.bfloat16, True, id="lora"),
        pytest.param(NANO, ENCODERS, "float32", torch.float32, True, id="encoders"),
    ],
)
def test_memory_is_what_a_step_is_seen_to_take(
    tmp_path: Path,
    config: ModelConfig,
    trainable: frozenset[Part],
    precision: str,
    kind: torch.dtype,
    of_all_kinds: bool,
    recompute: float,
) -> None:
    training = stage(trainable=trainable, precision=precision)
    batch = batch_of_all_kinds() if of_all_kinds else batch_of(config, WINDOW, 2)
    stored = dict.fromkeys(Part, kind)
    memory = rehearse(training, config, batch, Objective, stored=stored, recompute=recompute).memory

    model = Multimodal.seeded(config, 0).train()
    in_types(model, training.trainable, kind)
    objective = Objective(model)
    checkpoint_activations(model, recompute)
    trained = trained_parameters(training, model, objective)
    gradients = Gradients(trained)
    optimizer = optim.build(training.optim, model, trained)

    def one_pass() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = objective(batch)
        loss.backward()

    def update() -> None:
        gradients.flat.div_(3)
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()

    one_pass()
    update()
    assert sum(memory.parameters.values()) == size((*model.parameters(), *model.buffers()))
    assert memory.gradients == size([gradients.flat])
    assert memory.optimizer == size(value for state in optimizer.state.values() for value in state.values())
    assert memory.activations == pytest.approx(allocated(one_pass, tmp_path), rel=0.02)
    assert memory.update == pytest.approx(allocated(update, tmp_path), rel=0.02, abs=5_000)
    assert memory.peak == memory.standing + memory.batch + memory.activations


def test_memory_follows_from_what_is_kept_and_what_is_trained() -> None:
    def of(trainable: frozenset[Part], **how: Any) -> Any:
        return estimate(stage(trainable=trainable), ADAPTED, WINDOW, Pace("H100", **how)).memory

    everything = frozenset({Part.LANGUAGE})
    assert of(everything, recompute=1.0).activations < of(everything).activations / 2
    assert of(everything, windows_per_pass=3).activations > 2.5 * of(everything).activations
    assert of(frozenset({Part.LORA_SPEECH})).optimizer < of(everything).optimizer / 5
    assert of(everything, ranks=3) == of(everything), "replicas: each has all of it"
    adapter = frozenset({Part.LORA_SPEECH})
    assert of(everything, ranks=3, shard=True).optimizer == pytest.approx(of(everything).optimizer / 3, abs=2)
    assert of(adapter, ranks=3, shard=True) == of(adapter)


def test_muon_keeps_one_moment_of_a_matrix_and_needs_more_for_its_step() -> None:
    by = {kind: estimate(stage(optim=Optim(1e-3, kind=kind)), TEXT, WINDOW, Pace("H100")) for kind in ("adamw", "muon")}
    muon, adamw = by["muon"].memory, by["adamw"].memory
    assert adamw.optimizer * 0.5 < muon.optimizer < adamw.optimizer * 0.8
    assert by["muon"].flops > by["adamw"].flops


def test_nothing_of_a_model_is_allocated(tmp_path: Path) -> None:
    """Four layers of the paper's model, with all that training them takes: more than a test could have."""
    config = replace(PRESETS["multimodal"], vision=None, audio=None)
    config = replace(config, text=replace(config.text, num_hidden_layers=4))
    plan = estimate(stage(batch=64), config, Window(4096, 4096, 10, 4000), Pace("NVIDIA H100", windows_per_pass=2))
    assert plan.memory.peak > 25e9

    def again() -> None:
        estimate(stage(batch=64), config, Window(4096, 4096, 10, 4000), Pace("NVIDIA H100", windows_per_pass=2))

    assert allocated(again, tmp_path) < plan.memory.peak / 500


def test_operations_are_those_of_the_cost_of_windows() -> None:
    """Two countings that do not know each other: by the sizes of a config, and of the operations as they come."""
    training = stage(batch=4)
    plan = estimate(training, TEXT, replace(WINDOW, tokens=512), Pace("H100", windows_per_pass=2))
    cost, length = Cost.of(TEXT, training.trainable), 512 / 6
    counted = cost.token * 512 + cost.pair * 6 * length**2 + cost.target * 300
    head_again = cost.target / 3 * 300  # the head of each chunk is computed twice
    assert plan.flops == pytest.approx(4 * (counted + head_again), rel=0.03)
    assert plan.seconds == pytest.approx(plan.flops / (0.35 * 989e12))
    assert plan.by == "35% of the peak of H100"
    half = estimate(training, TEXT, replace(WINDOW, tokens=256), Pace("H100", windows_per_pass=2))
    assert half.flops == pytest.approx(plan.flops / 2), "windows as they are on average"
    two = estimate(training, TEXT, replace(WINDOW, tokens=512), Pace("H100", ranks=2))
    assert two.flops == pytest.approx(plan.flops / 2, rel=0.01), "of the windows of a rank"


def test_seconds_are_of_this_machine_or_of_a_known_one_or_none() -> None:
    training = stage()
    assert estimate(training, TEXT, WINDOW, Pace("Some GPU")).seconds is None
    here = estimate(training, TEXT, WINDOW)
    assert here.by == "its operations, tried out here on 1 thread"
    assert here.seconds is not None and here.seconds > 0


def test_a_checkpoint_has_the_size_that_it_has(tmp_path: Path) -> None:
    from train_windows import write_windows

    from gristmill.model.train.loop import Trainer

    training = stage(trainable=frozenset({Part.LORA_SPEECH, Part.AUDIO_PROJECTOR_SPEECH}), steps=1)
    model = Multimodal.seeded(NANO, 0)
    source = write_windows(tmp_path / "data", 4, 24, 2048)
    Trainer(training, model, Objective(model), source, config=NANO, base="x", folder=tmp_path / "run").train()
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors"))
    plan = estimate(training, NANO, WINDOW, Pace("H100"))
    assert plan.checkpoint == pytest.approx(written, rel=0.15)
    assert plan.checkpoint < written
    assert sum(plan.trained.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_images_clips_and_pairs_have_their_places() -> None:
    window = Window(128, 120, 2.5, 32, crops=1, frames=50)
    batch = batch_of(NANO, window, 2)
    assert len(batch.input_ids) == 256 and int(batch.loss_mask.sum()) == 64
    assert batch.inputs["image_pixel_values"].shape == (2, 3, 64, 64)
    assert batch.inputs["image_pixel_values"].is_meta and batch.inputs["audio_input_features"].is_meta
    assert len(batch.cu_seqlens) - 1 == 5
    rehearsed = rehearse(stage(trainable=ENCODERS), NANO, batch, Objective)
    assert set(rehearsed.trained) == ENCODERS and rehearsed.memory.activations > 0
    pairs = batch_of(TEXT, replace(WINDOW, segments=3), 1, pairs=True)
    assert len(pairs.cu_seqlens) - 1 == 4 and pairs.reference_logprobs is not None
    preferences = estimate(stage(loss="dpo"), TEXT, WINDOW, Pace("H100"))
    assert preferences.memory.activations > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(0, 0, 0, 0), "length=0: allowed are 1 to inf"),
        (lambda: Window(10, 11, 1, 1), "tokens=11: allowed are 0 to 10 of a window of 10"),
        (lambda: Window(10, 10, 1, -1), "targets=-1"),
        (lambda: batch_of(NANO, Window(64, 64, 1, 9, crops=4), 1), "crops=4, frames=0: their 82 tokens are more than"),
        (lambda: estimate(stage(trainable={Part.LORA_VISION}), TEXT, WINDOW), "lora_vision: this model has no such"),
    ],
)
def test_what_cannot_be_is_refused_by_field(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
